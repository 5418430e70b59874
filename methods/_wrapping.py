"""From a classifier to a backbone: by a name, or an nn.Module of one's own."""

import copy
import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import torch
import torchvision.models
from PIL import Image
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods._base import Backbone, refuse_size
from methods._inputs import Preparation
from methods._layers import following, suggest_layers
from methods._networks import build_network
from methods._probe import Meaning, Probed, blank, hooked, probe_layers

NETWORK = ("source", "model", "load", "arguments", "weights", "weights_key")
"""The arguments of `build_backbone` that are of `build_network`."""

SUMS_TO_ONE = 1e-4
"""How far from 1 the sum of probabilities may be."""

PACKAGED = {"efficientnet_lite0": "tf_efficientnet_lite0"}
"""Names of networks whose weights are in a package, and what timm calls them."""

PACKAGED_LAYERS = {
    "efficientnet_lite0": {"taps": ["blocks.2", "blocks.4", "blocks.6"], "cam_layer": "bn2"}
}
"""Their layers, those that the trained explainers of the embedded sample read."""


def wrap(
    network: nn.Module | str,
    *,
    name: str | None = None,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    taps: Sequence[str] | None = None,
    cam_layer: str | None = None,
    prefix_tokens: int | None = None,
    channels_last: bool = False,
    trusted: Sequence[str] = (),
    preparation: Preparation | None = None,
    processor: Any = None,
    device: str | torch.device = "cpu",
) -> Backbone:
    """A classifier as a frozen backbone, in eval mode.

    A network that is given stays the same object: it is frozen and put into eval mode.

    Args:
        network: any nn.Module that maps normalised images (B, 3, H, W) to logits (B, K), also an
            image classifier of Hugging Face's transformers, whose layers are then called
            `model.NAME`. Or a name: `efficientnet_lite0` (weights in a package), a name of timm,
            `torchvision:NAME`, or package.module:function that makes one.
        name: in messages and tables; that of the network or its class if None.
        weights: of a name: see `build_network`; the published ones if None.
        mean: of the normalisation, one value a channel, in units of pixels in [0, 1]. It, `std`,
            `size` and `preparation` may be None where timm, torchvision's published weights or
            `processor` say them.
        std: likewise.
        size: side of its square images, in pixels.
        taps: see Backbone. Without, the network is probed for layers, see `suggest_layers`.
        cam_layer: see Backbone; without, the deepest of those.
        prefix_tokens: see Backbone, as are the next two.
        channels_last: of no meaning where the network is probed.
        trusted: of random weights all layers that are suggested.
        preparation: see Backbone.
        processor: an image processor of transformers: mean, std, size, crop and interpolation.
        device: where it computes.

    Raises:
        ValueError: an unknown name, weights that cannot be had or do not fit, a network that does
            not take such images or gives no class scores, mean, std or size that nobody says, no
            layer that explainers can read.

    Example:
        >>> head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        >>> network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), *head)
        >>> backbone = wrap(network, size=64, mean=[0.5] * 3, std=[0.5] * 3)
        >>> backbone.classes, backbone.family
        (4, 'cnn')
    """
    if isinstance(network, str):
        made = _named(network, weights)
        name = name or network.rpartition(":")[2]
        told = _told_by_name(network, weights) | _told_by(made)
    else:
        if weights is not None:
            raise ValueError(
                f"weights is {weights!r} beside a network that is given: expected none, it has its "
                "own"
            )
        made, told = network, _told_by(network)
        if "pixel_values" in inspect.signature(network.forward).parameters:
            made = Logits(network)
    name = name or type(network).__name__
    if processor is not None:
        told |= _told_by_processor(processor)
    given = {"mean": mean, "std": std, "size": size, "preparation": preparation}
    told |= {key: value for key, value in given.items() if value is not None}
    if missing := [key for key in ("mean", "std", "size") if told.get(key) is None]:
        raise ValueError(
            f"nobody says {', '.join(missing)} of {name!r}: expected what it was trained with, as "
            "arguments, or its `processor`"
        )
    refuse_size(name, told["size"])
    if size is not None and preparation is None:
        told["preparation"] = None  # what is told is for another size
    seen: dict[str, Any] = {
        "prefix_tokens": prefix_tokens,
        "channels_last": channels_last,
        "trusted": trusted,
    }
    if taps is None:
        packaged = PACKAGED_LAYERS.get(str(network))
        seen |= packaged or _suggested(made.eval(), name, told, random=weights == "none")
    elif cam_layer is None:
        raise ValueError(f"taps of {name!r} are {taps!r}, without cam_layer: expected both")
    seen |= {key: own for key, own in (("taps", taps), ("cam_layer", cam_layer)) if own is not None}
    classes = _class_count(made.eval(), name, told["size"], {*seen["taps"], seen["cam_layer"]})
    backbone = Backbone(made, name=name, classes=classes, **told, **seen)
    return _accelerate(backbone, device) if isinstance(network, str) else backbone.to(device)


