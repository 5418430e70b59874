"""Train every trained explainer for a few steps with several settings, and print what they reach.

All are tried with the same settings, and judged by the AD on the validation images, which no other
table shows. What is best goes into params.yaml by hand; see docs/training.md.
"""

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

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

    A trial that is stopped is done anew; those before it are kept.
    """
    from benchmark.data.splits import read_split, read_training
    from benchmark.engine.devices import device
    from methods import build_backbone

    project = Project(params)
    splits = read_training(results.SPLITS), read_split(results.SPLITS, "validation")
    for backbone in params.backbones:
        cells = [cell for cell in project.trained(backbone) if cell.checkpoint is None]
        if not cells:
            continue
        network = build_backbone(backbone, device=device(), **params.backbones[backbone].spec)
        works = [Unfinished(f"search {c.name}", project.state(c).key) for c in cells]
        rows: list[dict[str, Any]] = []
        for cell, work in zip(cells, works, strict=True):
            reached = search(cell, project.state(cell).key, network, splits, params.seed, work)
            best = min(reached.values())
            texts = {
                trial: Entry(f"{value:.1f}", mark="best" if value == best else "")
                for trial, value in reached.items()
            }
            rows.append({"Explainer": project.facts(cell.explainer).label} | texts)
        write(SEARCH / backbone, pd.DataFrame(rows))
        for work in works:
            work.forget()
        print(backbone, (SEARCH / f"{backbone}.md").read_text(), sep="\n\n")


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
        images = STEPS * cell.recipe.batch_size
        changes = {"max_lr": trial.max_lr, "epochs": 1, "images": images}
        recipe = cell.recipe.model_copy(update=changes)
        other = replace(key, parameters=f"{key.parameters} {trial.name}")
        own = Unfinished(f"search {cell.name}, {trial.name}", other)
        name, settings = cell.load or cell.explainer, cell.settings | {"gain": trial.gain}
        _, curve = training.train(
            name, network, settings, recipe, splits, seed=seed, work=own, label=own.label
        )
        own.forget()
        return {"value": curve["validation_ad"].iloc[-1]}

    trials = {trial.name: trial for trial in TRIALS}
    found = work.pieces(trials, attempt, unit="trial")
    return {name: float(piece["value"]) for name, piece in zip(trials, found, strict=True)}


if __name__ == "__main__":
    run(main)
