"""Explain with every fill of the explainers that mask, and print what each changes.

The scores with the fill of params.yaml are those stored; with the others the first evaluation
images are explained and scored here. What was explained before a stop is kept.
"""

import inspect
from typing import TYPE_CHECKING, get_args

import pandas as pd

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run
from benchmark.core.store import Unfinished
from benchmark.report.measures import Known, known_measures, measure_of
from benchmark.report.printed import CONFIDENCE, columns
from benchmark.report.rendering import Entry, write
from benchmark.report.statistics import against_first, matrix, means
from benchmark.report.summaries import told

if TYPE_CHECKING:
    from benchmark.data.splits import Split
    from methods import Backbone

FILLS = results.RESULTS / "fills"

IMAGES = 24
"""Explained with each fill, the first of the evaluation images."""

METRIC = "confidence"


def main(params: Params) -> None:
    """Write a table a backbone, a row an explainer and fill, and print it.

    Raises:
        ValueError: the parameters do not score by METRIC.
    """
    from benchmark.data.splits import read_split
    from benchmark.engine.devices import device
    from methods import build_backbone

    if METRIC not in params.evaluate.metrics:
        raise ValueError(
            f"evaluate.metrics is {', '.join(params.evaluate.metrics)}: expected {METRIC}, by "
            "which fills are compared; add it and run `dvc repro`"
        )
    project = Project(params)
    known = known_measures(project.catalogue)
    split = read_split(results.SPLITS, "evaluation").first(min(IMAGES, params.images.evaluation))
    for backbone, spec in params.backbones.items():
        network = build_backbone(backbone, device=device(), **spec.spec)
        works: list[Unfinished] = []
        rows: list[dict[str, str | Entry]] = []
        for cell in project.cells(backbone):
            fills = fills_of(cell)
            if not fills:
                continue
            stored = results.read_scores(results.scores_path(backbone, cell.explainer))
            tables = {fills[0]: matrix(of_first(stored, split))}
            for fill in fills[1:]:
                changed = cell.model_copy(update={"settings": cell.settings | {"fill": fill}})
                scores = score_with(project, changed, network, split, works)
                tables[fill] = matrix(scores)
            rows += compare(project.facts(cell.explainer).label, tables, known, params)
        if not rows:
            continue
        write(FILLS / backbone, pd.DataFrame(rows))
        for work in works:
            work.forget()
        print(backbone, (FILLS / f"{backbone}.md").read_text(), sep="\n\n")


def fills_of(cell: Cell) -> list[str]:
    """The fills that an explainer knows, the one that it is scored with first; empty if none."""
    import methods

    signature = inspect.signature(methods.load(cell.load or cell.explainer))
    fill = signature.parameters.get("fill")
    if fill is None:
        return []
    own = cell.settings.get("fill", fill.default)
    return [own, *(other for other in get_args(fill.annotation) if other != own)]


def of_first(scores: pd.DataFrame, split: "Split") -> pd.DataFrame:
    """The rows of METRIC's measures, of the images of a split."""
    shown = [name for part in CONFIDENCE for name in part.split("+")]
    return scores[scores["metric"].isin(shown) & scores["image"].isin(split.ids)]


def score_with(
    project: Project,
    cell: Cell,
    network: "Backbone",
    split: "Split",
    works: list[Unfinished],
) -> pd.DataFrame:
    """Explain the images of a split, and score the maps; what is unfinished is added to `works`."""
    from benchmark.engine import explaining, scoring

    params, n = project.params, len(split)
    keys = project.explain_key(cell, params.mode, n), project.scores_key(cell, METRIC, n)
    works.append(Unfinished(f"fills {cell.name} {cell.settings['fill']}", *keys))
    settings = cell.settings_in(params.mode)
    explainer = explaining.assemble(cell.load or cell.explainer, network, settings)
    pieces = explaining.explain(explainer, split, works[-1], **project.explain_settings(cell))
    maps = explaining.joined_maps(pieces)
    suite = {METRIC: (params.evaluate.metrics[METRIC].settings, n)}
    views = scoring.views_of(suite, params.mode, network, maps, trained=False)
    size = params.evaluate.batch_size
    (found,) = scoring.score(views, network, split, works[-1], seed=params.seed, batch_size=size)
    return of_first(found, split)


def compare(
    label: str, tables: dict[str, pd.DataFrame], known: Known, params: Params
) -> list[dict[str, str | Entry]]:
    """A row a fill.

    Args:
        label: of the explainer.
        tables: the scores by fill, that of the parameters first, see statistics.matrix.
        known: the measures.
        params: for intervals and tests.
    """
    own, *_ = tables
    claims = against_first(tables)
    good = {name: measure_of(name, known).higher_is_better for name in claims["metric"].unique()}
    claims["claim"] = told(claims, good, params.tables.confidence)
    rows = []
    for fill, table in tables.items():
        long = means(table, params.tables, params.seed)
        where = " (in the tables)" if fill == own else ""
        row: dict[str, str | Entry] = {"Explainer": label, "Fill": fill + where}
        for column in columns(long, CONFIDENCE, known):
            mean = column.of(long).iloc[0]
            interval = f"{column.end(mean['low'])}–{column.end(mean['high'])}"
            claim = "".join(column.of(claims[claims["explainer"] == fill])["claim"])
            row[column.heading] = Entry(column.text(mean["value"]), interval, claim=claim)
        rows.append(row)
    return rows


if __name__ == "__main__":
    run(main)
