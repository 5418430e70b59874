"""Suggest which layers of a network the explainers should read, as lines for params.yaml."""

import argparse
import sys
from collections import Counter
from typing import Any

import torch
import yaml
from torch import nn
from torchvision.models import get_model_weights

from benchmark.core.params import Backbone
from methods import Meaning, build_network, probe_layers, wrap_network
from methods._probe import FOLLOWS

TAPS = 3
"""Layers suggested for the trainable explainers, as many as the paper has."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MIXED = 3.0
"""Below this `peak` (see methods.Meaning) a layer mixes all places."""

NOTHING = nn.Identity | nn.Dropout | nn.AdaptiveAvgPool2d
"""Modules that hand on what they get, or nearly."""


def suggest(name: str, size: int | None = None) -> Backbone:
    """Parameters of a timm network, of torchvision:NAME, or of one's own, package.module:function.

    Only layers that explainers can read are suggested, see methods.Backbone.use; but of the stages
    that timm knows, and of layers that have the shape of one that follows the image, that they
    follow it is not asked: random weights mix places, and `check` asks those of the parameters.

    Where they are of several sizes, the last of the outermost modules of each of the three
    smallest; where all are of one, as a ViT's, the first norm of each of the last three blocks, as
    the paper has it for ViT-B-16, or the blocks themselves. The CAM layer is the deepest of them.
    The weights are the published ones, `none` (random) where there are none; what is looked at
    here has random ones, but of a network of one's own what its function gives it.

    Args:
        name: see above.
        size: side of its images, in pixels; what timm says, or 224, if None.

    Raises:
        ValueError: an unknown network, one without a head or without such layers, or that takes no
            images of this size.
    """
    library, _, model = name.rpartition(":")
    own = library not in ("", "timm", "torchvision")
    where: dict[str, Any] = {"load": name} if own else {"source": library or "timm", "model": model}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(model, **where, weights="none").eval()
    if getattr(network, "num_classes", None) == 0:
        raise ValueError(f"{name!r} has num_classes 0: expected a classifier with a head")
    if not own:
        wake(network)
    told = getattr(network, "pretrained_cfg", None) or {}
    size = size or int(told.get("input_size", (3, 224))[1])
    blank = Backbone.model_validate(
        where
        | {"weights": "none", "size": size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        | {"taps": ["none"], "cam_layer": "none"}
    )
    mean, std = tuple(told.get("mean", blank.mean)), tuple(told.get("std", blank.std))
    try:
        probed = probe_layers(network, mean, std, size)
    except (AssertionError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{name!r} does not take images of {size} x {size} pixels ({said}): expected the size "
            "that it is made for"
        ) from error
    found = choose(network, probed)
    if found is None:
        raise ValueError(
            f"{name!r} has no layer that explainers can read ({best_of(probed)}): expected grids "
            "or tokens whose places follow the image"
        )
    seen: dict[str, Any] = {"mean": mean, "std": std}
    wrap_network(network, name=name, size=size, trusted=found["taps"], **seen, **found)
    return blank.model_copy(update=seen | found | {"weights": published(blank, told)})


def best_of(probed: dict[str, tuple[tuple[int, ...], list[Meaning]]]) -> str:
    """In words: how far the layer follows the image that does so best."""
    follows = {name: own[0].follows for name, (_, own) in probed.items() if own}
    if not follows:
        return "none gives one tensor of places that depends on the image"
    best = max(follows, key=follows.__getitem__)
    return f"best follows {best!r}, with a rank correlation of {follows[best]:.2f}"


def wake(network: nn.Module) -> None:
    """Let every part of a network with random weights do something.

    Many start as the identity: the scale of what a block adds is zero, or nearly so.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("bias") or not weight.is_floating_point():
                continue
            if weight.ndim == 1 and bool((weight == weight[0]).all()) and abs(weight[0]) < 0.5:
                weight.fill_(1.0)
            elif not bool(weight.any()):
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def published(blank: Backbone, told: dict[str, Any]) -> str:
    """What `weights` calls the published weights of a network; `none` if it has none."""
    if blank.source == "torchvision":
        names = [weights.name for weights in get_model_weights(str(blank.model))]
        return str(names[0]) if names else "none"
    return "pretrained" if told.get("url") or told.get("hf_hub_id") else "none"


