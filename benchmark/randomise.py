"""The sanity check on one backbone: how alike maps are when the network's weights are shuffled."""

from typing import TYPE_CHECKING

from tqdm import tqdm

from benchmark.core import processes, results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run_shared
from benchmark.core.store import Result, Shelf, Unfinished

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from benchmark.data.splits import Split
    from methods import Backbone


def main(params: Params, backbone: str) -> None:
    """Write how alike the maps of the cells that are due are, at each share of random layers."""
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
    from benchmark.engine.randomising import randomised
    from methods import build_backbone

    params = project.params
    network = build_backbone(backbone, device=device(), **params.backbones[backbone].spec)
    split = read_split(results.SPLITS, "evaluation").first(params.randomise.images)
    targets = network.predict(split.images(slice(None)).to(network.device)).cpu()
    shuffled = {level: randomised(network, level, params.seed) for level in params.randomise.layers}
    for cell, made in tqdm(todo, desc=backbone, unit="cell", disable=processes.silent()):
        work = Unfinished(f"randomise {cell.name}", made.key)
        table = compare(project, cell, shuffled, split, targets, work)
        if processes.first():
            table["weights"] = network.digest[:12]
            results.write_scores(made.files[0], table, backbone, cell.explainer)
            shelf.record([made])
        work.forget()


def compare(
    project: Project,
    cell: Cell,
    shuffled: "dict[float, Backbone]",
    split: "Split",
    targets: "Tensor",
    work: Unfinished,
) -> "pd.DataFrame":
    """The similarity of a cell's maps to those on each of the shuffled networks."""
    import pandas as pd

    from benchmark.engine import explaining, randomising

    settings = project.params.explain
    before = results.read_array(results.maps_path(cell.backbone, cell.explainer))[: len(split)]
    tables = []
    for level, network in shuffled.items():
        explainer = explaining.assemble(
            cell.load or cell.explainer,
            network,
            cell.settings_in(project.params.mode),
            project.state_of(cell),
        )
        pieces = explaining.explain(
            explainer,
            split,
            work,
            batch_size=settings.batch_size,
            count_nan=settings.nan_maps == "count",
            precision=cell.precision,
            targets=targets,
            name=f"maps-{level:g}",
        )
        after = explaining.joined_maps(pieces)
        tables.append(randomising.similarities(before, after, split, level))
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    run_shared(main, "backbone")
