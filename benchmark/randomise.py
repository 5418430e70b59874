"""How alike the maps of one backbone are when its weights are shuffled, or with another seed."""

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
    from torch import Tensor

    from benchmark.data.splits import Split
    from methods import Backbone


def main(params: Params, backbone: str) -> None:
    """Write how alike the maps of the cells that are due are, at each share of random layers.

    And with another seed, of explainers that have one.
    """
    project = Project(params)
    shelf = Shelf(results.RANDOMISATION / backbone)
    cells = {cell.explainer: (cell, project.randomised(cell)) for cell in project.cells(backbone)}
    every = [made for _, made in cells.values()]
    due = shelf.due(every)
    processes.wait()
    if due:
        compare_cells(project, backbone, [cells[name] for name in due], shelf)
    if processes.first():
        shelf.prune(every)


def compare_cells(
    project: Project, backbone: str, todo: list[tuple[Cell, Result]], shelf: Shelf
) -> None:
    """Compare the maps of cells; each level's network is made once for all of them."""
    from benchmark.data.splits import read_split
    from benchmark.engine.devices import device
    from benchmark.engine.explaining import choose
    from benchmark.engine.randomising import randomised
    from methods import build_backbone

    params = project.params
    network = build_backbone(backbone, device=device(), **project.spec(backbone))
    settings = params.randomise
    split = read_split(results.SPLITS, "evaluation")
    split = split.first(max(settings.images, settings.seed_images))
    targets, _ = choose(network, split, params.explain.batch_size, params.target)
    shuffled = {level: randomised(network, level, params.seed) for level in settings.layers}
    for cell, made in tqdm(todo, desc=backbone, unit="cell", disable=processes.silent()):
        work = Unfinished(f"randomise {cell.name}", made.key)
        table = compare(project, cell, shuffled, network, split, targets, work)
        if processes.first():
            table["weights"] = network.digest[:12]
            results.write_scores(made.files[0], table, backbone, cell.explainer)
            shelf.record([made])
        work.forget()


def compare(
    project: Project,
    cell: Cell,
    shuffled: "dict[float, Backbone]",
    network: "Backbone",
    split: "Split",
    targets: "Tensor",
    work: Unfinished,
) -> "pd.DataFrame":
    """The similarity of a cell's maps to those on each of the shuffled networks.

    And to those with another seed on the network itself, if the explainer has one.
    """
    import pandas as pd

    from benchmark.engine import randomising

    params = project.params
    settings = cell.settings_in(params.mode)
    before = results.read_array(results.maps_path(cell.backbone, cell.explainer))
    some = split.first(params.randomise.images)
    tables = []
    for level, other in shuffled.items():
        after = explain(project, cell, settings, other, some, targets, work, f"maps-{level:g}")
        tables.append(randomising.similarities(before[: len(some)], after, some, level))
    if project.facts(cell.explainer).seeded:
        settings = settings | {"seed": settings.get("seed", 0) + 1}
        some = split.first(params.randomise.seed_images)
        after = explain(project, cell, settings, network, some, targets, work, "maps-seed")
        tables.append(randomising.seed_agreement(before[: len(some)], after, some))
    return pd.concat(tables, ignore_index=True)


def explain(
    project: Project,
    cell: Cell,
    settings: dict[str, Any],
    network: "Backbone",
    split: "Split",
    targets: "Tensor",
    work: Unfinished,
    name: str,
) -> "NDArray[np.float32]":
    """The maps (N, h, w) of a cell's explainer with some settings on a network."""
    from benchmark.engine import explaining

    explainer = explaining.assemble(
        cell.load or cell.explainer, network, settings, project.state_of(cell)
    )
    own = targets[: len(split)]
    how = project.explain_settings(cell)
    pieces = explaining.explain(explainer, split, own, work, name=name, **how)
    return explaining.joined_maps(pieces)


if __name__ == "__main__":
    run_shared(main, "backbone")
