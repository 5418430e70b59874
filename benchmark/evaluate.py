"""Score the maps of one cell: one row an image, measure and level."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import metrics
from benchmark import backbones, store
from benchmark.images import Split, read_split
from benchmark.params import Cell, Params
from benchmark.stage import run, seed_of
from methods import Backbone
from metrics import Metric

IMAGES = 8
"""Images perturbed at a time."""


def main(params: Params, cell: str) -> None:
    """Write the scores of a cell of params.yaml."""
    spec: Cell = params.entry("cells", cell)
    maps_path = store.maps_path(spec.backbone, spec.explainer)
    maps = store.read_array(maps_path)
    split = read_split("evaluation")
    refuse_bad_maps(maps, len(split), str(maps_path))
    suite = [metrics.build(name, s) for name, s in params.evaluate.metrics.items()]
    backbone = backbones.build(spec.backbone, params.backbones[spec.backbone])
    seeds = [seed_of(params.seed, "evaluate", image) for image in split.ids]
    scores = evaluate(suite, backbone, split, maps, seeds, params.evaluate.batch_size, cell)
    scores.insert(0, "backbone", spec.backbone)
    scores.insert(1, "explainer", spec.explainer)
    store.write_csv(store.scores_path(spec.backbone, spec.explainer), scores)


def refuse_bad_maps(maps: NDArray[np.float32], images: int, source: str) -> None:
    """Refuse maps that are not one finite map an image.

    Raises:
        ValueError: names the file, the value and what was expected.
    """
    if maps.ndim != 3 or len(maps) != images:
        raise ValueError(f"{source} has shape {maps.shape}: expected ({images}, h, w)")
    bad = ~np.isfinite(maps).all(axis=(1, 2))
    if bad.any():
        raise ValueError(
            f"{source}: {int(bad.sum())} of {images} maps hold NaN or infinite values, the first "
            f"is map {int(bad.argmax())}: expected finite values, run `dvc repro` to make them anew"
        )
    if maps.min() < 0 or maps.max() > 1:
        raise ValueError(f"{source} ranges from {maps.min()} to {maps.max()}: expected [0, 1]")


def evaluate(
    suite: list[Metric],
    backbone: Backbone,
    split: Split,
    maps: NDArray[np.float32],
    seeds: list[int],
    batch_size: int,
    label: str,
) -> pd.DataFrame:
    """Scores of maps (N, h, w) of a split, with the columns image, metric, level, value, weights.

    The perturbed images of all metrics share their forward passes.
    """
    frames = []
    for batch in tqdm(list(split.batches(IMAGES)), desc=label, unit="batch", disable=None):
        pixels = split.images(batch)
        chosen = torch.from_numpy(maps[batch])
        versions = [m.perturb(pixels, chosen, seeds[batch]) for m in suite]
        before = probabilities(backbone, pixels, batch_size)
        after = probabilities(backbone, torch.cat(versions, dim=1).flatten(0, 1), batch_size)
        parts = after.unflatten(0, (len(pixels), -1)).split([v.shape[1] for v in versions], dim=1)
        for metric, part in zip(suite, parts, strict=True):
            for values in metric.judge(before, part, before.argmax(dim=1)):
                frames.append(
                    pd.DataFrame(
                        {
                            "image": split.ids[batch],
                            "metric": values.measure,
                            "level": values.level,
                            "value": values.per_image.numpy(),
                        }
                    )
                )
    scores = pd.concat(frames).sort_values(
        ["image", "metric", "level"], ascending=[True, True, True], kind="stable"
    )
    return scores.assign(weights=backbone.digest[:12])


def probabilities(backbone: Backbone, pixels: Tensor, batch_size: int) -> Tensor:
    """Class probabilities (N, K), on the CPU, of pixels (N, 3, H, W)."""
    parts = [backbone.probabilities(p.to(backbone.device)).cpu() for p in pixels.split(batch_size)]
    return torch.cat(parts)


if __name__ == "__main__":
    run(main, "cell")
