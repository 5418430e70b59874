"""What explainers are given: pixels of photographs, and the classes to explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

Choice = Literal["predicted", "label", "runner_up"] | int
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

    def __call__(self, image: Image.Image) -> Tensor:
        """The pixels (3, crop, crop), uint8, of an RGB image."""
        size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        whole = functional.resize(image, size, InterpolationMode(self.interpolation))
        pixels: Tensor = functional.pil_to_tensor(
            functional.center_crop(whole, [self.crop, self.crop])
        )
        return pixels


def read_photographs(files: Sequence[str | Path], prepare: Preparation) -> Tensor:
    """Photographs, turned as their EXIF entry says: float32 (N, 3, crop, crop) in [0, 1].

    Raises:
        ValueError: no file, or one that is missing, damaged or of more than 8 bits a channel.
    """
    if isinstance(files, str | Path) or not files:
        raise ValueError(f"files are {files!r}: expected a list of at least one path")
    return torch.stack([prepare(open_photograph(Path(file))) for file in files]).float() / 255


def open_photograph(path: Path) -> Image.Image:
    """A photograph in RGB, turned as its EXIF entry says.

    Raises:
        ValueError: it is missing, damaged, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            turned = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the photograph {path}: {error}") from error
    if deep:  # which PIL would cut off at 255
        raise ValueError(f"the photograph {path} has more than 8 bits a channel: expected 8")
    return turned


def choose_targets(probabilities: Tensor, choice: Choice, labels: Tensor | None = None) -> Tensor:
    """The explained class (B,), int64, of each image.

    Args:
        probabilities: (B, K), or logits.
        choice: see `Choice`.
        labels: (B,), int64, of the images; for the choice `label`.

    Raises:
        ValueError: an unknown choice, a class that does not exist, labels that are missing.

    Example:
        >>> choose_targets(torch.tensor([[0.1, 0.6, 0.3]]), "runner_up")
        tensor([2])
    """
    count, classes = probabilities.shape
    if choice == "label":
        if labels is None or len(labels) != count:
            given = "none" if labels is None else len(labels)
            raise ValueError(
                f"target is 'label' with {given} labels: expected {count}, one an image"
            )
        chosen = labels.to(probabilities.device)
    elif isinstance(choice, int) and not isinstance(choice, bool):
        chosen = torch.full((count,), choice, device=probabilities.device)
    elif choice == "predicted":
        chosen = probabilities.argmax(dim=1)
    elif choice == "runner_up":
        first = probabilities.argmax(dim=1, keepdim=True)
        chosen = probabilities.scatter(1, first, -torch.inf).argmax(dim=1)
    else:
        raise ValueError(
            f"target is {choice!r}: expected predicted, label, runner_up, or the index of a class"
        )
    refuse_classes(chosen, classes)
    return chosen


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


def check_images(images: Any, like: Tensor) -> None:
    """Refuse what is no batch of pixels.

    Raises:
        ValueError: no tensor (B, 3, H, W) of finite values in [0, 1], of the type and on the device
            of `like`.
    """
    device = like.device
    if not isinstance(images, Tensor) or images.dtype != like.dtype:
        given = images.dtype if isinstance(images, Tensor) else f"of type {type(images).__name__}"
        raise ValueError(
            f"images are {given}: expected a tensor of {like.dtype} in [0, 1], see Backbone.read"
        )
    if images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        hint = "; images[None] is a batch of one" if images.ndim == 3 else ""
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (B, 3, H, W){hint}")
    if images.device != device:
        raise ValueError(f"images are on {images.device}: expected {device}, as the backbone is")
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
