"""Photographs from their files, by worker processes."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional

File = tuple[Path, int | None]
"""A photograph, and the seed of its crop; None for the centre."""


def decoded(batches: Iterable[list[File]], resize: int, size: int) -> Iterator[Tensor]:
    """Batches of photographs, uint8 (n, 3, size, size), in their order; a process for each CPU.

    The shorter side is resized (bilinear, antialiased) to `resize`; a seed crops at random and
    flips every other image, else the centre is taken.

    Raises:
        ValueError: a photograph is missing or damaged.
    """
    loader = DataLoader(
        _Photographs(resize, size),
        batch_sampler=_Once(batches),
        num_workers=workers(),
        prefetch_factor=4,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, not the one that all draw from
    )
    try:
        yield from loader
    except ValueError as error:  # with the traceback of the worker before its message
        raise ValueError(str(error).splitlines()[-1].removeprefix("ValueError: ")) from None


def workers() -> int:
    """How many processes decode: the CPUs, shared out among the processes that torchrun started."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _Photographs(Dataset[Tensor]):
    """Files to uint8 images (3, size, size)."""

    def __init__(self, resize: int, size: int) -> None:
        self.resize = resize
        self.size = size

    def __getitem__(self, file: File) -> Tensor:
        path, seed = file
        try:
            with Image.open(path) as image:
                deep = image.mode.startswith(("I", "F"))
                whole = functional.resize(image.convert("RGB"), [self.resize], antialias=True)
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot read the photograph {path}: {error}") from error
        if deep:  # which PIL would cut off at 255
            raise ValueError(f"the photograph {path} has more than 8 bits a channel: expected 8")
        if seed is None:
            return _tensor(functional.center_crop(whole, [self.size, self.size]))
        rng = np.random.default_rng(seed)
        left, top = (int(rng.integers(side - self.size + 1)) for side in whole.size)
        cropped = functional.crop(whole, top, left, self.size, self.size)
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
