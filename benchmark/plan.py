"""What a profile will take: images through the networks, hours of this device, and disk.

Every explainer is run on an image or two, every head trained for a few steps, one image scored for
each backbone, all on random pixels and with random weights; the counts of params.yaml do the rest.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import methods
from benchmark import backbones, evaluate, images, index, parallel, train
from benchmark.decoding import File, decoded
from benchmark.devices import autocast, device
from benchmark.params import Cell, Head, Params, Photographs, Recipe, Variant
from benchmark.photographs import BATCH
from benchmark.stage import run
from methods import Backbone, Explainer
from metrics import Perturbation

IMAGENET = 1_281_167
"""Training images of ImageNet, if they are not listed yet."""

STEPS = 3
"""Training steps that are timed, after one that is not."""

DECODED = 1024
"""Photographs decoded at most to see how fast that is."""

CHEAP = 1.0
"""Seconds; what takes less for one image is timed again with a whole batch."""


@dataclass(frozen=True)
class Estimate:
    """What a stage of a backbone takes.

    Attributes:
        backbone, stage: their names.
        cells: how many entries of params.yaml.
        images: through the network, forward.
        seconds: of this device.
        bytes: written to disk.
    """

    backbone: str
    stage: str
    cells: int
    images: float
    seconds: float
    bytes: float


def main(params: Params) -> None:
    """Print a row a backbone and stage, and their sums."""
    used = dict.fromkeys(cell.backbone for cell in params.cells.values())
    rows = []
    with tqdm(total=len(params.cells) + len(params.heads), unit="cell", disable=None) as progress:
        for name in used:
            rows += of_backbone(params, name, progress.update)
    print(table(rows))
    where = torch.cuda.get_device_name() if device().type == "cuda" else "the CPU"
    print(f"\nOn {where}, {torch.get_num_threads()} threads, torch {torch.__version__}.")
    trained = [row for row in rows if row.stage == "train" and row.seconds > 0]
    if trained and params.photographs is not None and (index.DATA / "evaluation.csv").is_file():
        rate = decoding_rate(params.photographs)
        fastest = max(row.images / 2 / row.seconds for row in trained)
        print(
            f"Decoding: {rate:.0f} photographs a second by all CPUs; training takes up to "
            f"{fastest:.0f}{', so that it waits for them: use more CPUs' * (rate < fastest)}."
        )


def table(rows: list[Estimate]) -> str:
    """The estimates as Markdown, with a last line of sums."""
    frame = pd.DataFrame([vars(row) for row in rows])
    total = frame[["cells", "images", "seconds", "bytes"]].sum()
    frame.loc[len(frame)] = {"backbone": "all", "stage": "", **total}
    shown = pd.DataFrame(
        {
            "backbone": frame["backbone"],
            "stage": frame["stage"],
            "cells": frame["cells"].map("{:.0f}".format),
            "images through the network": frame["images"].map("{:,.0f}".format),
            "hours": (frame["seconds"] / 3600).map("{:.2f}".format),
            "GB": (frame["bytes"] / 1e9).map("{:.2f}".format),
        }
    )
    sides = ["left", "left", "right", "right", "right", "right"]
    return str(shown.to_markdown(index=False, colalign=sides, disable_numparse=True))


def of_backbone(params: Params, name: str, progress: Callable[[], object]) -> list[Estimate]:
    """The estimates of every stage of a backbone."""
    spec = params.backbones[name].model_copy(update={"weights": "none"})
    backbone = backbones.build(name, spec)
    pixels = torch.rand(params.explain.batch_size, 3, spec.size, spec.size).to(backbone.device)
    backbone.probabilities(pixels)  # loads what is loaded at first use
    count = evaluation_images(params)
    rows = []
    heads = {key: head for key, head in params.heads.items() if head.backbone == name}
    for head in heads.values():
        rows.append(of_training(params, head, params.train, backbone, "train"))
        progress()
    own = [cell for cell in params.cells.values() if cell.backbone == name]
    for cell in own:
        rows += of_cell(params, cell, backbone, pixels, count)
        progress()
    scored = of_scores(params, backbone, count)
    rows += [scored] * len(own)
    for key, variant in params.ablation.items():
        if variant.backbone == name:
            once = of_training(params, variant, params.recipe(key), backbone, "ablate")
            rows += [once] * params.ablate.seeds
    return summed(rows)


def summed(rows: list[Estimate]) -> list[Estimate]:
    """One row a stage."""
    frame = pd.DataFrame([vars(row) for row in rows])
    sums = frame.groupby(["backbone", "stage"], sort=False).sum().reset_index()
    return [Estimate(**{str(k): v for k, v in row.items()}) for row in sums.to_dict("records")]


def evaluation_images(params: Params) -> int:
    """The number of evaluation images."""
    chosen = params.photographs or params.subset
    assert chosen is not None
    return chosen.images.evaluation


def training_images(params: Params) -> int:
    """The number of training images: listed, wanted, or all of ImageNet."""
    listed = Path(index.DATA / "train.csv")
    if params.subset is not None:
        return params.subset.images.train
    assert params.photographs is not None
    if listed.is_file():
        return len(pd.read_csv(listed, usecols=["id"]))
    return params.photographs.images.train or IMAGENET


def decoding_rate(settings: Photographs) -> float:
    """Photographs decoded for training in a second, of those listed for evaluation."""
    folder = images.root()
    paths = pd.read_csv(index.DATA / "evaluation.csv")["path"][:DECODED]
    files: list[File] = [(folder / path, seed) for seed, path in enumerate(paths)]
    parts = decoded(
        [files[i : i + BATCH] for i in range(0, len(files), BATCH)], settings.resize, settings.size
    )
    start = time.perf_counter()
    count = sum(len(part) for part in parts)
    return count / (time.perf_counter() - start)


def clock() -> float:
    """Seconds, once the device is done."""
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def of_cell(
    params: Params, cell: Cell, backbone: Backbone, pixels: Tensor, count: int
) -> list[Estimate]:
    """Explaining `count` images, explaining some on randomised networks, and timing it."""
    cls = methods.load(cell.load or cell.explainer)
    head = params.heads.get(f"{cell.backbone}-{cell.explainer}")
    explainer = methods.build(cls, backbone, head.settings if head else cell.settings)
    passes, seconds, size = explained(explainer, cell, pixels[:1])
    if seconds < CHEAP and len(pixels) > 1:
        passes, seconds, size = explained(explainer, cell, pixels)
    again = params.randomise.images * len(params.randomise.layers)
    runtime = params.runtime
    timed = (runtime.rounds + runtime.warmup) * (1 + runtime.batch)
    name = backbone.name
    return [
        Estimate(name, "explain", 1, passes * count, seconds * count, 4 * size * count),
        Estimate(name, "randomise", 1, passes * again, seconds * again, 0),
        Estimate(name, "runtime", 1, passes * timed, seconds * timed, 0),
    ]


def explained(explainer: Explainer, cell: Cell, pixels: Tensor) -> tuple[float, float, float]:
    """Of one image: passes forward, seconds, and values of the map."""
    backbone = explainer.backbone
    targets = backbone.predict(pixels)
    before, start = backbone.passes.forward, clock()
    with autocast(backbone.device, cell.precision):
        maps = explainer(pixels, targets)
    seconds = clock() - start
    n = len(pixels)
    return (backbone.passes.forward - before) / n, seconds / n, maps[0].numel()


def of_scores(params: Params, backbone: Backbone, count: int) -> Estimate:
    """Scoring one cell, in the profile's mode."""
    suite = evaluate.build_suite(params.evaluate, params.mode, backbone, trained=False)
    ones = torch.ones(1, backbone.size, backbone.size, dtype=torch.bool)
    pixels = torch.randint(0, 256, (1, 3, backbone.size, backbone.size), dtype=torch.uint8)
    split = images.Split(pd.DataFrame({"id": ["x"]}), pixels, ones, torch.zeros(1).long())
    maps = np.random.default_rng(0).random((1, 14, 14), np.float32)
    view = evaluate.View(params.mode, suite, maps)
    size = params.evaluate.batch_size
    evaluate.score([view], backbone, split, [0], size)
    start = clock()
    evaluate.score([view], backbone, split, [0], size)
    seconds = clock() - start
    versions = 1 + sum(m.versions for m in suite if isinstance(m, Perturbation))
    share = 1 + params.evaluate.delta_images / count  # these are scored in both modes
    return Estimate(
        backbone.name, "evaluate", 1, versions * count * share, seconds * count * share, 0
    )


def of_training(
    params: Params, head: Head | Variant, recipe: Recipe, backbone: Backbone, stage: str
) -> Estimate:
    """Training a head by a recipe; every step has two passes of its batch."""
    explainer = train.build(head, backbone)
    trainee = parallel.trainee(explainer)
    optimiser = train.build_optimiser(explainer.attention, recipe)
    scaler = torch.amp.GradScaler(backbone.device.type, enabled=recipe.precision == "float16")
    shape = (recipe.batch_size, 3, backbone.size, backbone.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    for number in range(STEPS + 1):
        if number == 1:
            start = clock()
        train.step(trainee, optimiser, pixels, scaler, recipe.precision)
    seconds = (clock() - start) / STEPS
    count = min(recipe.images or training_images(params), training_images(params))
    given = isinstance(head, Head) and head.checkpoint is not None
    steps = 0 if given else recipe.epochs * (count // recipe.batch_size)
    size = sum(t.numel() * t.element_size() for t in explainer.attention.state_dict().values())
    through = 2 * steps * recipe.batch_size
    return Estimate(backbone.name, stage, 1, through, seconds * steps, size)


if __name__ == "__main__":
    run(main)
