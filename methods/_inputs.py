"""What explainers are given: pixels of photographs, and the classes to explain."""

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

Choice = Literal["predicted", "label", "runner_up"] | SupportsIndex
"""Which class of an image is explained: what the network names, the image's label, what the network
names second, or a class by its index."""

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
"""How an image is resized, see PIL."""


@dataclass(frozen=True)
class Preparation:
    """How a photograph becomes what a network is made for.

    Attributes:
        resize: what the shorter side becomes, or (height, width), in pixels.
        crop: side of the square in the centre that is taken, in pixels.
        interpolation: of the resizing; with antialiasing.

    Raises:
        ValueError: the crop does not fit, or an unknown interpolation.

    Example:
        >>> from PIL import Image
        >>> prepare = Preparation(resize=256, crop=224, interpolation="bicubic")
        >>> prepare(Image.new("RGB", (640, 480))).shape
        torch.Size([3, 224, 224])
    """

    resize: int | tuple[int, int]
    crop: int
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """See the class."""
        least = self.resize if isinstance(self.resize, int) else min(self.resize)
        if least < self.crop:
            raise ValueError(
                f"a crop of {self.crop} pixels does not fit into an image resized to {least}: "
                "expected a smaller crop"
            )
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"interpolation is {self.interpolation!r}: expected one of "
                f"{', '.join(get_args(Interpolation))}"
            )

    def scaled(self, crop: int) -> "Preparation":
        """The same for images of another size, in pixels."""
        if isinstance(self.resize, int):
            resize: int | tuple[int, int] = round(self.resize * crop / self.crop)
        else:
            height, width = self.resize
            resize = (round(height * crop / self.crop), round(width * crop / self.crop))
        return replace(self, resize=resize, crop=crop)

    def __call__(self, image: Image.Image) -> Tensor:
        """The pixels (3, crop, crop), uint8, of an RGB image."""
        size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        whole = functional.resize(image, size, InterpolationMode(self.interpolation))
        pixels: Tensor = functional.pil_to_tensor(
            functional.center_crop(whole, [self.crop, self.crop])
        )
        return pixels


def read_photographs(
    photographs: Sequence[str | Path | Image.Image], prepare: Preparation
) -> Tensor:
    """Photographs, turned as their EXIF entry says: float32 (N, 3, crop, crop) in [0, 1].

    Raises:
        ValueError: none, or one that is missing, damaged or of more than 8 bits a channel.
    """
    if isinstance(photographs, str | Path | Image.Image) or not photographs:
        raise ValueError(
            f"photographs are {photographs!r}: expected a list of at least one path or PIL image"
        )
    opened = [open_photograph(own) for own in photographs]
    return torch.stack([prepare(photograph) for photograph in opened]).float() / 255


def open_photograph(photograph: str | Path | Image.Image) -> Image.Image:
    """A photograph in RGB, turned as its EXIF entry says; what is transparent is not seen as such.

    Args:
        photograph: its path, or itself.

    Raises:
        ValueError: it is missing, damaged, has more than 8 bits a channel, or is none.
    """
    if not isinstance(photograph, str | Path | Image.Image):
        kind = type(photograph).__name__
        raise ValueError(f"a photograph is of type {kind}: expected a path or a PIL image")
    name = "that is given" if isinstance(photograph, Image.Image) else str(photograph)
    try:
        with _opened(photograph) as image:
            deep = image.mode.startswith(("I", "F"))  # which PIL would cut off at 255
            turned = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the photograph {name}: {error}") from error
    if deep:
        raise ValueError(f"the photograph {name} has more than 8 bits a channel: expected 8")
    return turned


def _opened(photograph: str | Path | Image.Image) -> AbstractContextManager[Image.Image]:
    """An image within a block; that of a path is closed after it."""
    if isinstance(photograph, Image.Image):
        return nullcontext(photograph)
    return Image.open(photograph)


