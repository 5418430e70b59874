"""Train, explain and score on a tiny CNN, alone or started by torchrun. Rank 0 saves what came."""

import sys
from pathlib import Path

import numpy as np
import torch
from conftest import tiny_cnn
from safetensors.torch import save_file

from benchmark.core import processes, results
from benchmark.core.store import Key, Unfinished
from benchmark.data.splits import read_split
from benchmark.engine import explaining, scoring, training
from benchmark.engine.recipe import Recipe
from methods.gradcam import GradCAM
from methods.ttame import TTAME
from metrics.confidence import Confidence
from metrics.road import ROAD

RECIPE = Recipe(epochs=2, batch_size=8, max_lr=0.05, momentum=0.9, weight_decay=5e-4)
PERTURBED = 16
"""Perturbed images held at a time, so few that two processes have several blocks to share."""


def main(out: Path) -> None:
    """Write states, curve, maps and scores below `out`."""
    out.mkdir(exist_ok=True)
    backbone = tiny_cnn()
    train, validation, split = (
        read_split(results.SPLITS, name) for name in ("train", "validation", "evaluation")
    )
    trained, maps = TTAME(backbone), {}
    work = Unfinished("train", Key("", ""))
    curve = training.fit(trained, RECIPE, train, validation, seed=0, work=work, label="")
    work.forget()
    for name, explainer in (("ttame", trained), ("gradcam", GradCAM(backbone))):
        work = Unfinished("explain", Key(name, ""))
        targets = explaining.choose(backbone, split, 4, "predicted")[0]
        pieces = explaining.explain(explainer, split, targets, work, batch_size=4, count_nan=False)
        assert explaining.cost_of(explainer, pieces)["images_forward"] == 1
        maps[name] = explaining.joined_maps(pieces)
        work.forget()
    views = [scoring.View("corrected", [Confidence([50]), ROAD([30])], maps["gradcam"])]
    views.append(scoring.View("reference", [Confidence([50])], maps["gradcam"][:9]))
    work = Unfinished("evaluate", Key("", ""))
    images = scoring.predict(backbone, split, 32)
    tables = scoring.score(views, backbone, images, work, seed=0, batch_size=32)
    work.forget()
    if processes.first():
        state = trained.attention.state_dict()
        counts = torch.tensor(trained.origin()["class_counts"])
        save_file({**state, "class_counts": counts}, out / "state.safetensors")
        curve.to_csv(out / "curve.csv")
        np.savez(out / "maps.npz", **maps)
        for view, table in zip(views, tables, strict=True):
            table.to_csv(out / f"{view.mode}.csv")


if __name__ == "__main__":
    torch.set_num_threads(1)
    scoring.PERTURBED = PERTURBED
    with processes.joined():
        main(Path(sys.argv[1]))
