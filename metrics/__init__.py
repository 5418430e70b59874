"""Metrics: one file each, found by name; files that start with `_` and folders are plumbing."""

import importlib
import inspect
import pkgutil
from typing import Any

from metrics._base import Measure, Metric, Perturbation, Reading, Values
from metrics._maps import MODES, Maps

__all__ = [
    "MODES",
    "Maps",
    "Measure",
    "Metric",
    "Perturbation",
    "Reading",
    "Values",
    "build",
    "load",
    "measures",
    "names",
]


def names() -> list[str]:
    """The metrics of this folder: the names of its files without a leading underscore."""
    modules = pkgutil.iter_modules(__path__)
    return sorted(m.name for m in modules if not m.ispkg and not m.name.startswith("_"))


def load(name: str) -> type[Metric]:
    """The metric class of the file `name`.

    Raises:
        ValueError: there is no such metric.
    """
    if name not in names():
        raise ValueError(f"unknown metric {name!r}: expected one of {', '.join(names())}")
    module = importlib.import_module(f"metrics.{name}")
    (found,) = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, Metric) and c.__module__ == module.__name__
    ]
    return found


def build(name: str, settings: dict[str, Any]) -> Metric:
    """The metric `name` with `settings`, the arguments of its constructor.

    Raises:
        ValueError: no such metric, or a setting it does not have.
    """
    cls = load(name)
    known = list(inspect.signature(cls).parameters)
    for key in settings:
        if key not in known:
            raise ValueError(
                f"unknown setting {key!r} of metric {name!r}: expected one of {', '.join(known)}"
            )
    return cls(**settings)


def measures() -> dict[str, Measure]:
    """Every measure of every metric, by name."""
    return {m.name: m for name in names() for m in load(name).measures}
