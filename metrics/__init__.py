"""Metrics: one file each, found by name; files that start with `_` and folders are plumbing."""

import importlib
import inspect
import json
import operator
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import pandas as pd
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from metrics._base import Measure, Metric, Perturbation, Reading, Values
from metrics._maps import MODES, Maps
from metrics._score import Predict, answers_of, perturbing, read_values, score_maps

__all__ = [
    "MODES",
    "Maps",
    "Measure",
    "Metric",
    "Perturbation",
    "Predict",
    "Reading",
    "Values",
    "answers_of",
    "build",
    "load",
    "measures",
    "names",
    "perturbing",
    "read_values",
    "score",
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


def build(name: str, settings: Mapping[str, Any]) -> Metric:
    """The metric `name` with `settings`, the arguments of its constructor.

    Raises:
        ValueError: no such metric, or a setting it does not have or of another type.
    """
    cls = load(name)
    hints = get_type_hints(cls.__init__)
    known = {key: hints.get(key, Any) for key in inspect.signature(cls).parameters}
    for key, value in settings.items():
        if key not in known:
            raise ValueError(
                f"unknown setting {key!r} of metric {name!r}: expected one of "
                f"{', '.join(known) or 'none, it has no settings'}"
            )
        text = json.dumps(value, default=operator.index)  # what parameters can say
        try:
            TypeAdapter(known[key]).validate_json(text, strict=True)
        except ValidationError as error:
            expected = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ValueError(
                f"setting {key!r} of metric {name!r} is {value!r}: expected {expected}"
            ) from error
    return cls(**settings)


def measures() -> dict[str, Measure]:
    """Every measure of every metric, by name."""
    return {m.name: m for name in names() for m in load(name).measures}


def score(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    probabilities: Predict,
    names: Sequence[str] = ("confidence", "road"),
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    objects: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    mode: str = "corrected",
    batch_size: int = 32,
) -> pd.DataFrame:
    """Score maps, as the pipeline does.

    Args:
        maps: (B, h, w), floats of any resolution; the larger, the more relevant.
        images: (B, 3, H, W), float32 in [0, 1], on the device of `maps`.
        targets: (B,), int64, the explained classes.
        probabilities: pixels (n, 3, H, W) in [0, 1] to probabilities (n, K), such as
            methods.Backbone.probabilities.
        names: of metrics, see `names`.
        settings: of metrics, by their names: the arguments of their constructors.
        objects: (B, H, W), bool, where the object of each image is; localisation needs them.
        seeds: of ties and noise, one an image; from its pixels if None. The pipeline's are of an
            image's number, so that its scores differ within the noise of ROAD.
        mode: `corrected`, or `reference` for the arithmetic of the T-TAME authors' code.
        batch_size: images through the network at a time.

    Returns:
        a row an image, measure and level: columns image (its number), metric, level (per cent of
        the pixels; NaN without levels) and value. Measures of agreement with the prediction, as
        ROAD's, are NaN where the explained class is not the predicted one.

    Raises:
        ValueError: an unknown metric or setting, tensors of other shapes or ranges, values that are
            no probabilities.

    Example:
        Half of a white image is all that a network of two classes sees of it.

        >>> import torch
        >>> def brightness(pixels):
        ...     bright = pixels.mean(dim=(1, 2, 3))
        ...     return torch.stack([1 - bright, bright], dim=1)
        >>> maps, images = torch.zeros(1, 8, 8), torch.ones(1, 3, 8, 8)
        >>> maps[:, :4] = 1.0
        >>> table = score(maps, images, torch.tensor([1]), brightness, ["confidence"])
        >>> table[table["metric"] == "average_drop"][["level", "value"]].values.tolist()
        [[100.0, 50.0], [50.0, 50.0], [15.0, 84.375]]
    """
    own = settings or {}
    if isinstance(names, str) or not names:
        raise ValueError(f"names is {names!r}: expected a list of at least one metric")
    for name in own:
        if name not in names:
            raise ValueError(
                f"settings of {name!r}, which is not scored: expected of {', '.join(names)}"
            )
    return score_maps(
        [build(name, own.get(name, {})) for name in names],
        maps,
        images,
        targets,
        probabilities,
        objects=objects,
        seeds=seeds,
        mode=mode,
        batch_size=batch_size,
    )
