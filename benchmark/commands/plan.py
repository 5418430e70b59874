"""What a profile will take: images through the networks, hours of this device, and disk.

Every explainer is run on an image or two, every head trained for a few steps, one image scored for
each backbone, all on random pixels and with random weights; the counts of params.yaml do the rest.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import methods
import metrics
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Compositions, Params, Photographs
from benchmark.core.stage import run
from benchmark.data.decoding import Crop, File, decoded
from benchmark.data.photographs import BATCH
from benchmark.data.splits import ROOT, Split, root
from benchmark.engine import scoring, training
from benchmark.engine.devices import autocast, clock, device
from benchmark.engine.recipe import Recipe
from methods import Backbone, Explainer, TrainableExplainer, build_backbone
from metrics import Perturbation

IMAGENET = 1_281_167
"""Training images of ImageNet, if they are not listed yet."""

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
    project = Project(params)
    rows = []
    with tqdm(total=len(project.all_cells()), unit="cell", disable=None) as progress:
        for name in params.backbones:
            rows += of_backbone(project, name, progress.update)
    print(table(rows))
    where = torch.cuda.get_device_name() if device().type == "cuda" else "the CPU"
    print(f"\nOn {where}, {torch.get_num_threads()} threads, torch {torch.__version__}.")
    trained = [row for row in rows if row.stage == "train" and row.seconds > 0]
    images = params.images
    if trained and isinstance(images, Photographs) and (images.folder / "evaluation.csv").is_file():
        if ROOT not in os.environ:
            print(f"Decoding: not measured, {ROOT} does not name the folder of the photographs.")
            return
        rate = decoding_rate(images)
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


def of_backbone(project: Project, name: str, progress: Callable[[], object]) -> list[Estimate]:
    """The estimates of every stage of a backbone."""
    params = project.params
    chosen = params.backbones[name]
    settings = [cell.settings for cell in project.probed_cells(name).values()]
    layers = [layer for own in settings for layer in own.get("layers") or ()]
    layers += [own["layer"] for own in settings if own.get("layer")]
    read = dict.fromkeys((*chosen.taps, chosen.cam_layer, *layers))  # random weights may mix places
    spec = chosen.spec | {"weights": "none", "trusted": (*read, *chosen.trusted)}
    backbone = build_backbone(name, device=device(), **spec)
    size = (params.explain.batch_size, 3, backbone.size, backbone.size)
    pixels = torch.rand(size).to(backbone.device)
    backbone.probabilities(pixels)  # loads what is loaded at first use
    rows = []
    seconds = seconds_of_scoring(params, backbone)
    clean = max((project.images_of(cell) for cell in project.cells(name)), default=0)
    rows.append(Estimate(name, "evaluate", 0, clean, seconds * clean, 0))
    for cell in project.cells(name):
        if project.is_trained(cell):
            recipe = None if cell.checkpoint else cell.recipe
            rows.append(of_training(params, cell, recipe, backbone, "train"))
        rows += of_cell(project, cell, backbone, pixels)
        rows.append(of_scores(project, cell, seconds))
        progress()
    for variant in project.variants(name).values():
        once = of_training(params, variant, variant.recipe, backbone, "ablate")
        rows += [once] * params.ablate.seeds
    return summed(rows)


def summed(rows: list[Estimate]) -> list[Estimate]:
    """One row a stage."""
    frame = pd.DataFrame([vars(row) for row in rows])
    sums = frame.groupby(["backbone", "stage"], sort=False).sum().reset_index()
    return [Estimate(**{str(k): v for k, v in row.items()}) for row in sums.to_dict("records")]


def training_images(params: Params) -> int:
    """The number of training images: listed, wanted, or all of ImageNet."""
    images = params.images
    listed = images.folder / "train.csv"
    if isinstance(images, Compositions):
        return images.train
    if listed.is_file():
        return len(pd.read_csv(listed, usecols=["id"]))
    return images.train or IMAGENET


def decoding_rate(images: Photographs) -> float:
    """Photographs decoded for training in a second, of those listed for evaluation."""
    folder = root()
    paths = pd.read_csv(images.folder / "evaluation.csv")["path"][:DECODED]
    files: list[File] = [(folder / path, seed) for seed, path in enumerate(paths)]
    batches = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
    parts = decoded(batches, Crop(**images.crop))
    start = time.perf_counter()
    count = sum(len(part) for part in parts)
    return count / (time.perf_counter() - start)


def of_cell(project: Project, cell: Cell, backbone: Backbone, pixels: Tensor) -> list[Estimate]:
    """Explaining its images, some on randomised networks and with another seed, and timing it."""
    params, count = project.params, project.images_of(cell)
    cls = methods.load(cell.load or cell.explainer)
    explainer = methods.build(cls, backbone, cell.settings)
    if isinstance(explainer, TrainableExplainer):
        explainer.allows_unseen = True
    passes, seconds, size = explained(explainer, cell, pixels[:1])
    if seconds < CHEAP and len(pixels) > 1:
        passes, seconds, size = explained(explainer, cell, pixels)
    sanity = params.randomise
    again = sanity.images * len(sanity.layers)
    again += sanity.seed_images * project.facts(cell.explainer).seeded
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
    before, start = backbone.passes.forward, clock(backbone.device)
    with autocast(backbone.device, cell.precision):
        maps = explainer(pixels, targets)
    seconds = clock(backbone.device) - start
    n = len(pixels)
    return (backbone.passes.forward - before) / n, seconds / n, maps[0].numel()


def of_scores(project: Project, cell: Cell, seconds: float) -> Estimate:
    """Scoring a cell, the first images in both modes, at so many seconds a perturbed version."""
    evaluate = project.params.evaluate
    counts = {name: project.images_of(cell, name) for name in project.scored_metrics()}
    through = 0
    for name, count in counts.items():
        built = metrics.build(name, evaluate.settings[name])
        if isinstance(built, Perturbation):
            through += built.versions * (count + evaluate.delta_images)
    return Estimate(cell.backbone, "evaluate", 1, through, seconds * through, 0)


def seconds_of_scoring(params: Params, backbone: Backbone) -> float:
    """Of a perturbed version of an image, in the profile's mode."""
    suite = scoring.build_suite(params.evaluate.settings, params.mode, backbone, trained=False)
    ones = torch.ones(1, backbone.size, backbone.size, dtype=torch.bool)
    pixels = torch.randint(0, 256, (1, 3, backbone.size, backbone.size), dtype=torch.uint8)
    split = Split(pd.DataFrame({"id": ["x"]}), pixels, ones, torch.zeros(1).long())
    maps = np.random.default_rng(0).random((1, 14, 14), np.float32)
    views = [scoring.View(params.mode, suite, maps)]
    size = params.evaluate.batch_size

    images = scoring.predict(backbone, split, size)
    versions = sum(m.versions for m in suite if isinstance(m, Perturbation))
    if not versions:
        return 0.0

    def score() -> None:
        list(scoring.score_blocks(views, backbone, images, [0], size, "predicted", [slice(0, 1)]))

    score()
    start = clock(backbone.device)
    score()
    seconds = clock(backbone.device) - start
    return seconds / (-(-versions // size) * size)  # the last batch is filled


def of_training(
    params: Params, cell: Cell, recipe: Recipe | None, backbone: Backbone, stage: str
) -> Estimate:
    """Training by a recipe, None for a checkpoint; every step has two passes of its batch."""
    name = cell.load or cell.explainer
    explainer = training.build_trainable(name, backbone, cell.settings)
    size = sum(t.numel() * t.element_size() for t in explainer.attention.state_dict().values())
    if recipe is None:
        return Estimate(backbone.name, stage, 1, 0, 0, size)
    count = training_images(params)
    seconds = training.seconds_of_training(explainer, recipe, count)
    through = 2 * training.step_count(recipe, count) * recipe.batch_size
    return Estimate(backbone.name, stage, 1, through, seconds, size)


if __name__ == "__main__":
    run(main)
