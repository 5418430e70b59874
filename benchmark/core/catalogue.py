"""What the pipeline has to know of explainer and metric classes, without importing them.

Reading a class takes torch, which takes seconds. So it is read once, by the stage check, and kept
in results/check.json beside the digest of its sources.
"""

import importlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmark.core import results
from benchmark.core.params import Params
from benchmark.core.sources import digest_of, path_of, source_digest


@dataclass(frozen=True)
class ExplainerFacts:
    """Of an explainer class; see methods.Explainer.

    Attributes:
        sources: the digest of its modules.
        label, kind: as printed.
        families: of backbones it supports.
        trained: whether it has to be trained.
        seeded: whether its maps are of a `seed`, and it has nothing to train.
        passes: forward and backward, of an explanation; None if they depend on the settings.
    """

    sources: str
    label: str
    kind: str
    families: tuple[str, ...]
    trained: bool
    seeded: bool
    passes: int | None


@dataclass(frozen=True)
class MetricFacts:
    """Of a metric class; see metrics.Metric.

    Attributes:
        sources: the digest of its modules.
        in_reference: whether it exists in the mode `reference`.
        measures: name to label, unit, bounds and direction, see report/measures.py.
    """

    sources: str
    in_reference: bool
    measures: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Catalogue:
    """The explainers of the parameters, and every metric, by name."""

    explainers: dict[str, ExplainerFacts]
    metrics: dict[str, MetricFacts]


def explainer_module(name: str, load: str | None) -> str:
    """The module of an explainer: methods.NAME, or that of package.module:Class.

    Raises:
        ValueError: there is no such module.
    """
    module = f"methods.{name}" if load is None else load.partition(":")[0]
    try:
        there = path_of(module).is_file()
    except ValueError:
        there = False
    if not there:
        raise ValueError(
            f"explainer {name!r} has no module {module}: expected methods/{name}.py, or "
            "load: package.module:Class of a package that Python finds"
        )
    return module


def metric_names() -> list[str]:
    """The metrics: the files of metrics/ without a leading underscore."""
    folder = path_of("metrics").parent
    return sorted(p.stem for p in folder.glob("*.py") if not p.name.startswith("_"))


def read_catalogue(params: Params) -> Catalogue:
    """The catalogue of the parameters: what check.json has, where its sources are as they were."""
    known = results.read_json(results.CHECK) if results.CHECK.is_file() else {}
    reader = source_digest(Path(__file__))  # what facts there are is said here
    explainers = {}
    for name, entry in params.explainers.items():
        module = digest_of([explainer_module(name, entry.load)])
        sources = f"{reader} {module} {entry.load or ''}".strip()
        found = recalled(known, "explainers", name, sources)
        found = found or {"sources": sources} | read_explainer(entry.load or name)
        explainers[name] = ExplainerFacts(**found | {"families": tuple(found["families"])})
    metrics = {}
    for name in metric_names():
        sources = f"{reader} {digest_of([f'metrics.{name}'])}"
        found = recalled(known, "metrics", name, sources)
        metrics[name] = MetricFacts(**(found or {"sources": sources} | read_metric(name)))
    return Catalogue(explainers, metrics)


def recalled(known: dict[str, Any], group: str, name: str, sources: str) -> dict[str, Any] | None:
    """What check.json has of a class, None if it is of other sources or of other facts."""
    found: dict[str, Any] | None = known.get(group, {}).get(name)
    facts = ExplainerFacts if group == "explainers" else MetricFacts
    whole = found is not None and found.keys() == {field.name for field in fields(facts)}
    return found if found and whole and found["sources"] == sources else None


def as_json(catalogue: Catalogue) -> dict[str, Any]:
    """A catalogue as check.json has it."""
    return {
        group: {name: asdict(facts) for name, facts in getattr(catalogue, group).items()}
        for group in ("explainers", "metrics")
    }


def read_explainer(name: str) -> dict[str, Any]:
    """The facts of an explainer class, imported."""
    methods = importlib.import_module("methods")
    cls = methods.load(name)
    trained = issubclass(cls, methods.TrainableExplainer)
    said = re.fullmatch(r"none|(\d+) forward(?:, (\d+) backward)?", cls.cost)
    return {
        "label": cls.label,
        "kind": cls.kind,
        "families": sorted(cls.families),
        "trained": trained,
        "seeded": not trained and "seed" in methods.settings_of(cls),
        "passes": sum(int(count or 0) for count in said.groups()) if said else None,
    }


def read_metric(name: str) -> dict[str, Any]:
    """The facts of a metric class, imported."""
    cls = importlib.import_module("metrics").load(name)
    measures = {
        measure.name: {
            "metric": name,
            "label": measure.label,
            "unit": measure.unit,
            "bounds": list(measure.bounds),
            "higher_is_better": measure.higher_is_better,
            "version": cls.version,
        }
        for measure in cls.measures
    }
    return {"in_reference": cls.in_reference, "measures": measures}


def measures_of(metrics: Iterable[MetricFacts]) -> dict[str, dict[str, Any]]:
    """Every measure of metrics, by name."""
    return {name: measure for facts in metrics for name, measure in facts.measures.items()}
