"""Score the maps of every explainer on one backbone: one row an image, measure and level."""

from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from benchmark.core import processes, results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run_shared
from benchmark.core.store import Result, Shelf, Unfinished

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from benchmark.data.splits import Split
    from methods import Backbone


def main(params: Params, backbone: str) -> None:
    """Write the scores of the cells of a backbone, and what the other mode changes in them.

    What is due are metrics of cells: a new metric computes that metric alone, and the rows of one
    that is no longer in the parameters are removed.
    """
    project = Project(params)
    shelf = Shelf(results.SCORES / backbone)
    cells = {
        cell.explainer: (cell, [project.scores(cell, m) for m in project.scored_metrics()])
        for cell in project.cells(backbone)
    }
    every = [made for _, own in cells.values() for made in own]
    due = shelf.due(every)
    known = {made.name for made in every}
    gone = {name.partition("/")[0] for name in shelf.records if name not in known}
    todo = [
        (cell, own)
        for name, (cell, own) in cells.items()
        if name in gone or any(made.name in due for made in own)
    ]
    processes.wait()
    if todo:
        score_cells(project, backbone, todo, set(due), shelf)
    if processes.first():
        shelf.prune(every, results.DELTA / backbone)


def score_cells(
    project: Project,
    backbone: str,
    todo: list[tuple[Cell, list[Result]]],
    due: set[str],
    shelf: Shelf,
) -> None:
    """Score cells by the metrics that are due; what the others said is kept."""
    from benchmark.data.splits import read_split
    from benchmark.engine.devices import device
    from methods import build_backbone

    params = project.params
    network = build_backbone(backbone, device=device(), **params.backbones[backbone].spec)
    if params.evaluate.compile:
        network.network.compile()
    split = read_split(results.SPLITS, "evaluation")
    for cell, own in tqdm(todo, desc=backbone, unit="cell", disable=processes.silent()):
        missing = [made for made in own if made.name in due]
        work = Unfinished(f"evaluate {cell.name}", *(made.key for made in missing))
        chosen = metrics_of(missing)
        new = score(project, cell, chosen, network, split, work) if chosen else (None, None)
        if processes.first():
            kept = [made for made in own if made not in missing]
            for path, table in zip(own[0].files, new, strict=True):
                write_merged(path, table, set(metrics_of(kept)), project, cell)
            shelf.touch(kept)
            shelf.record(missing)
        work.forget()


def score(
    project: Project,
    cell: Cell,
    chosen: list[str],
    network: "Backbone",
    split: "Split",
    work: Unfinished,
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The scores of a cell by some metrics, and their differences between the two modes."""
    from benchmark.engine import scoring

    params, other = project.params, project.other_mode
    names = cell.backbone, cell.explainer
    maps = read_maps(project, results.maps_path(*names), len(split))
    count = min(params.evaluate.delta_images, len(split))
    others = maps[:count]
    if cell.reference:
        others = read_maps(project, results.other_maps_path(*names), count)
    settings = {name: params.evaluate.metrics[name] for name in chosen}
    views = []
    for mode, own in ((params.mode, maps), (other, others)):
        suite = scoring.build_suite(settings, mode, network, trained=project.is_trained(cell))
        shown = [metric for metric in suite if mode == params.mode or metric.in_reference]
        views.append(scoring.View(mode, shown, own))
    size = params.evaluate.batch_size
    scores, changed = scoring.score(views, network, split, work, seed=params.seed, batch_size=size)
    return scores, scoring.difference(scores, changed, params.mode, other)


def read_maps(project: Project, path: Path, images: int) -> "NDArray[np.float32]":
    """Stored maps, refused if they are not what they should be."""
    from benchmark.engine.scoring import refuse_bad_maps

    maps = results.read_array(path)
    count_nan = project.params.explain.nan_maps == "count"
    refuse_bad_maps(maps, images, str(path), count_nan=count_nan)
    return maps


def write_merged(
    path: Path, table: "pd.DataFrame | None", kept: set[str], project: Project, cell: Cell
) -> None:
    """Write new scores of a cell, if there are any, with those of the metrics that are kept."""
    parts = [] if table is None else [table]
    if kept:
        import pandas as pd

        stored = results.read_table(path, dtype={"image": str, "weights": str})
        parts.append(stored[stored["metric"].map(project.measure_metrics()).isin(kept)])
        whole = pd.concat([part for part in parts if len(part)] or parts[:1])
        order = [name for name in ("image", "metric", "level") if name in whole]
        table = whole.sort_values(order, kind="stable")[[*parts[0].columns]]
    assert table is not None
    results.write_scores(path, table, cell.backbone, cell.explainer)


def metrics_of(made: list[Result]) -> list[str]:
    """The metrics of results."""
    return [result.name.rpartition("/")[2] for result in made]


if __name__ == "__main__":
    run_shared(main, "backbone")
