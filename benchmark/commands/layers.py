"""Suggest which layers of a network the explainers should read, as lines for params.yaml."""

import argparse
import sys
from typing import Any

import torch
import yaml
from torchvision.models import get_model_weights

from benchmark.core.params import Backbone
from methods import build_network, wrap
from methods._layers import wake
from methods._wrapping import suggested

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def suggest(name: str, size: int | None = None) -> Backbone:
    """Parameters of a timm network, of torchvision:NAME, or of one's own, package.module:function.

    Only layers that explainers can read are suggested, see methods.Backbone.use; but of the stages
    that timm knows, and of layers that have the shape of one that follows the image, that they
    follow it is not asked: random weights mix places, and `check` asks those of the parameters.

    Which layers, see methods.suggest_layers. The weights are the published ones, `none` (random)
    where there are none; what is looked at here has random ones, but of a network of one's own what
    its function gives it.

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
    seen: dict[str, Any] = {"mean": mean, "std": std}
    found = suggested(network, name, seen | {"size": size}, random=True)
    wrap(network, name=name, size=size, **seen, **found)
    found.pop("trusted")
    return blank.model_copy(update=seen | found | {"weights": published(blank, told)})


def published(blank: Backbone, told: dict[str, Any]) -> str:
    """What `weights` calls the published weights of a network; `none` if it has none."""
    if blank.source == "torchvision":
        names = [weights.name for weights in get_model_weights(str(blank.model))]
        return str(names[0]) if names else "none"
    return "pretrained" if told.get("url") or told.get("hf_hub_id") else "none"


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
