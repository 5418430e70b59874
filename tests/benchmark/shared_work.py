"""Train, explain and score on a tiny CNN; started by torchrun, or alone. Rank 0 saves what came."""

import sys
from pathlib import Path

import numpy as np
import torch
from conftest import tiny_cnn
from safetensors.torch import save_file

from benchmark import evaluate, explain, processes, store, train
from benchmark.images import read_split
from benchmark.params import Explain, Recipe
from methods.gradcam import GradCAM
from methods.ttame import TTAME
from metrics.confidence import Confidence
from metrics.road import ROAD

RECIPE = Recipe(epochs=2, batch_size=8, max_lr=0.05, momentum=0.9, weight_decay=5e-4)


def main(out: Path) -> None:
    """Write states, curve, maps and scores below `out`."""
    out.mkdir(exist_ok=True)
    backbone = tiny_cnn()
    split = read_split("evaluation")
    trained, maps = TTAME(backbone), {}
    work = store.Work("train", [], [])
    curve = train.fit(trained, RECIPE, seed=0, work=work, label="")
    work.done()
    for name, explainer in (("ttame", trained), ("gradcam", GradCAM(backbone))):
        work = store.Work("explain", [name], [])
        maps[name], cost = explain.explain(
            explainer, split, Explain(batch_size=4, nan_maps="refuse"), work, ""
        )
        assert cost["images_forward"] == 1
        work.done()
    views = [evaluate.View("corrected", [Confidence([50]), ROAD([30])], maps["gradcam"])]
    views.append(evaluate.View("reference", [Confidence([50])], maps["gradcam"][:9]))
    work = store.Work("evaluate", [], [])
    tables = evaluate.evaluate(views, backbone, split, list(range(len(split))), 32, work, "")
    work.done()
    if processes.first():
        save_file(dict(trained.attention.state_dict()), out / "state.safetensors")
        curve.to_csv(out / "curve.csv")
        np.savez(out / "maps.npz", **maps)
        for view, table in zip(views, tables, strict=True):
            table.to_csv(out / f"{view.mode}.csv")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes.joined():
        main(Path(sys.argv[1]))
