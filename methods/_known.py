"""What timm, torchvision and transformers say of the images of a network."""

import math
from typing import Any

import numpy as np
import torch
import torchvision.models
from PIL import Image
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from methods._inputs import Preparation

LEVELS = 4.0
"""How far, of 255, an image of a processor may be from what it says that it does."""


def known_by_name(given: str, weights: str | None) -> dict[str, Any]:
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


def known_of(network: nn.Module) -> dict[str, Any]:
    """What a network of timm says of its images."""
    if not getattr(network, "pretrained_cfg", None):
        return {}
    told: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    size = int(told["input_size"][1])
    scaled = math.floor(size / told["crop_pct"])
    resize = (scaled, scaled) if told["crop_mode"] == "squash" else scaled
    prepared = Preparation(resize, size, told["interpolation"])
    return {"mean": told["mean"], "std": told["std"], "size": size, "preparation": prepared}


def known_of_processor(processor: Any) -> dict[str, Any]:
    """What an image processor of transformers says of images.

    Raises:
        ValueError: images that are not square, or not scaled to [0, 1] before they are normalised,
            or that are made in another way than what it says of them.
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
    known: dict[str, Any] = {
        "mean": list(processor.image_mean) if normalises else [0.0] * 3,
        "std": list(processor.image_std) if normalises else [1.0] * 3,
        "size": side,
        "preparation": Preparation(resize, side, interpolation),
    }
    _refuse_other_images(processor, known)
    return known


def _refuse_other_images(processor: Any, known: dict[str, Any]) -> None:
    """Refuse a processor that makes another image of a photograph than what is known of it.

    Many scale or crop in a way of their own, which none of their attributes says.

    Args:
        processor: of transformers.
        known: see `known_of_processor`.

    Raises:
        ValueError: its image has another shape, or differs by more than `LEVELS`.
    """
    photograph = _test_photograph()
    made: Tensor = processor(images=photograph, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(known[name]).view(3, 1, 1) for name in ("mean", "std"))
    own = known["preparation"](photograph)
    hint = "hand over `mean`, `std`, `size` and `preparation` in its place"
    name = type(processor).__name__
    if made.shape != own.shape:
        raise ValueError(
            f"the processor {name} makes an image of {tuple(made.shape)}: expected "
            f"{tuple(own.shape)}, as its size and crop say; {hint}"
        )
    off = float((255 * (made * std + mean) - own).abs().max())
    if not off <= LEVELS:
        raise ValueError(
            f"the processor {name} prepares a photograph in another way than its mean, std, size, "
            f"crop and interpolation say (by {off:.0f} of 255): expected no such step; {hint}"
        )


def _test_photograph() -> Image.Image:
    """Coloured squares of 12 pixels, 480 x 320: edges show how an image is resized and cropped."""
    squares = np.random.default_rng(0).integers(0, 256, (27, 40, 3), dtype=np.uint8)
    return Image.fromarray(squares.repeat(12, axis=0).repeat(12, axis=1)[:320])


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
