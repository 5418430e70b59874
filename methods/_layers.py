"""Which layers of a network the explainers should read."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from methods._probe import FOLLOWS, Meaning

TAPS = 3
"""Layers suggested for the trainable explainers, as many as the paper has."""

MIXED = 3.0
"""Below this `peak` (see methods.Meaning) a layer mixes all places."""

NOTHING = nn.Identity | nn.Dropout | nn.AdaptiveAvgPool2d
"""Modules that hand on what they get, or nearly."""

Readings = Mapping[str, tuple[tuple[int, ...], list[Meaning]]]
"""Layers with their shapes and what they may mean, see methods.probe_layers."""


def suggest_layers(network: nn.Module, probed: Readings, name: str) -> dict[str, Any]:
    """The layers to suggest and how they are laid out, as arguments of Backbone.

    Where they are of several sizes, the last of the outermost modules of each of the three
    smallest; where all are of one, as a ViT's, the first norm of each of the last three blocks, as
    the paper has it for ViT-B-16, or the blocks themselves. The CAM layer is the deepest of them.

    Args:
        network: see `choose`.
        probed: see `choose`.
        name: of the network, for the message.

    Raises:
        ValueError: no layer follows the image.
    """
    found = choose(network, probed)
    if found is None:
        raise ValueError(
            f"{name!r} has no layer that explainers can read ({best_of(probed)}): expected grids "
            "or tokens whose places follow the image"
        )
    return found


def following(probed: Readings) -> Readings:
    """The layers whose best reading follows the image."""
    return {n: own for n, own in probed.items() if own[1] and own[1][0].follows >= FOLLOWS}


def best_of(probed: Readings) -> str:
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


def choose(network: nn.Module, probed: Readings) -> dict[str, Any] | None:
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

    Blocks are the most modules of one class that stand side by side, of those with parts if any
    do: the projections of one block stand side by side too. Of as many the outermost.
    """
    groups: dict[tuple[str, type], list[str]] = {}
    for name in readable:
        key = name.rpartition(".")[0], type(network.get_submodule(name))
        groups.setdefault(key, []).append(name)

    def likeness(names: list[str]) -> tuple[bool, int, int]:
        parts = next(network.get_submodule(names[0]).children(), None)
        return parts is not None and len(names) > 1, len(names), -names[0].count(".")

    blocks = max(groups.values(), key=likeness)[-TAPS:]
    norms = [first_norm(network, block, readable) for block in blocks]
    return tuple(norm or block for norm, block in zip(norms, blocks, strict=True))


def first_norm(network: nn.Module, block: str, readable: dict[str, Meaning]) -> str | None:
    """The first layer norm inside a block, if explainers can read it."""
    inside = (name for name in readable if name.startswith(f"{block}."))
    norms = (n for n in inside if isinstance(network.get_submodule(n), nn.LayerNorm))
    return next(norms, None)
