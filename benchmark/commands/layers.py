"""Suggest which layers of a network the explainers should read, as lines for params.yaml."""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.models import get_model_weights

from benchmark.core.params import Backbone
from methods import build_network

TAPS = 3
"""Layers suggested for the trainable explainers, as many as the paper has."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Fired:
    """A module that has run: its name, what it gave for one image, whether it changed anything."""

    name: str
    module: nn.Module
    output: Tensor
    changed: bool

    @property
    def side(self) -> tuple[int, bool] | None:
        """Side of a square grid (above 1) and whether channels come last, if it gave a grid."""
        shape = self.output.shape
        if self.output.ndim != 4 or len(self.output) != 1 or (shape[1] == shape[2] == shape[3]):
            return None
        for side, others, last in ((shape[3], shape[2], False), (shape[1], shape[2], True)):
            if side == others and side > 1:
                return side, last
        return None


def suggest(name: str) -> Backbone:
    """Parameters of a timm network, or with `torchvision:` in front of torchvision's.

    Of a network of grids the last of the outermost modules of each of the three smallest grids; of
    one of tokens the first norm of each of the last three blocks, as the paper has it for
    ViT-B-16. Where timm knows the stages of a network of grids, the grids are theirs, and a stage
    that ends later than the outermost module is taken instead: gates and position biases inside
    the blocks give small grids too. The CAM layer is the deepest of them. The weights are the
    published ones, `none` (random) where there are none; what is looked at here has random ones.

    Raises:
        ValueError: an unknown network, or one with neither.
    """
    library, _, model = name.rpartition(":")
    blank = Backbone.model_validate(
        {
            "source": library or "timm",
            "model": model,
            "weights": "none",
            "size": 224,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "taps": ["none"],
            "cam_layer": "none",
        }
    )
    network = build_network(model, source=blank.source, model=model, weights="none").eval()
    told = getattr(network, "pretrained_cfg", None) or {}
    size = int(told.get("input_size", (3, blank.size))[1])
    fired = trace(network, size)
    known = stages(network)
    found = (grids(fired, known) if known else None) or tokens(fired) or grids(fired)
    if found is None:
        raise ValueError(
            f"{name!r} gives neither square grids nor tokens: expected a network of images, "
            "choose its layers from named_modules()"
        )
    seen = {"size": size, "mean": tuple(told.get("mean", blank.mean))}
    seen |= {"std": tuple(told.get("std", blank.std)), "weights": published(blank, told)}
    return blank.model_copy(update=seen | found)


def published(blank: Backbone, told: dict[str, Any]) -> str:
    """What `weights` calls the published weights of a network; `none` if it has none."""
    if blank.source == "torchvision":
        names = [weights.name for weights in get_model_weights(blank.model)]
        return str(names[0]) if names else "none"
    return "pretrained" if told.get("url") or told.get("hf_hub_id") else "none"


def trace(network: nn.Module, size: int) -> list[Fired]:
    """Every module that gives a tensor for one image of `size`, in the order they end."""
    fired: list[Fired] = []
    handles: list[RemovableHandle] = []
    given: dict[str, Tensor | None] = {}

    def note(name: str) -> Iterator[RemovableHandle]:
        def before(_module: nn.Module, inputs: tuple[object, ...]) -> None:
            first = inputs[0] if inputs else None
            given[name] = first.clone() if isinstance(first, Tensor) else None  # may be overwritten

        def after(module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                own = given[name]
                same = own is not None and own.shape == output.shape and torch.equal(own, output)
                weighs = any(True for _ in module.parameters())  # a residual may start at zero
                fired.append(Fired(name, module, output, changed=weighs or not same))

        module = network.get_submodule(name)
        yield module.register_forward_pre_hook(before)
        yield module.register_forward_hook(after)

    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        handles.extend(h for name, _ in network.named_modules() if name for h in note(name))
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return fired


def tokens(fired: list[Fired]) -> dict[str, object] | None:
    """Layers and the number of prefix tokens of a transformer, or None if it is no such network."""
    groups: dict[tuple[str, type, int], list[str]] = {}
    for one in fired:
        if one.output.ndim == 3 and len(one.output) == 1:
            key = one.name.rpartition(".")[0], type(one.module), one.output.shape[1]
            groups.setdefault(key, []).append(one.name)
    norms = {
        key: [name for name in (first_norm(block, fired) for block in names) if name]
        for key, names in groups.items()
    }
    if not any(len(names) >= TAPS for names in norms.values()):
        return None
    key = max(norms, key=lambda key: len(norms[key]))
    count = key[2]
    layers = tuple(norms[key][-TAPS:])
    prefix = count - math.isqrt(count) ** 2
    return {"taps": layers, "cam_layer": layers[-1], "prefix_tokens": prefix}


def first_norm(block: str, fired: list[Fired]) -> str | None:
    """The first layer norm inside a block."""
    inside = (f for f in fired if f.name.startswith(f"{block}."))
    return next((f.name for f in inside if isinstance(f.module, nn.LayerNorm)), None)


def stages(network: nn.Module) -> list[str]:
    """The last stages in timm's `feature_info`, each of another size; torchvision has none."""
    told = getattr(network, "feature_info", None) or []
    return list({stage["reduction"]: stage["module"] for stage in told}.values())[-TAPS:]


def grids(fired: list[Fired], known: Sequence[str] = ()) -> dict[str, object] | None:
    """Layers of a network of grids, and where its channels are; None if it has none.

    With known stages the grids are theirs; None if one of them gives no grid.
    """
    changed = [(one, one.side) for one in fired if one.changed]
    placed = [(one, *side) for one, side in changed if side is not None]
    ends = {side: last for one, side, last in placed if not known or one.name in known}
    if len(ends) < len(known):
        return None
    channels_last = sum(ends.values()) * 2 > len(ends)
    layers: list[str] = []
    for wanted in reversed(sorted(ends)[:TAPS]):
        names = [one.name for one, *place in placed if place == [wanted, channels_last]]
        own = [
            name for name in names if not any(f"{one}.".startswith(f"{name}.") for one in layers)
        ]
        depth = min((name.count(".") for name in own), default=0)
        layers += [name for name in own if name.count(".") == depth or name in known][-1:]
    if not layers:
        return None
    return {"taps": tuple(layers), "cam_layer": layers[-1], "channels_last": channels_last}


def lines(name: str, spec: Backbone) -> str:
    """A backbone as lines of params.yaml, what is the default left out."""
    entry = {name: spec.model_dump(mode="json", exclude_defaults=True)}
    return yaml.safe_dump({"backbones": entry}, sort_keys=False, default_flow_style=None)


def main() -> None:
    """Print the suggestion for the network of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmark layers", description=__doc__)
    parser.add_argument("name", help="a timm network, or torchvision:NAME")
    name = parser.parse_args().name
    try:
        spec = suggest(name)
    except ValueError as error:
        sys.exit(f"layers: {' '.join(str(error).split())}")
    print(lines(spec.model, spec), end="")


if __name__ == "__main__":
    main()
