"""Train every trainable explainer of one backbone."""

from typing import TYPE_CHECKING

from benchmark.core import processes, results
from benchmark.core.cells import NOT_COMPARED, Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import announce_training, run_shared, say
from benchmark.core.store import Shelf, Unfinished

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.splits import Split
    from methods import Backbone, TrainableExplainer


def main(params: Params, backbone: str) -> None:
    """Write the states of the trained cells of a backbone that are due, and their curves.

    One with a checkpoint is not trained; its curve is the AD on the validation images.
    """
    project = Project(params)
    shelf = Shelf(results.STATES / backbone, but=NOT_COMPARED)
    cells = {cell.explainer: (cell, project.state(cell)) for cell in project.trained(backbone)}
    every = [made for _, made in cells.values()]
    due = shelf.due(every)
    processes.wait()
    if due:
        from benchmark.data.splits import read_split
        from benchmark.engine.devices import clock, device
        from benchmark.engine.passes import share_of_network
        from methods import build_backbone

        network = build_backbone(backbone, device=device(), **project.spec(backbone))
        validation = read_split(results.SPLITS, "validation")
        start = clock(network.device)
        for name, why in due.items():
            cell, made = cells[name]
            work = Unfinished(f"train {cell.name}", made.key)
            explainer, curve = obtain_state(cell, params.seed, why, network, validation, work)
            if processes.first():
                state = explainer.attention.state_dict()
                written = project.provenance(cell, explainer.origin())
                results.write_tensors(made.files[0], state, written)
                results.write_csv(made.files[1], curve)
                shelf.record([made])
            work.forget()
        if processes.first():
            seconds = clock(network.device) - start
            size = min(cells[name][0].recipe.batch_size for name in due)
            say(f"train {backbone}: {share_of_network(network, size, seconds)}")
    if processes.first():
        shelf.prune(every, results.CURVES / backbone)


def obtain_state(
    cell: Cell,
    seed: int,
    why: list[str],
    network: "Backbone",
    validation: "Split",
    work: Unfinished,
) -> "tuple[TrainableExplainer, pd.DataFrame]":
    """A cell's explainer with its checkpoint or trained, and its curve."""
    import pandas as pd

    from benchmark.data.splits import read_training
    from benchmark.engine import training

    name = cell.load or cell.explainer
    if cell.checkpoint is not None:
        explainer = training.build_trainable(name, network, cell.settings)
        explainer.load_state(cell.checkpoint)
        return explainer, pd.DataFrame([training.untrained(explainer, validation)])
    train = read_training(results.SPLITS)
    recipe = cell.recipe
    scratch = training.build_trainable(name, network, cell.settings)
    announce_training(cell.name, why, training.seconds_of_training(scratch, recipe, len(train)))
    return training.train(
        name,
        network,
        cell.settings,
        recipe,
        (train, validation),
        seed=seed,
        work=work,
        label=work.label,
    )


if __name__ == "__main__":
    run_shared(main, "backbone")