def choose_targets(
    probabilities: Tensor, choice: Choice, labels: Tensor | Sequence[int] | None = None
) -> Tensor:
    """The explained class (B,), int64, of each image.

    Args:
        probabilities: (B, K), or logits.
        choice: see `Choice`.
        labels: (B,), whole numbers, of the images; for the choice `label`.

    Raises:
        ValueError: an unknown choice, a class that does not exist, labels that are missing.

    Example:
        >>> choose_targets(torch.tensor([[0.1, 0.6, 0.3]]), "runner_up")
        tensor([2])
    """
    count, classes = probabilities.shape
    if isinstance(choice, str) and choice == "label":
        chosen = _labels(labels, count).to(probabilities.device)
    elif isinstance(choice, str) and choice == "predicted":
        chosen = probabilities.argmax(dim=1)
    elif isinstance(choice, str) and choice == "runner_up":
        first = probabilities.argmax(dim=1, keepdim=True)
        chosen = probabilities.scatter(1, first, -torch.inf).argmax(dim=1)
    else:
        chosen = torch.full((count,), _index(choice), device=probabilities.device)
    refuse_classes(chosen, classes)
    return chosen


def _labels(labels: Any, count: int) -> Tensor:
    """Labels (B,), int64, of so many images.

    Raises:
        ValueError: there are none, or others.
    """
    found = None if labels is None else torch.as_tensor(labels)
    if found is None or found.shape != (count,):
        given = "without labels" if found is None else f"with labels {tuple(found.shape)}"
        raise ValueError(f"target is 'label' {given}: expected ({count},), one an image")
    if found.is_floating_point() or found.dtype == torch.bool:
        raise ValueError(f"labels are {found.dtype}: expected whole numbers, such as torch.int64")
    return found.long()


def _index(choice: Any) -> int:
    """The index of a class that is chosen by it.

    Raises:
        ValueError: it is none.
    """
    with suppress(TypeError):
        if not isinstance(choice, bool):  # which Python counts among the whole numbers
            return operator.index(choice)
    several = isinstance(choice, Sequence | Tensor | np.ndarray) and not isinstance(choice, str)
    hint = "; an explainer takes a tensor of classes as it is" if several else ""
    raise ValueError(
        f"target is {choice!r}: expected predicted, label, runner_up, or the index of a class{hint}"
    )


def refuse_classes(targets: Tensor, classes: int) -> None:
    """Refuse targets (B,) that are not among so many classes.

    Raises:
        ValueError: names the first.
    """
    outside = (targets < 0) | (targets >= classes)
    if outside.any():
        raise ValueError(
            f"class {int(targets[outside][0])} is among the targets: expected 0 to {classes - 1}"
        )


def check_pixels(pixels: Any, like: Tensor) -> None:
    """Refuse what is no batch of pixels, whatever their values.

    Raises:
        ValueError: no tensor (B, 3, H, W) of the type and on the device of `like`.
    """
    if not isinstance(pixels, Tensor) or pixels.dtype != like.dtype:
        given = pixels.dtype if isinstance(pixels, Tensor) else f"of type {type(pixels).__name__}"
        raise ValueError(
            f"images are {given}: expected a tensor of {like.dtype} in [0, 1], see Backbone.read"
        )
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        hint = "; images[None] is a batch of one" if pixels.ndim == 3 else ""
        raise ValueError(f"images have shape {tuple(pixels.shape)}: expected (B, 3, H, W){hint}")
    if pixels.device != like.device:
        raise ValueError(
            f"images are on {pixels.device}: expected {like.device}, as the backbone is"
        )


def check_images(images: Any, like: Tensor) -> None:
    """Refuse what is no batch of pixels.

    Raises:
        ValueError: no tensor (B, 3, H, W) of finite values in [0, 1], of the type and on the device
            of `like`.
    """
    check_pixels(images, like)
    low, high = (float(end) for end in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        hint = "are they already normalised? the backbone does so itself"
        if low >= 0 and high > 1:
            hint = "divide them by 255"
        elif low != low:
            hint = "are the files damaged?"
        raise ValueError(f"pixels range from {low:.3g} to {high:.3g}: expected [0, 1]; {hint}")


def check_targets(targets: Any, count: int, classes: int, device: torch.device) -> None:
    """Refuse what is not the class of each of `count` images.

    Raises:
        ValueError: no int64 tensor (count,) on `device` of classes from 0 to `classes` - 1.
    """
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        given = (
            targets.dtype if isinstance(targets, Tensor) else f"of type {type(targets).__name__}"
        )
        raise ValueError(
            f"targets are {given}: expected a tensor of torch.int64, see Backbone.targets"
        )
    if targets.shape != (count,):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}: expected ({count},), a class an image"
        )
    if targets.device != device:
        raise ValueError(f"targets are on {targets.device}: expected {device}, as the backbone is")
    refuse_classes(targets, classes)


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed for a device: the CPU for Apple's MPS, which has none."""
    return torch.device("cpu") if device.type == "mps" else device
