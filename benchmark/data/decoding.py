"""Photographs from their files, by worker processes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")
"""How a photograph can be resized, see PIL."""


@dataclass(frozen=True)
class Crop:
    """How a photograph becomes an image of the splits.

    Attributes:
        resize: what the shorter side becomes, in pixels, with antialiasing.
        size: side of the crop, in pixels.
        interpolation: of the resizing, one of `INTERPOLATIONS`.
        upright: turn it first as its EXIF entry says; ImageNet's are taken as they lie.
    """

    resize: int
    size: int
    interpolation: str = "bilinear"
    upright: bool = False


File = tuple[Path, int | None]
"""A photograph, and the seed of its crop; None for the centre."""


def decoded(batches: Iterable[list[File]], crop: Crop) -> Iterator[Tensor]:
    """Batches of photographs, uint8 (n, 3, size, size), in their order; a process for each CPU.

    The shorter side is resized; a seed crops at random and flips every other image, else the centre
    is taken.

    Raises:
        ValueError: a photograph is missing or damaged.
    """
    loader = DataLoader(
        _Photographs(crop),
        batch_sampler=_Once(batches),
        num_workers=workers(),
        prefetch_factor=4,
        collate_fn=_stacked,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, not the one that all draw from
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


def workers() -> int:
    """How many processes decode: the CPUs, shared out among the processes that torchrun started."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _stacked(images: list[Tensor | str]) -> Tensor | str:
    """A batch, or what is wrong with the first that cannot be read."""
    wrong = [image for image in images if isinstance(image, str)]
    return wrong[0] if wrong else torch.stack([i for i in images if isinstance(i, Tensor)])


class _Photographs(Dataset[Tensor | str]):
    """Files to uint8 images (3, size, size), or to what is wrong with a file.

    An exception in a worker would come with its traceback, and the loader would wait for seconds.
    """

    def __init__(self, crop: Crop) -> None:
        self.crop = crop

    def __getitem__(self, file: File) -> Tensor | str:
        try:
            return self._read(*file)
        except ValueError as error:
            return str(error)

    def _read(self, path: Path, seed: int | None) -> Tensor:
        try:
            with Image.open(path) as image:
                deep = image.mode.startswith(("I", "F"))
                turned = ImageOps.exif_transpose(image) if self.crop.upright else image
                method = InterpolationMode(self.crop.interpolation)
                whole = functional.resize(turned.convert("RGB"), [self.crop.resize], method)
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot read the photograph {path}: {error}") from error
        if deep:  # which PIL would cut off at 255
            raise ValueError(f"the photograph {path} has more than 8 bits a channel: expected 8")
        size = self.crop.size
        if seed is None:
            return _tensor(functional.center_crop(whole, [size, size]))
        rng = np.random.default_rng(seed)
        left, top = (int(rng.integers(side - size + 1)) for side in whole.size)
        cropped = functional.crop(whole, top, left, size, size)
        return _tensor(functional.hflip(cropped) if rng.random() < 0.5 else cropped)


def _tensor(image: Any) -> Tensor:
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels


class _Once(Sampler[list[Any]]):
    """Hands the batches on to a DataLoader."""

    def __init__(self, batches: Iterable[list[Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches)
