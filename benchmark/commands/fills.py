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
from benchmark.core.store import Shelf, Unfinished
from benchmark.report.measures import Known, known_measures, measure_of
from benchmark.report.printed import CONFIDENCE, columns
from benchmark.report.rendering import Entry, write
from benchmark.report.statistics import against_first, matrix, means
from benchmark.report.summaries import refuse_mixture, told

if TYPE_CHECKING:
    from benchmark.engine.scoring import Predicted
    from methods import Backbone

FILLS = results.RESULTS / "fills"

IMAGES = 24
"""Explained with each fill, the first of the evaluation images."""

METRIC = "confidence"


def main(params: Params) -> None:
    """Write a table a backbone, a row an explainer and fill, and print it.

    Raises:
        ValueError: the parameters do not score by METRIC, or the stored scores are of others.
    """
    from benchmark.data.splits import read_split
    from benchmark.engine import scoring
    from benchmark.engine.devices import device
    from methods import build_backbone

    if METRIC not in params.evaluate.metrics:
        raise ValueError(
            f"evaluate.metrics is {', '.join(params.evaluate.metrics)}: expected {METRIC}, by "
            "which fills are compared; add it and run `dvc repro`"
        )
    project = Project(params)
    known = known_measures(project.catalogue)
    split = read_split(results.SPLITS, "evaluation").first(IMAGES)
    works: list[Unfinished] = []
    for backbone in params.backbones:
        cells = [cell for cell in project.cells(backbone) if fills_of(cell, params.mode)]
        if not cells:
            continue
        network = build_backbone(backbone, device=device(), **project.spec(backbone))
        rows: list[dict[str, str | Entry]] = []
        images = scoring.predict(network, split, params.evaluate.batch_size)
        for cell in cells:
            part = images.part(slice(project.images_of(cell, METRIC)))
            scores = score(project, cell, network, part, works)
            rows += compare(project.facts(cell.explainer).label, scores, known, params)
        write(FILLS / backbone, pd.DataFrame(rows))
        print(backbone, (FILLS / f"{backbone}.md").read_text(), sep="\n\n")
    for work in works:
        work.forget()


def fills_of(cell: Cell, mode: str) -> list[str]:
    """The fills that an explainer knows, the one that it is scored with first; empty if none."""
    import methods

    signature = inspect.signature(methods.load(cell.load or cell.explainer))
    fill = signature.parameters.get("fill")
    if fill is None:
        return []
    own = cell.settings_in(mode).get("fill", fill.default)
    return [own, *(other for other in get_args(fill.annotation) if other != own)]


def score(
    project: Project,
    cell: Cell,
    network: "Backbone",
    images: "Predicted",
    works: list[Unfinished],
) -> dict[str, pd.DataFrame]:
    """The scores of images by fill, those that are stored first.

    Args:
        project: of the cell.
        cell: of an explainer that masks.
        network: its backbone.
        images: with what the network says of them.
        works: what is unfinished is added here.

    Raises:
        ValueError: the stored scores are not of these parameters, weights and images.
    """
    mode = project.params.mode
    own, *others = fills_of(cell, mode)
    made = {results.MAPS: project.maps(cell), results.SCORES: project.scores(cell, METRIC)}
    for folder, result in made.items():
        if why := Shelf(folder / cell.backbone).why(result):
            raise ValueError(
                f"{folder.name} of {cell.name} are due ({', '.join(why)}): expected those of "
                "these parameters, run `dvc repro`"
            )
    stored = results.read_scores(results.scores_path(cell.backbone, cell.explainer))
    found = {own: stored[stored["image"].isin(images.split.ids)]}
    for fill in others:
        update = {"settings": cell.settings_in(mode) | {"fill": fill}, "reference": {}}
        changed = cell.model_copy(update=update)
        found[fill] = score_anew(project, changed, network, images, works)
    refuse_mixture(list(found.values()))
    return found


def score_anew(
    project: Project,
    cell: Cell,
    network: "Backbone",
    images: "Predicted",
    works: list[Unfinished],
) -> pd.DataFrame:
    """Explain and score the maps, as the stages do; for the arguments see `score`."""
    from benchmark.engine import explaining, scoring
    from methods import choose_targets

    params, split = project.params, images.split
    n = len(split)
    keys = project.explain_key(cell, params.mode, n), project.scores_key(cell, METRIC, n)
    work = Unfinished(f"fills {cell.name} {cell.settings['fill']}", *keys)
    works.append(work)
    settings = cell.settings_in(params.mode)
    explainer = explaining.assemble(cell.load or cell.explainer, network, settings)
    targets = choose_targets(images.before, params.target, split.labels)
    pieces = explaining.explain(explainer, split, targets, work, **project.explain_settings(cell))
    maps = explaining.joined_maps(pieces)
    suite = {METRIC: (params.evaluate.metrics[METRIC].settings, n)}
    views = scoring.views_of(suite, params.mode, network, maps, trained=False)
    (scores,) = scoring.score(views, network, images, work, **project.score_settings)
    path = work.path("scores.csv")
    results.write_scores(path, scoring.in_order(scores), cell.backbone, cell.explainer)
    return results.read_scores(path)


def compare(
    label: str, scores: dict[str, pd.DataFrame], known: Known, params: Params
) -> list[dict[str, str | Entry]]:
    """A row a fill.

    Args:
        label: of the explainer.
        scores: by fill, those of the parameters first.
        known: the measures.
        params: for intervals and tests.
    """
    shown = [name for part in CONFIDENCE for name in part.split("+")]
    tables = {fill: matrix(own[own["metric"].isin(shown)]) for fill, own in scores.items()}
    claims = against_first(tables)
    good = {name: measure_of(name, known).higher_is_better for name in shown}
    claims["claim"] = told(claims, good, params.tables.confidence)
    rows = []
    for place, (fill, table) in enumerate(tables.items()):
        long = means(table, params.tables, params.seed).assign(best=False, separated=True)
        name = fill if place else f"{fill} (in the tables)"
        row: dict[str, str | Entry] = {"Explainer": label, "Fill": name, "n": str(len(table))}
        for column in columns(long, CONFIDENCE, known):
            entry = column.entry(column.of(long).iloc[0])
            claim = "".join(column.of(claims[claims["explainer"] == fill])["claim"])
            row[column.heading] = entry._replace(claim=claim)
        rows.append(row)
    return rows


if __name__ == "__main__":
    run(main)
