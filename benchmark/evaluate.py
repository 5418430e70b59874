"""Score the maps of every explainer on one backbone: one row an image, measure and level."""

from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from benchmark.core import processes, results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run_shared, say
from benchmark.core.store import Result, Shelf, Unfinished

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from benchmark.data.splits import Split
    from benchmark.engine.scoring import Predicted, View
    from methods import Backbone


def main(params: Params, backbone: str, cheap: bool = False) -> None:
    """Write the scores of the cells of a backbone, and what the other mode changes in them.

    What is due are metrics of cells: a new metric computes that metric alone, more images of a
    metric only those, and the rows of what is no longer in the parameters are removed. With `cheap`
    the cells of cheap explainers alone, as far as they have maps.
    """
    project = Project(params)
    shelf = Shelf(results.SCORES / backbone)
    cells = {
        cell.explainer: (cell, [project.scores(cell, m) for m in project.scored_metrics()])
        for cell in project.cells(backbone)
    }
    every = [made for _, own in cells.values() for made in own]
    due = shelf.due(every)
    kept = {
        name: {metric_of(made): kept_images(project, shelf, made) for made in own}
        for name, (_, own) in cells.items()
    }
    known = {made.name for made in every}
    gone = {name.partition("/")[0] for name in shelf.records if name not in known}
    todo = [
        (cell, own)
        for name, (cell, own) in cells.items()
        if name in gone or any(made.name in due for made in own)
    ]
    if cheap:
        maps = Shelf(results.MAPS / backbone)
        todo = [own for own in todo if project.is_cheap(own[0])]
        todo = [own for own in todo if not maps.due([project.maps(own[0])])]
    processes.wait()
    if todo:
        score_cells(project, backbone, todo, set(due), kept, shelf)
    if processes.first() and not cheap:  # what is left has to be seen by the whole run
        shelf.prune(every, results.DELTA / backbone)


def score_cells(
    project: Project,
    backbone: str,
    todo: list[tuple[Cell, list[Result]]],
    due: set[str],
    kept: dict[str, dict[str, int]],
    shelf: Shelf,
) -> None:
    """Score cells by the metrics that are due; what the others said is kept."""
    from benchmark.data.splits import read_split
    from benchmark.engine import scoring
    from benchmark.engine.devices import clock, device
    from benchmark.engine.passes import share_of_network
    from methods import build_backbone

    params = project.params
    network = build_backbone(backbone, device=device(), **params.backbones[backbone].spec)
    if params.evaluate.compile:
        network.network.compile()
    split = read_split(results.SPLITS, "evaluation")
    start = clock(network.device)
    split = split.first(max(project.images_of(cell) for cell, _ in todo))
    images = scoring.predict(network, split, params.evaluate.batch_size)
    for cell, own in tqdm(todo, desc=backbone, unit="cell", disable=processes.silent()):
        missing = [made for made in own if made.name in due]
        first = kept[cell.explainer]
        work = Unfinished(f"evaluate {cell.name}", *(made.key for made in missing))
        new = score(project, cell, first, network, images, work)
        if processes.first():
            for path, tables in zip(own[0].files, new, strict=True):
                write_joined(path, [*read_kept(project, path, first, split), *tables], cell)
            shelf.touch([made for made in own if made not in missing])
            shelf.record(missing)
        work.forget()
    if processes.first():
        seconds = clock(network.device) - start
        share = share_of_network(network, params.evaluate.batch_size, seconds)
        say(f"evaluate {backbone}: {share}")


def kept_images(project: Project, shelf: Shelf, made: Result) -> int:
    """How many of the first images of a metric need not be scored, those of both modes or none."""
    kept = shelf.kept(made)
    return kept if kept >= min(project.delta_images, made.images) else 0


def score(
    project: Project,
    cell: Cell,
    kept: dict[str, int],
    network: "Backbone",
    images: "Predicted",
    work: Unfinished,
) -> "tuple[list[pd.DataFrame], list[pd.DataFrame]]":
    """The scores of a cell by its metrics, and what the other mode changes in them.

    The first `kept` images of each metric are left out; metrics that leave out as many share
    passes.
    """
    import pandas as pd

    from benchmark.engine import scoring

    params, trained = project.params, project.is_trained(cell)
    path = results.maps_path(cell.backbone, cell.explainer)
    maps = read_maps(project, path, project.images_of(cell))
    wanted = {name: project.images_of(cell, name) for name in kept}
    scores, deltas = [], []
    for start in sorted({at for name, at in kept.items() if at < wanted[name]}):
        counts = {name: wanted[name] - at for name, at in kept.items() if at == start}
        suites = {name: (params.evaluate.settings[name], n) for name, n in counts.items() if n}
        views = scoring.views_of(suites, params.mode, network, maps[start:], trained=trained)
        own = len(views)
        if start == 0:
            views.append(other_view(project, cell, list(suites), network, maps))
        found = scoring.score(
            views,
            network,
            images.part(slice(start, start + max(counts.values()))),
            work,
            **project.score_settings,
            name="-".join(["scores-from", str(start), *suites]),
        )
        scores += found[:own]
        if start == 0:
            ours = pd.concat(found[:own])
            deltas.append(scoring.difference(ours, found[own], params.mode, project.other_mode))
    return scores, deltas


def other_view(
    project: Project,
    cell: Cell,
    chosen: list[str],
    network: "Backbone",
    maps: "NDArray[np.float32]",
) -> "View":
    """The first maps of a cell in the other mode, with the metrics that both modes have."""
    from benchmark.engine import scoring

    params, other = project.params, project.other_mode
    if cell.reference:
        path = results.other_maps_path(cell.backbone, cell.explainer)
        maps = read_maps(project, path, project.delta_images)
    both = {n: params.evaluate.settings[n] for n in chosen if n in project.reference_metrics()}
    suite = scoring.build_suite(both, other, network, trained=project.is_trained(cell))
    return scoring.View(other, suite, maps[: project.delta_images])


def read_maps(project: Project, path: Path, images: int) -> "NDArray[np.float32]":
    """Stored maps of so many images, refused if they are not what they should be."""
    from benchmark.engine.scoring import refuse_bad_maps

    count_nan = project.params.explain.nan_maps == "count"
    maps = results.read_array(path)
    refuse_bad_maps(maps, images, str(path), count_nan=count_nan)
    return maps


def read_kept(
    project: Project, path: Path, kept: dict[str, int], split: "Split"
) -> "list[pd.DataFrame]":
    """The stored rows of a cell of the first `kept` images of each metric."""
    if not any(kept.values()):
        return []
    stored = results.read_table(path, dtype={"image": str, "weights": str})
    counts = stored["metric"].map(project.measure_metrics()).map(kept).fillna(0)
    if "image" not in stored:
        return [stored[counts > 0]]
    place = {image: at for at, image in enumerate(split.ids)}
    return [stored[stored["image"].map(place) < counts]]


def write_joined(path: Path, parts: "list[pd.DataFrame]", cell: Cell) -> None:
    """Write the rows of a cell in their order."""
    import pandas as pd

    whole = pd.concat([part for part in parts if len(part)] or parts[:1])
    order = [name for name in ("image", "metric", "level") if name in whole]
    table = whole.sort_values(order, kind="stable")
    results.write_scores(path, table, cell.backbone, cell.explainer)


def metric_of(made: Result) -> str:
    """The metric of a result."""
    return made.name.rpartition("/")[2]


if __name__ == "__main__":
    run_shared(main, "backbone", "--cheap")