class Logits(nn.Module):
    """The logits alone of an image classifier of transformers, which gives them among others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def _named(given: str, weights: str | None) -> nn.Module:
    """The network of a name, see `wrap`; random weights are the same in every process."""
    library, _, model = given.rpartition(":")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if library not in ("", "timm", "torchvision"):
            return build_network(given, load=given, weights=weights or "none")
        if given in PACKAGED:
            own = weights or "packaged"
            return build_network(given, source="timm", model=PACKAGED[given], weights=own)
        source = library or "timm"
        own = weights or ("pretrained" if source == "timm" else published(model))
        return build_network(model, source=source, model=model, weights=own)


def _told_by_name(given: str, weights: str | None) -> dict[str, Any]:
    """What torchvision says of the images of a network that it publishes."""
    library, _, model = given.rpartition(":")
    if library != "torchvision":
        return {}
    known = {own.name: own for own in torchvision.models.get_model_weights(model)}
    chosen = known.get(weights or published(model)) or next(iter(known.values()))
    made = chosen.transforms()
    (size,), (resize,) = made.crop_size, made.resize_size
    prepared = Preparation(resize, size, made.interpolation.value)
    return {"mean": made.mean, "std": made.std, "size": size, "preparation": prepared}


def _told_by(network: nn.Module) -> dict[str, Any]:
    """What a network of timm says of its images."""
    if not getattr(network, "pretrained_cfg", None):
        return {}
    told: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    size = int(told["input_size"][1])
    scaled = math.floor(size / told["crop_pct"])
    resize = (scaled, scaled) if told["crop_mode"] == "squash" else scaled
    prepared = Preparation(resize, size, told["interpolation"])
    return {"mean": told["mean"], "std": told["std"], "size": size, "preparation": prepared}


def _told_by_processor(processor: Any) -> dict[str, Any]:
    """What an image processor of transformers says of images.

    Raises:
        ValueError: images that are not square, or not scaled to [0, 1] before they are normalised.
    """
    factor = getattr(processor, "rescale_factor", None)
    scaled = factor if getattr(processor, "do_rescale", True) else None
    if scaled is None or abs(255 * scaled - 1) > 1e-6:
        raise ValueError(
            f"the processor {type(processor).__name__} rescales by {factor}: expected 1/255, the "
            "pixels of a backbone are in [0, 1]"
        )
    size = dict(processor.size)
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else {}
    sides = crop or size
    edge = sides.get("shortest_edge")
    side = sides["height"] if edge is None else edge
    if edge is None and sides["height"] != sides["width"]:
        raise ValueError(f"the processor makes images of {sides}: expected square ones")
    resize: int | tuple[int, int] = size.get("shortest_edge") or (size["height"], size["width"])
    share = getattr(processor, "crop_pct", None)
    if share is not None and edge is not None:  # as ConvNeXt's, which squashes large images
        resize = int(edge / share) if edge < 384 else (edge, edge)
    interpolation = Image.Resampling(int(processor.resample)).name.lower()
    normalises = getattr(processor, "do_normalize", True)
    return {
        "mean": list(processor.image_mean) if normalises else [0.0] * 3,
        "std": list(processor.image_std) if normalises else [1.0] * 3,
        "size": side,
        "preparation": Preparation(resize, side, interpolation),
    }


def published(model: str) -> str:
    """The name of the first weights that torchvision publishes of a network.

    Raises:
        ValueError: there is no such network, or none are published.
    """
    known = model in torchvision.models.list_models()
    names = [w.name for w in torchvision.models.get_model_weights(model)] if known else []
    if not names:
        what = "publishes no weights of" if known else "has no model"
        raise ValueError(
            f"torchvision {what} {model!r}: expected one of torchvision.models.list_models(), or "
            "weights='none'"
        )
    return str(names[0])


def _suggested(
    network: nn.Module, name: str, told: Mapping[str, Any], *, random: bool
) -> dict[str, Any]:
    """Layers of a network, as arguments of Backbone; those of random weights are trusted."""
    size = told["size"]
    try:
        probed = probe_layers(network, told["mean"], told["std"], size)
    except (AssertionError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{name!r} does not take images of {size} x {size} pixels ({said}): expected the size "
            "that it is made for"
        ) from error
    if random:
        found = suggest_layers(network, probed, name)
        return found | {"trusted": found["taps"]}
    return suggest_layers(network, following(probed) or probed, name)


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
    backbone = wrap(network, name=name, size=size, **seen)
    if probed is not None:
        layers = {layer: Meaning(**known) for layer, known in probed["layers"].items()}
        backbone.probed = Probed(layers, probed["class_token"])
    return _accelerate(backbone, device)


def _accelerate(backbone: Backbone, device: str | torch.device) -> Backbone:
    """The backbone on its device, as fast as it goes exactly."""
    backbone.network = fold_batch_norms(backbone.network, backbone.size)
    return backbone.to(device).to(memory_format=torch.channels_last)


def compute_exactly() -> None:
    """Let GPUs compute convolutions and products in float32 (not TF32), the same in every run."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


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
            first, mean, most = grid[:, :, 0], grid.mean(dim=2), grid.amax(dim=2)
            for pooled in (first, mean, most, most.relu(), grid.relu().mean(dim=2)):
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
