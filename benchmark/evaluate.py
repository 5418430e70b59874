"""Score the maps of every explainer on one backbone: one row an image, measure and level."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    What is due are metrics of cells: a new metric computes that metric alone.
    """
    project = Project(params)
    shelf = Shelf(results.SCORES / backbone)
    cells = {
        cell.explainer: (cell, [project.scores(cell, m) for m in project.scored_metrics()])
        for cell in project.cells(backbone)
    }
    every = [made for _, own in cells.values() for made in own]
    due = shelf.due(every)
    processes.wait()
    if due:
        from benchmark.data.splits import read_split
        from benchmark.engine.devices import device
        from methods import build_backbone

        network = build_backbone(backbone, device=device(), **params.backbones[backbone].spec)
        if params.evaluate.compile:
            network.network.compile()
        split = read_split(results.SPLITS, "evaluation")
        todo = [
            (cell, own) for cell, own in cells.values() if any(made.name in due for made in own)
        ]
        for cell, own in tqdm(todo, desc=backbone, unit="cell", disable=processes.silent()):
            missing = [made for made in own if made.name in due]
            work = Unfinished(f"evaluate {cell.name}", *(made.key for made in missing))
            chosen = metrics_of(missing)
            tables = score(project, cell, chosen, network, split, work)
            if processes.first():
                kept = set(metrics_of(own)) - set(chosen)
                for path, table in zip(own[0].files, tables, strict=True):
                    write_merged(path, table, kept, project, cell)
                shelf.record(own)
            work.forget()
    if processes.first():
        shelf.prune(every, results.DELTA / backbone)


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
    seeds = scoring.image_seeds(params.seed, split)
    size = params.evaluate.batch_size
    pieces = work.streamed(
        scoring.blocks(split, views),
        lambda todo: scoring.score(views, network, split, seeds, size, todo.values()),
        "block",
    )
    scores, changed = (scoring.joined_scores(pieces, network, number) for number in range(2))
    return scores, scoring.difference(scores, changed, params.mode, other)


def read_maps(project: Project, path: Path, images: int) -> "NDArray[np.float32]":
    """Stored maps, refused if they are not what they should be."""
    from benchmark.engine.scoring import refuse_bad_maps

    maps = results.read_array(path)
    count_nan = project.params.explain.nan_maps == "count"
    refuse_bad_maps(maps, images, str(path), count_nan=count_nan)
    return maps


def write_merged(
    path: Path, table: "pd.DataFrame", kept: set[str], project: Project, cell: Cell
) -> None:
    """Write new scores of a cell, with those of the metrics that are kept."""
    if kept:
        import pandas as pd

        metrics: dict[str, Any] = project.measure_metrics()
        stored = results.read_table(path, dtype={"image": str, "weights": str})
        old = stored[stored["metric"].map(metrics).isin(kept)]
        order = [name for name in ("image", "metric", "level") if name in table]
        parts = [part for part in (old, table) if len(part)] or [table]
        table = pd.concat(parts).sort_values(order, kind="stable")[[*table.columns]]
    results.write_scores(path, table, cell.backbone, cell.explainer)


def metrics_of(made: list[Result]) -> list[str]:
    """The metrics of results."""
    return [result.name.rpartition("/")[2] for result in made]


if __name__ == "__main__":
    run_shared(main, "backbone")
