"""Splits: images with ids, labels and object masks, or photographs that stay in their files."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmark.data.decoding import INTERPOLATIONS, Crop, File, decoded
from benchmark.data.seeds import seed_of

ROOT = "BENCHMARK_IMAGES"
"""The environment variable that names the folder of the photographs."""


Batch = tuple[int, Tensor]
"""An epoch and the indices (n,) of some images."""


Place = Callable[[str, int, int], dict[str, Tensor]]
"""From the name of a split, its number of images and their side in pixels to tensors for them to
be written into, see `blank`."""


def blank(_name: str, count: int, side: int) -> dict[str, Tensor]:
    """Tensors of a split, in memory: what Split has but for the table."""
    return {name: torch.zeros(shape, dtype=t) for name, t, shape in _layout(count, side)}


def mapped(path: Path, count: int, side: int) -> dict[str, Tensor]:
    """Tensors of a split that lie in a new file of safetensors: what is written is there at once.

    Of any number of images they take no memory.
    """
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, dtype, shape in _layout(count, side):
        start, end = end, end + dtype.itemsize * math.prod(shape)
        known = {"dtype": SAFETENSORS[dtype], "shape": list(shape), "data_offsets": [start, end]}
        header[name] = known
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return {
        name: _tensor_in(path, 8 + len(text) + header[name]["data_offsets"][0], dtype, shape)
        for name, dtype, shape in _layout(count, side)
    }


SAFETENSORS = {torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"}
"""What safetensors calls the types of a split."""


def _layout(count: int, side: int) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Names, types and shapes of the tensors of a split, in the order of safetensors."""
    return [
        ("labels", torch.int64, (count,)),
        ("pixels", torch.uint8, (count, 3, side, side)),
        ("objects", torch.bool, (count, side, side)),
    ]


def _tensor_in(path: Path, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor that is a part of a file; of no values one in memory."""
    if not math.prod(shape):
        return torch.zeros(shape, dtype=dtype)
    kind = np.dtype(str(dtype).removeprefix("torch."))
    return torch.from_numpy(np.memmap(path, kind, "r+", offset=start, shape=shape))


@dataclass(frozen=True)
class Split:
    """Images of one split, in a fixed order.

    Attributes:
        table: one row an image, with its `id` and what it was made of.
        pixels: uint8 (N, 3, H, W).
        objects: bool (N, H, W), where the object is.
        labels: int64 (N,), the class of the object.
    """

    table: pd.DataFrame
    pixels: Tensor
    objects: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pixels)

    @property
    def ids(self) -> list[str]:
        """The id of each image."""
        return list(self.table["id"])

    def part(self, chosen: slice) -> "Split":
        """Some of the images, as a split."""
        return Split(
            self.table.iloc[chosen], self.pixels[chosen], self.objects[chosen], self.labels[chosen]
        )

    def first(self, count: int) -> "Split":
        """The first `count` images, or all if there are fewer."""
        return self.part(slice(count))

    def images(self, indices: slice | Tensor) -> Tensor:
        """Some of the images, float32 in [0, 1]."""
        return as_pixels(self.pixels[indices])

    def stream(self, batches: Iterable[Batch], seed: int) -> Iterator[Tensor]:
        """The images of each batch, uint8, as they are in every epoch."""
        for _, indices in batches:
            yield self.pixels[indices]

    def batches(self, size: int) -> Iterator[slice]:
        """The images in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


def as_pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255


@dataclass(frozen=True)
class Listed:
    """Training photographs, decoded by processes of their own when they are needed.

    Attributes:
        table: one row an image, with its `id` and its `path` below `folder`.
        folder: where the files lie.
        crop: how they become images.
    """

    table: pd.DataFrame
    folder: Path
    crop: Crop

    def __len__(self) -> int:
        """The number of images."""
        return len(self.table)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What its file holds."""
        crop = self.crop
        return {
            "resize": torch.tensor(crop.resize),
            "size": torch.tensor(crop.size),
            "interpolation": torch.tensor(INTERPOLATIONS.index(crop.interpolation)),
            "upright": torch.tensor(crop.upright),
        }

    def stream(self, batches: Iterable[Batch], seed: int) -> Iterator[Tensor]:
        """The images of each batch, uint8, cropped and flipped anew in every epoch."""
        ids = self.table["id"].to_numpy()
        paths = self.table["path"].to_numpy()
        files: Iterator[list[File]] = (
            [(self.folder / paths[i], seed_of(seed, "crop", epoch, ids[i])) for i in indices]
            for epoch, indices in batches
        )
        yield from decoded(files, self.crop)


def root() -> Path:
    """The folder of the photographs, which is the environment's, not the profile's.

    Raises:
        ValueError: none is given, or it does not exist.
    """
    folder = os.environ.get(ROOT)
    if folder is None:
        raise ValueError(f"{ROOT} is not set: expected the folder of the photographs, see the docs")
    if not Path(folder).is_dir():
        raise ValueError(f"{ROOT} is {folder}: expected an existing folder")
    return Path(folder)


def read_training(folder: Path) -> Split | Listed:
    """Read the training split in a folder.

    Raises:
        ValueError: see `read_split` and `root`.
    """
    tensors, table = _read(folder, "train")
    if "resize" in tensors:
        crop = Crop(
            int(tensors["resize"]),
            int(tensors["size"]),
            INTERPOLATIONS[int(tensors["interpolation"])],
            bool(tensors["upright"]),
        )
        return Listed(table, root(), crop)
    return _split(folder, "train", tensors, table)


def read_split(folder: Path, name: str) -> Split:
    """Read a split in a folder: NAME.safetensors, and NAME.csv with a row an image.

    Raises:
        ValueError: a file is missing or damaged, or the two do not belong together.
    """
    return _split(folder, name, *_read(folder, name))


def _read(folder: Path, name: str) -> tuple[dict[str, Tensor], pd.DataFrame]:
    path = folder / f"{name}.safetensors"
    try:
        return load_file(path), pd.read_csv(path.with_suffix(".csv"), dtype={"id": str})
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"cannot read {path}: {error}; run `dvc repro` to make it") from error


def _split(folder: Path, name: str, tensors: dict[str, Tensor], table: pd.DataFrame) -> Split:
    if len(table) != len(tensors["pixels"]):
        raise ValueError(
            f"{folder / name}.csv has {len(table)} rows, {name}.safetensors "
            f"{len(tensors['pixels'])} images: expected as many; remove both and run `dvc repro` "
            "to make them"
        )
    return Split(table=table, **tensors)
