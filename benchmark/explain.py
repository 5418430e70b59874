"""Run every explainer on one backbone over the evaluation images."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmark.core import processes, results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run_shared, say
from benchmark.core.store import Result, Shelf, Unfinished

TENTHS = 1
"""Decimals of a probability in per cent: those that another processor hardly changes."""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.data.splits import Split
    from methods import Backbone


def main(params: Params, backbone: str, cheap: bool = False) -> None:
    """Write the maps of the cells of a backbone that are due, and what they cost.

    Of a cell that is only to have more images, the new ones are explained. Maps of the other mode,
    where they are others, are of the first images. With `cheap` those of cheap explainers alone,
    see core.cells.Project.is_cheap.
    """
    project = Project(params)
    shelf = Shelf(results.MAPS / backbone)
    maps = {cell.explainer: (cell, project.maps(cell)) for cell in project.cells(backbone)}
    other = {n: (c, found) for n, (c, _) in maps.items() if (found := project.other_maps(c))}
    explained = project.targets(backbone)
    every = [explained, *(found for _, found in (*maps.values(), *other.values()))]
    due = shelf.due(every)
    kept = {found.name: shelf.kept(found) for found in every}
    processes.wait()
    if due:
        from benchmark.data.splits import read_split
        from benchmark.engine.devices import clock, device
        from benchmark.engine.explaining import choose
        from benchmark.engine.passes import share_of_network
        from methods import build_backbone

        network = build_backbone(backbone, device=device(), **project.spec(backbone))
        split = read_split(results.SPLITS, "evaluation")
        batch_size, start = params.explain.batch_size, clock(network.device)
        targets, probabilities = choose(network, split, batch_size, params.target)
        if explained.name in due and processes.first():
            write_targets(project, explained, split, targets, probabilities, network.classes)
            shelf.record([explained])
        for mode, cells in ((params.mode, maps), (project.other_mode, other)):
            todo = [(cell, made) for cell, made in cells.values() if made.name in due]
            todo = [own for own in todo if not cheap or project.is_cheap(own[0])]
            for cell, made in tqdm(todo, desc=backbone, unit="cell", disable=processes.silent()):
                work = Unfinished(f"explain {cell.name}", made.key)
                extend_maps(
                    project, cell, mode, network, split, targets, made, kept[made.name], work
                )
                if processes.first():
                    shelf.record([made])
                work.forget()
        if processes.first():
            seconds = clock(network.device) - start
            say(f"explain {backbone}: {share_of_network(network, batch_size, seconds)}")
    if processes.first() and not cheap:
        shelf.prune(every, results.COST / backbone)


def write_targets(
    project: Project,
    made: Result,
    split: "Split",
    targets: "Tensor",
    probabilities: "Tensor",
    classes: int,
) -> None:
    """Write the explained class of each image, its name where it is known, and its probability."""
    import pandas as pd

    names = names_of(project.params, classes)
    indices = targets.tolist()
    percent = [round(100 * p, TENTHS) for p in probabilities.tolist()]
    table = pd.DataFrame({"image": split.ids, "class_index": indices, "probability": percent})
    table.insert(2, "class_name", [names[index] for index in indices])
    results.write_csv(made.files[0], table)


def names_of(params: Params, classes: int) -> list[str]:
    """The names of a network's classes; empty ones where they are of another number of classes."""
    from benchmark.data.imagenet import class_names, read_classes

    given = getattr(params.images, "classes", "imagenet")
    names = class_names() if given == "imagenet" else read_classes(Path(given))
    return names if len(names) == classes else [""] * classes


def extend_maps(
    project: Project,
    cell: Cell,
    mode: str,
    network: "Backbone",
    split: "Split",
    targets: "Tensor",
    made: Result,
    kept: int,
    work: Unfinished,
) -> None:
    """Write the maps of the images of a result, of which those of the first `kept` are there.

    Whole batches of them are kept: what a network gives depends, within rounding, on the size of a
    batch. The cost is that of the first batch; with it are the images of classes that a trained
    explainer never saw.
    """
    size = project.params.explain.batch_size
    kept -= kept % size
    parts: list[Iterable[NDArray[np.float32]]] = []
    cost: dict[str, Any] = {}
    if kept:
        parts, cost = [[results.read_array(made.files[0])[:kept]]], results.read_json(made.files[1])
    if kept < made.images:
        new = slice(kept, made.images)
        part = split.part(new), targets[new]
        pieces, own = explain(project, cell, mode, network, *part, work, f"maps-from-{kept}")
        parts.append(piece["maps"] for piece in pieces)
        cost = own | cost | shifted(own, cost, kept)
    if processes.first():
        results.write_parts(made.files[0], chain(*parts), made.images)
        for path in made.files[1:]:
            results.write_json(path, cost)


def shifted(own: dict[str, Any], before: dict[str, Any], kept: int) -> dict[str, Any]:
    """The unseen images of a cell, from those of the images after the first `kept` ones.

    Args:
        own: `unseen` of the images after the first `kept`, see engine.explaining.unseen_images.
        before: `unseen` of the images that were there before.
        kept: the number of images that are kept of these.
    """
    if own.get("unseen") is None:
        return own.fromkeys({"unseen"} & own.keys())
    first = [number for number in before.get("unseen") or [] if number < kept]
    return {"unseen": [*first, *(number + kept for number in own["unseen"])]}


def explain(
    project: Project,
    cell: Cell,
    mode: str,
    network: "Backbone",
    split: "Split",
    targets: "Tensor",
    work: Unfinished,
    name: str,
) -> "tuple[Sequence[dict[str, Any]], dict[str, Any]]":
    """Batches of maps of a cell in a mode, and their cost; from where a killed stage stopped.

    Pieces are called `name`: after the image that the split starts at.
    """
    from benchmark.engine import explaining

    explainer = explaining.assemble(
        cell.load or cell.explainer, network, cell.settings_in(mode), project.state_of(cell)
    )
    settings = project.explain_settings(cell)
    pieces = explaining.explain(explainer, split, targets, work, name=name, **settings)
    cost = explaining.cost_of(explainer, pieces[:1]) | explaining.unseen_images(explainer, pieces)
    return pieces, cost


if __name__ == "__main__":
    run_shared(main, "backbone", "--cheap")
