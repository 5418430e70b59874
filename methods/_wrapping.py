"""From a classifier to a backbone: by a name, or an nn.Module of one's own."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from methods._acceleration import accelerate
from methods._base import Backbone, refuse_normalisation, refuse_size
from methods._inputs import Preparation
from methods._known import known_by_name, known_of, known_of_processor, published
from methods._layers import following, suggest_layers
from methods._networks import Logits, NoLogitsError, build_network
from methods._probe import Meaning, Probed, blank, hooked, probe_layers

NETWORK = ("source", "model", "load", "arguments", "weights", "weights_key")
"""The arguments of `build_backbone` that are of `build_network`."""

SUMS_TO_ONE = 1e-4
"""How far from 1 the sum of probabilities may be."""

PACKAGED = {"efficientnet_lite0": "tf_efficientnet_lite0"}
"""Names of networks whose weights are in a package, and what timm calls them."""

PACKAGED_LAYERS: dict[str, dict[str, Any]] = {
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
    device: str | torch.device | None = None,
) -> Backbone:
    """A classifier as a frozen backbone, in eval mode.

    A network that is given stays the same object: it is frozen, put into eval mode, and moved if
    `device` says so.

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
        cam_layer: see Backbone; without, the last of the taps.
        prefix_tokens: see Backbone, as are the next two.
        channels_last: of no meaning where the network is probed.
        trusted: of random weights all layers that are suggested.
        preparation: see Backbone.
        processor: an image processor of transformers: mean, std, size, crop and interpolation.
        device: where it computes; None for where the network is. What is named computes float32
            exactly on GPUs, without TF32.

    Raises:
        ValueError: an unknown name, weights that cannot be had or do not fit, a network that does
            not take such images or gives no class scores, mean, std or size that are not known, no
            layer that explainers can read, a device that is not there.

    Example:
        >>> head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        >>> network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), *head)
        >>> backbone = wrap(network, size=64, mean=[0.5] * 3, std=[0.5] * 3)
        >>> backbone.classes, backbone.family
        (4, 'cnn')
    """
    if isinstance(network, str):
        made = _named(network, weights)
        known = known_by_name(network, weights) | known_of(made)
        name = name or network.rpartition(":")[2]
        packaged = {} if weights == "none" else PACKAGED_LAYERS.get(network, {})
    else:
        made, known = _given(network, weights)
        packaged = {}
        name = name or type(network).__name__
    if processor is not None:
        known |= known_of_processor(processor)
    given = {"mean": mean, "std": std, "size": size, "preparation": preparation}
    known = _joined(name, known, given)
    seen: dict[str, Any] = {
        "prefix_tokens": prefix_tokens,
        "channels_last": channels_last,
        "trusted": trusted,
    }
    home = _device_of(name, made)
    where = home if device is None else _existing(device)
    try:
        made.eval().cpu()  # where images of the probe are
        if taps is None:
            seen |= packaged or suggested(made, name, known, random=weights == "none")
        else:
            seen |= {"taps": taps, "cam_layer": "".join(taps[-1:])}
        if cam_layer is not None:
            seen["cam_layer"] = cam_layer
        classes = _class_count(made, name, known["size"], {*seen["taps"], seen["cam_layer"]})
        backbone = Backbone(made, name=name, classes=classes, **known, **seen)
    finally:
        made.to(home)
    return accelerate(backbone, where) if isinstance(network, str) else backbone.to(where)


def _given(network: nn.Module, weights: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """A network that is given, and what it says of its images."""
    if not isinstance(network, nn.Module):
        a_class = isinstance(network, type)
        what = f"the class {network.__name__}" if a_class else f"of type {type(network).__name__}"
        raise ValueError(f"network is {what}: expected an nn.Module or a name")
    if weights is not None:
        raise ValueError(
            f"weights is {weights!r} beside a network that is given: expected none, it has its own"
        )
    hugging_face = "pixel_values" in inspect.signature(network.forward).parameters
    return Logits(network) if hugging_face else network, known_of(network)


def _joined(name: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a network's images, with what is given in its place.

    Raises:
        ValueError: mean, std or size is neither, or is none.
    """
    joined = {**known, **{key: value for key, value in given.items() if value is not None}}
    if missing := [key for key in ("mean", "std", "size") if joined.get(key) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"{', '.join(missing)} of {name!r} {verb} not known: expected what it was trained "
            "with, as arguments, or its `processor`"
        )
    refuse_size(name, joined["size"])
    refuse_normalisation(name, joined["mean"], joined["std"])
    joined |= {key: [float(value) for value in joined[key]] for key in ("mean", "std")}
    prepared = joined.get("preparation")
    if given["preparation"] is None and prepared is not None:
        joined["preparation"] = prepared.scaled(joined["size"])
    return joined


def _device_of(name: str, network: nn.Module) -> torch.device:
    """Where a network is; the CPU if it has no weights.

    Raises:
        ValueError: on several devices, or on none.
    """
    tensors = (*network.parameters(), *network.buffers())
    devices = list(dict.fromkeys(tensor.device for tensor in tensors))
    if len(devices) > 1 or any(device.type == "meta" for device in devices):
        raise ValueError(
            f"backbone {name!r} is on {', '.join(map(str, devices))}: expected all of it on one "
            "device, with its weights"
        )
    return devices[0] if devices else torch.device("cpu")


def _existing(device: str | torch.device) -> torch.device:
    """A device that is there.

    Raises:
        ValueError: torch finds none of that name.
    """
    try:
        return torch.zeros(1, device=device).cpu().new_empty(0, device=device).device
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"device is {str(device)!r}, which torch does not find: expected cpu"
            f"{', cuda' if torch.cuda.is_available() else ''}"
            f"{', mps' if torch.backends.mps.is_available() else ''}"
        ) from error


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


def suggested(
    network: nn.Module, name: str, known: Mapping[str, Any], *, random: bool
) -> dict[str, Any]:
    """Layers of a network, as arguments of Backbone; those of random weights are trusted.

    Args:
        network: in eval mode, on the CPU.
        name: for messages.
        known: mean, std and size, see `wrap`.
        random: whether its weights are.
    """
    with _taking_images(name, known["size"]):
        probed = probe_layers(network, known["mean"], known["std"], known["size"])
    if random:
        found = suggest_layers(network, probed, name)
        return found | {"trusted": found["taps"]}
    return suggest_layers(network, following(probed) or probed, name)


@contextmanager
def _taking_images(name: str, size: int) -> Iterator[None]:
    """Within the block what somebody's network raises becomes one line.

    Raises:
        ValueError: instead.
    """
    try:
        yield
    except (NoLogitsError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"backbone {name!r} does not take images of {size} x {size} pixels ({said}): expected "
            f"a network that works on images (B, 3, {size}, {size}) of float32"
        ) from error


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
    own = {key: value for key, value in spec.items() if key in NETWORK}
    seen = {key: value for key, value in spec.items() if key not in NETWORK}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(name, weights=weights, **own)
    backbone = wrap(network, name=name, size=size, **seen)
    if probed is not None:
        layers = {layer: Meaning(**known) for layer, known in probed["layers"].items()}
        backbone.probed = Probed(layers, probed["class_token"])
    return accelerate(backbone, device)


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

    with _taking_images(name, size), torch.no_grad(), hooked(network, keep):
        logits = network(blank((size, size)))
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
