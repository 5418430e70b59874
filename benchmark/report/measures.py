"""What the numbers in the stored scores are, without the code (and torch) that computed them.

The catalogue has it from the metrics, so that tables can be rebuilt from scores alone.
"""

from dataclasses import dataclass
from typing import Any

from benchmark.core.catalogue import Catalogue, measures_of


@dataclass(frozen=True)
class Measure:
    """A measure as results/tables/measures.json has it; see metrics.Measure.

    Attributes:
        metric: the metric that computes it.
        label, unit, bounds, higher_is_better: as in metrics.Measure.
        version: of the metric, see metrics.Metric.
    """

    metric: str
    label: str
    unit: str
    bounds: tuple[float, float]
    higher_is_better: bool
    version: int = 1


TARGETS = {
    "predicted": "the class that the network names",
    "runner_up": "the class that the network names second",
    "label": "the label of the image",
}
"""In words: which class is explained."""

Known = dict[str, Measure]
"""Measures by name."""


def known_measures(catalogue: Catalogue) -> Known:
    """Every measure of every metric, by name, in the order of the metrics."""
    found: dict[str, dict[str, Any]] = measures_of(catalogue.metrics.values())
    return {
        name: Measure(**{**values, "bounds": tuple(values["bounds"])})
        for name, values in found.items()
    }


def measure_of(name: str, known: Known) -> Measure:
    """The measure called `name`, or whose mean NAME_mean or area NAME_area over levels is."""
    return known[name if name in known else name.rpartition("_")[0]]


def of_metric(metric: str, known: Known) -> list[str]:
    """The measures of a metric."""
    return [name for name, measure in known.items() if measure.metric == metric]


def averaged(known: Known) -> list[str]:
    """Measures of which the tables show mean and area over levels."""
    return of_metric("road", known)