def choose(
    network: nn.Module, probed: dict[str, tuple[tuple[int, ...], list[Meaning]]]
) -> dict[str, Any] | None:
    """The layers to suggest and how they are laid out; None if no layer follows the image.

    Args:
        network: with random weights, which may mix all places of a deep layer. So the stages that
            timm knows, and layers of the shape of one that follows, need not follow.
        probed: see methods.probe_layers.
    """
    best = {name: own[0] for name, (_, own) in probed.items() if own and not own[0].behind}
    follow = {name: own for name, own in best.items() if own.follows >= FOLLOWS}
    if not follow:
        return None
    stages = [s["module"] for s in getattr(network, "feature_info", None) or []]
    layouts = {name: (own.channel_axis, own.prefix_tokens) for name, own in follow.items()}
    every = [layouts[n] for n in stages if n in layouts][-1:] or list(layouts.values())
    axis, prefix = layout = max(dict.fromkeys(every), key=every.count)
    shapes = {probed[name][0] for name in follow if layouts[name] == layout}
    likely = {
        name: meaning
        for name, (shape, own) in probed.items()
        if (name in stages or shape in shapes)
        and not isinstance(network.get_submodule(name), NOTHING)
        for meaning in own
        if (meaning.channel_axis, meaning.prefix_tokens, meaning.behind) == (*layout, 0)
        and (name in follow or meaning.peak < MIXED)
    }
    sizes = sorted({meaning.rows for meaning in likely.values()})[:TAPS]
    given = {name: probed[name][0] for name in likely}
    many = len(sizes) > 1
    layers = ends_of_stages(likely, sizes, given) if many else ends_of_blocks(network, likely)
    last = prefix is None and axis == -1
    return {"taps": layers, "cam_layer": layers[-1], "prefix_tokens": prefix, "channels_last": last}


def ends_of_stages(
    readable: dict[str, Meaning], sizes: list[int], shapes: dict[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """The last of the outermost layers of each size, the largest first.

    Of tokens the last of the shape that most of these have: the first block of a stage still has
    the size of the stage before, and the width of its own.
    """
    layers: list[str] = []
    for size in reversed(sizes):
        names = [name for name, own in readable.items() if own.rows == size]
        names = [n for n in names if not any(f"{one}.".startswith(f"{n}.") for one in layers)]
        depth = min((name.count(".") for name in names), default=0)
        names = [name for name in names if name.count(".") == depth]
        if names and readable[names[0]].prefix_tokens is not None:
            [(usual, _)] = Counter(shapes[name] for name in names).most_common(1)
            names = [name for name in names if shapes[name] == usual]
        layers += names[-1:]
    return tuple(layers)


def ends_of_blocks(network: nn.Module, readable: dict[str, Meaning]) -> tuple[str, ...]:
    """The first norm, or else the end, of each of the last blocks.

    Blocks are the most modules of one class that stand side by side.
    """
    groups: dict[tuple[str, type], list[str]] = {}
    for name in readable:
        key = name.rpartition(".")[0], type(network.get_submodule(name))
        groups.setdefault(key, []).append(name)
    blocks = max(groups.values(), key=len)[-TAPS:]
    norms = [first_norm(network, block, readable) for block in blocks]
    return tuple(norm or block for norm, block in zip(norms, blocks, strict=True))


def first_norm(network: nn.Module, block: str, readable: dict[str, Meaning]) -> str | None:
    """The first layer norm inside a block, if explainers can read it."""
    inside = (name for name in readable if name.startswith(f"{block}."))
    norms = (n for n in inside if isinstance(network.get_submodule(n), nn.LayerNorm))
    return next(norms, None)


def lines(name: str, spec: Backbone) -> str:
    """A backbone as lines of params.yaml, what is the default left out."""
    entry = {name: spec.model_dump(mode="json", exclude_defaults=True)}
    return yaml.safe_dump({"backbones": entry}, sort_keys=False, default_flow_style=None)


def main() -> None:
    """Print the suggestion for the network of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmark layers", description=__doc__)
    parser.add_argument("name", help="a timm network, torchvision:NAME, or package.module:function")
    parser.add_argument("--size", type=int, help="side of its images, in pixels")
    given = parser.parse_args()
    try:
        spec = suggest(given.name, given.size)
    except ValueError as error:
        sys.exit(f"layers: {' '.join(str(error).split())}")
    print(lines(given.name.rpartition(":")[2], spec), end="")


if __name__ == "__main__":
    main()
