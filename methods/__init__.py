"""Explainers: one file each, found by name; files that start with `_` are plumbing."""

import importlib
import inspect
import json
import operator
import pkgutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from methods._base import (
    FAMILIES,
    Backbone,
    Explainer,
    Kind,
    Passes,
    TrainableExplainer,
    check_maps,
    check_tensor,
)
from methods._inputs import Choice, Preparation, choose_targets
from methods._layers import suggest_layers
from methods._networks import build_network
from methods._probe import Meaning, Probed, probe_layers
from methods._wrapping import build_backbone, wrap

__all__ = [
    "Backbone",
    "Choice",
    "Explainer",
    "Kind",
    "Meaning",
    "Passes",
    "Preparation",
    "Probed",
    "TrainableExplainer",
    "build",
    "build_backbone",
    "build_network",
    "check_maps",
    "check_tensor",
    "choose_targets",
    "failing_in_one_line",
    "load",
    "names",
    "probe_layers",
    "suggest_layers",
    "wrap",
]


def names() -> list[str]:
    """The explainers of this folder: the names of its files without a leading underscore."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> type[Explainer]:
    """The explainer class called `name`: a file of this folder, or `package.module:Class`.

    Only that one file is imported, so that a broken dependency of one explainer cannot stop
    another.

    Raises:
        ValueError: there is no such explainer, or its class lacks what every explainer has.
    """
    if ":" in name:
        return _load_dotted(name)
    if name not in names():
        raise ValueError(
            f"unknown explainer {name!r}: expected one of {', '.join(names())}, "
            "or package.module:Class"
        )
    module = importlib.import_module(f"methods.{name}")
    classes = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, Explainer) and c.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ValueError(
            f"methods/{name}.py defines {len(classes)} explainers: expected exactly one class "
            "derived from methods.Explainer"
        )
    return classes[0]


def _load_dotted(path: str) -> type[Explainer]:
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"cannot load explainer {path!r}: {said}") from error
    if not (inspect.isclass(found) and issubclass(found, Explainer)):
        raise ValueError(f"{path!r} is no explainer: expected a class derived from Explainer")
    refuse_incomplete(found)
    return found


def refuse_incomplete(cls: type[Explainer]) -> None:
    """Refuse a class that lacks what every explainer has.

    Raises:
        ValueError: no label or cost, unknown families, a method that is missing, settings that are
            no keyword arguments.
    """
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        wanted = ", ".join(missing)
        raise ValueError(f"{place_of(cls)} has no {wanted}: expected one, see methods.Explainer")
    wanted_texts = {"label": "its name, as tables print it", "cost": "such as '1 forward'"}
    for attribute, meaning in wanted_texts.items():
        if not isinstance(getattr(cls, attribute, None), str):
            raise ValueError(f"{place_of(cls)} has no {attribute}: expected {meaning}")
    if not cls.families or not set(cls.families) <= FAMILIES:
        raise ValueError(
            f"{place_of(cls)} has families {', '.join(map(str, cls.families)) or 'none'}: "
            f"expected of {', '.join(sorted(FAMILIES))}"
        )
    for base in cls.__mro__:
        if "__init__" not in vars(base) or not issubclass(base, Explainer):
            continue
        parameters = inspect.signature(base).parameters.values()
        by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
        _, *positional = [p.name for p in parameters if p.kind in by_position] or [""]
        if positional:
            raise ValueError(
                f"{place_of(base)} takes {', '.join(positional)} by position: expected settings "
                f"that are keyword arguments, write `*` before {positional[0]}"
            )


def place_of(cls: type) -> str:
    """A class with its file and line."""
    try:
        file, (_, line) = inspect.getsourcefile(cls), inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return f"class {cls.__name__}"
    return f"class {cls.__name__} ({Path(str(file)).name}:{line})"


@contextmanager
def failing_in_one_line(cls: type[Explainer]) -> Iterator[None]:
    """Within the block an exception in the code of an explainer becomes one line with its place.

    Raises:
        ValueError: instead of the exception; one of an explainer of this folder stays as it is.
    """
    try:
        yield
    except Exception as error:
        own = cls.__module__.startswith(f"{__name__}.")
        if own and isinstance(error, ValueError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        inside = [f for f in frames if f.filename == inspect.getsourcefile(cls)]
        where = f" at {Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        named = cls.__name__ if inside or own else place_of(cls).removeprefix("class ")
        raise ValueError(f"explainer {named} failed{where}: {said}") from error


def settings_of(cls: type[Explainer]) -> dict[str, Any]:
    """The settings of an explainer, the keyword arguments of its constructor, and their types.

    Where that hands on `**settings`, those of its bases belong to them. Without annotation the type
    is Any.
    """
    known: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            hints = {}
            with suppress(NameError):  # of names that somebody imports for type checkers only
                hints = get_type_hints(vars(base)["__init__"])
            parameters = list(inspect.signature(base).parameters.values())
            own = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
            known |= {name: hints.get(name, Any) for name in own if name not in known}
            if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
                break
    return known


def refuse_settings(cls: type[Explainer], settings: Mapping[str, Any]) -> None:
    """Refuse settings that an explainer does not have, or that are of another type.

    Raises:
        ValueError: names the explainer and the setting.
    """
    known = settings_of(cls)
    file = cls.__module__.rpartition(".")[2]
    name = file if cls.__module__ == f"{__name__}.{file}" else cls.__name__
    for key, value in settings.items():
        if key not in known:
            raise ValueError(
                f"unknown setting {key!r} of explainer {name!r}: expected one of "
                f"{', '.join(known) or 'none, it has no settings'}"
            )
        with suppress(PydanticSchemaGenerationError, TypeError):  # of somebody's own types
            text = json.dumps(value, default=operator.index)  # what parameters can say
            try:
                TypeAdapter(known[key]).validate_json(text, strict=True)
            except ValidationError as error:
                expected = error.errors()[0]["msg"].removeprefix("Input should be ")
                raise ValueError(
                    f"setting {key!r} of explainer {name!r} is {value!r}: expected {expected}"
                ) from error


def build(
    cls: type[Explainer] | str, backbone: Backbone, settings: Mapping[str, Any] | None = None
) -> Explainer:
    """An explainer for `backbone` with `settings`, the keyword arguments of its constructor.

    Args:
        cls: the class, or its name, see `load`.
        backbone: that it explains.
        settings: its defaults where there are none.

    Raises:
        ValueError: no backbone, a setting the class does not have or of another type, a backbone
            family it does not support, or that its constructor failed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        >>> network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), *head)
        >>> backbone = wrap(network, size=64, mean=[0.5] * 3, std=[0.5] * 3)
        >>> images = torch.rand(2, 3, 64, 64)
        >>> build("rise", backbone, {"masks": 20})(images, backbone.targets(images)).shape
        torch.Size([2, 64, 64])
    """
    if not isinstance(backbone, Backbone):
        raise ValueError(
            f"backbone is of type {type(backbone).__name__}: expected methods.Backbone, which "
            "methods.wrap makes of a classifier"
        )
    cls = load(cls) if isinstance(cls, str) else cls
    settings = settings or {}
    refuse_settings(cls, settings)
    cls.refuse_family(backbone)
    with failing_in_one_line(cls):
        built = cls(backbone, **settings)
    if getattr(built, "backbone", None) is not backbone:
        raise ValueError(
            f"{place_of(cls)} does not hold its backbone: expected `super().__init__(backbone)` in "
            "its constructor"
        )
    return built
