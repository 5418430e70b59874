"""Train every trained explainer for a few steps with several settings, and print what they reach.

All are tried with the same settings, and judged by the AD on the validation images, never by those
for evaluation. What is best goes into params.yaml by hand; see docs/training.md.
"""

import sys
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run
from benchmark.core.store import Key, Unfinished
from benchmark.report.rendering import Entry, write

if TYPE_CHECKING:
    from benchmark.data.splits import Listed, Split
    from methods import Backbone

SEARCH = results.RESULTS / "search"

STEPS = 80
"""Of each trial, one cycle of the learning rate."""


class Trial(NamedTuple):
    """What differs from the parameters: a setting of the mechanism, and one of the recipe."""

    gain: float
    max_lr: float

    @property
    def name(self) -> str:
        """As the tables head it."""
        return f"gain {self.gain:g}, rate {self.max_lr:g}"


TRIALS = tuple(Trial(*values) for values in product((0.1, 1.0), (0.001, 0.003, 0.01)))


def main(params: Params) -> None:
    """Write a table a backbone, a row an explainer, a column a trial, and print it.

    What was trained before a stop is kept. A trial that fails, as one that diverges, has no value.

    Raises:
        ValueError: too few training images; no trial of an explainer succeeds.
    """
    from benchmark.data.splits import read_split, read_training
    from benchmark.engine.devices import device
    from methods import build_backbone

    project = Project(params)
    splits = read_training(results.SPLITS), read_split(results.SPLITS, "validation")
    works: list[Unfinished] = []
    for backbone in params.backbones:
        cells = [cell for cell in project.trained(backbone) if cell.checkpoint is None]
        if not cells:
            continue
        network = build_backbone(backbone, device=device(), **project.spec(backbone))
        rows: list[dict[str, Any]] = []
        for cell in cells:
            key = key_of(project, cell)
            works.append(Unfinished(f"search {cell.name}", key))
            reached = search(cell, key, network, splits, params.seed, works[-1])
            label = project.facts(cell.explainer).label
            rows.append({"Explainer": label} | entries(reached))
        write(SEARCH / backbone, pd.DataFrame(rows))
        print(backbone, (SEARCH / f"{backbone}.md").read_text(), sep="\n\n")
    for work in works:
        work.forget()


def key_of(project: Project, cell: Cell) -> Key:
    """What the trials of a cell are made of."""
    key = project.state(cell).key
    return replace(key, parameters=f"{key.parameters} {STEPS} steps")


def entries(reached: dict[str, float]) -> dict[str, Entry]:
    """The validation AD of each trial as it is printed; the least is the best."""
    best = np.nanmin(list(reached.values()))
    found = {}
    for trial, value in reached.items():
        text = "failed" if np.isnan(value) else f"{value:.1f}"
        found[trial] = Entry(text, mark="best" if value == best else "")
    return found


def search(
    cell: Cell,
    key: Key,
    network: "Backbone",
    splits: "tuple[Split | Listed, Split]",
    seed: int,
    work: Unfinished,
) -> dict[str, float]:
    """The validation AD at 100 %, in per cent, that each trial of a cell (and its key) reaches."""
    from benchmark.engine import training

    def attempt(trial: Trial) -> dict[str, Any]:
        changes = {"max_lr": trial.max_lr, "epochs": 1, "images": images}
        recipe = cell.recipe.model_copy(update=changes)
        other = replace(key, parameters=f"{key.parameters} {trial.name}")
        own = Unfinished(f"search {cell.name}, {trial.name}", other)
        name, settings = cell.load or cell.explainer, cell.settings | {"gain": trial.gain}
        try:
            _, curve = training.train(
                name, network, settings, recipe, splits, seed=seed, work=own, label=own.label
            )
            reached = curve["validation_ad"].iloc[-1]
        except ValueError as error:
            print(f"{own.label}: {error}", file=sys.stderr)
            reached = np.nan
        own.forget()
        return {"value": reached}

    images = STEPS * cell.recipe.batch_size
    if len(splits[0]) < images:
        raise ValueError(
            f"images.train is {len(splits[0])}: expected at least {images}, for {STEPS} steps of "
            f"{cell.name}"
        )
    trials = {trial.name: trial for trial in TRIALS}
    found = work.pieces(trials, attempt, unit="trial")
    reached = {name: float(piece["value"]) for name, piece in zip(trials, found, strict=True)}
    if np.isnan(list(reached.values())).all():
        work.forget()
        raise ValueError(f"no trial of {cell.name} succeeded: see above")
    return reached


if __name__ == "__main__":
    run(main)
