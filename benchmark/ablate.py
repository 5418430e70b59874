"""The ablation study on one backbone: train, explain with and score variants, seed by seed."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmark.core import processes, results
from benchmark.core.cells import NOT_COMPARED, Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import announce_training, run_shared
from benchmark.core.store import Key, Result, Shelf, Unfinished

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.engine.scoring import Predicted
    from methods import Backbone


class Variant:
    """A variant of the study: what is to be made of it, and what of that is there.

    Args:
        project: parameters and keys.
        name: of the variant.
        cell: its settings and recipe.
        scored: the shelf of scores.
        trained: the shelf of states.
    """

    def __init__(
        self, project: Project, name: str, cell: Cell, scored: Shelf, trained: Shelf
    ) -> None:
        self.name, self.cell = name, cell
        self.scores = project.variant_scores(name, cell)
        self.states = {seed: project.variant_state(name, cell, seed) for seed in project.seeds()}
        self.why = scored.why(self.scores)
        self.untrained = {seed: w for seed, made in self.states.items() if (w := trained.why(made))}
        recorded = scored.records.get(name, {}).get("training", {})
        keys = {str(seed): made.key for seed, made in self.states.items()}
        self.same_training = keys.keys() == recorded.keys() and not any(
            key.differences(Key(**recorded[seed]), NOT_COMPARED) for seed, key in keys.items()
        )
        self.has_rows = name in scored.records and scored.is_whole(self.scores)

    @property
    def due(self) -> bool:
        """Whether its rows are not what they should be: of other training, or to be scored anew."""
        return bool(self.why) or not self.same_training

    @property
    def outdated(self) -> bool:
        """Whether its rows are of older code or settings, and the states to renew them are away."""
        return bool(self.why and self.untrained and self.same_training and self.has_rows)

    @property
    def training(self) -> dict[str, Any]:
        """The keys of its states, as they are recorded beside its scores."""
        return {str(seed): asdict(made.key) for seed, made in self.states.items()}


def main(params: Params, backbone: str, anew: bool = False) -> None:
    """Write the scores of the variants of a backbone that are due, with a column `seed`.

    Trained states are in the DVC cache. In a clone without them a variant whose training would be
    the same keeps the rows of the commit, marked as older, unless `anew` asks for them.
    """
    project = Project(params)
    scored = Shelf(results.ABLATION / backbone)
    trained = Shelf(results.VARIANTS / backbone, but=NOT_COMPARED)
    variants = [
        Variant(project, name, cell, scored, trained)
        for name, cell in project.variants(backbone).items()
    ]
    processes.wait()
    older = [variant for variant in variants if variant.outdated and not anew]
    todo = [variant for variant in variants if variant.due and variant not in older]
    if todo:
        study(project, backbone, todo, scored, trained)
    if processes.first():
        for variant in older:
            scored.records[variant.name]["older"] = variant.why
        if older:
            names = ", ".join(variant.name for variant in older)
            print(
                f"ablate: {backbone} keeps the rows of {names}: their states are not here; "
                f"`python -m benchmark.ablate {backbone} --anew` trains them"
            )
            scored.write()
        scored.prune([variant.scores for variant in variants])
        trained.prune([made for variant in variants for made in variant.states.values()])


def study(
    project: Project, backbone: str, todo: list[Variant], scored: Shelf, trained: Shelf
) -> None:
    """Train what is not trained, and score."""
    import pandas as pd

    from benchmark.data.splits import read_split
    from benchmark.engine import scoring
    from benchmark.engine.devices import device
    from methods import build_backbone

    network = build_backbone(backbone, device=device(), **project.spec(backbone))
    most = max(max(project.variant_images(variant.cell).values()) for variant in todo)
    evaluation = read_split(results.SPLITS, "evaluation").first(most)
    images = scoring.predict(network, evaluation, project.params.evaluate.batch_size)
    for variant in todo:
        train_variant(project, variant, network, trained)
        made = project.variant_scores(variant.name, variant.cell)  # with the states' digests
        label = f"ablate {backbone}/{variant.name}"
        works = {
            seed: Unfinished(f"{label}/{seed}", made.key, s.key)
            for seed, s in variant.states.items()
        }
        tables = []
        for seed, state in variant.states.items():
            scores = score(project, variant.cell, seed, state, network, images, works[seed])
            tables.append(scores.assign(seed=seed))
        if processes.first():
            table = pd.concat(tables)
            results.write_scores(made.files[0], table, backbone, variant.name)
            scored.record([made], training=variant.training)
        for work in works.values():
            work.forget()


def train_variant(project: Project, variant: Variant, network: "Backbone", shelf: Shelf) -> None:
    """Train the states of a variant that are due; weights and batches are of its seed."""
    if not variant.untrained:
        return
    from benchmark.data.splits import read_split, read_training
    from benchmark.engine import training

    cell = variant.cell
    name = cell.load or cell.explainer
    splits = read_training(results.SPLITS), read_split(results.SPLITS, "validation")
    scratch = training.build_trainable(name, network, cell.settings)
    seconds = training.seconds_of_training(scratch, cell.recipe, len(splits[0]))
    whole = f"{cell.backbone}/{variant.name}"
    why = sorted({reason for reasons in variant.untrained.values() for reason in reasons})
    announce_training(whole, why, seconds * len(variant.untrained))
    for seed in variant.untrained:
        made = variant.states[seed]
        work = Unfinished(f"train {whole}/{seed}", made.key)
        explainer, _ = training.train(
            name,
            network,
            cell.settings | {"seed": seed},
            cell.recipe,
            splits,
            seed=seed,
            work=work,
            label=work.label,
        )
        if processes.first():
            state = explainer.attention.state_dict()
            written = project.provenance(cell, explainer.origin())
            results.write_tensors(made.files[0], state, written)
            shelf.record([made])
        work.forget()
    processes.wait()


def score(
    project: Project,
    cell: Cell,
    seed: int,
    state: Result,
    network: "Backbone",
    images: "Predicted",
    work: Unfinished,
) -> "pd.DataFrame":
    """The scores of a variant that was trained with `seed`, by the metrics of the paper."""
    import pandas as pd

    from benchmark.engine import explaining, scoring
    from methods import choose_targets

    params = project.params
    settings = cell.settings | {"seed": seed}
    name = cell.load or cell.explainer
    counts = project.variant_images(cell)
    images = images.part(slice(max(counts.values())))
    split = images.split
    explainer = explaining.assemble(name, network, settings, state.files[0])
    targets = choose_targets(images.before, params.target, split.labels)
    pieces = explaining.explain(explainer, split, targets, work, **project.explain_settings(cell))
    maps = explaining.joined_maps(pieces)
    suites = {n: (params.evaluate.settings[n], count) for n, count in counts.items()}
    views = scoring.views_of(suites, params.mode, network, maps, trained=True)
    found = scoring.score(views, network, images, work, **project.score_settings)
    return scoring.in_order(pd.concat(found))


if __name__ == "__main__":
    run_shared(main, "backbone", "--anew")
