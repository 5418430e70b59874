"""Splits: images with ids, labels and object masks, or photographs that stay in their files."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark import store
from benchmark.decoding import File, decoded
from benchmark.stage import seed_of

ROOT = "BENCHMARK_IMAGES"
"""The environment variable that names the folder of the photographs."""


Batch = tuple[int, Tensor]
"""An epoch and the indices (n,) of some images."""


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


def write_split(name: str, split: Split) -> None:
    """Write a split's file and its table."""
    tensors = {
        "pixels": split.pixels,
        "objects": split.objects,
        "labels": split.labels,
    }
    with store.replacing(store.split_path(name)) as beside:
        save_file(tensors, beside)
    store.write_csv(store.split_table_path(name), split.table)


@dataclass(frozen=True)
class Listed:
    """Training photographs, decoded by processes of their own when they are needed.

    Attributes:
        table: one row an image, with its `id` and its `path` below `folder`.
        folder: where the files lie.
        resize: what the shorter side becomes, in pixels.
        size: side of the random crop, in pixels.
    """

    table: pd.DataFrame
    folder: Path
    resize: int
    size: int

    def __len__(self) -> int:
        """The number of images."""
        return len(self.table)

    def stream(self, batches: Iterable[Batch], seed: int) -> Iterator[Tensor]:
        """The images of each batch, uint8, cropped and flipped anew in every epoch."""
        ids = self.table["id"].to_numpy()
        paths = self.table["path"].to_numpy()
        files: Iterator[list[File]] = (
            [(self.folder / paths[i], seed_of(seed, "crop", epoch, ids[i])) for i in indices]
            for epoch, indices in batches
        )
        yield from decoded(files, self.resize, self.size)


def root() -> Path:
    """The folder of the photographs, which is the environment's, not the profile's.

    Raises:
        ValueError: none is given, or it does not exist.
    """
    folder = os.environ.get(ROOT)
    if folder is None:
        raise ValueError(f"{ROOT} is not set: expected the folder of ImageNet, see make imagenet")
    if not Path(folder).is_dir():
        raise ValueError(f"{ROOT} is {folder}: expected an existing folder")
    return Path(folder)


def write_listed(table: pd.DataFrame, resize: int, size: int) -> None:
    """Write the training split of photographs."""
    with store.replacing(store.split_path("train")) as beside:
        save_file({"resize": torch.tensor(resize), "size": torch.tensor(size)}, beside)
    store.write_csv(store.split_table_path("train"), table)


def read_training() -> Split | Listed:
    """Read the training split.

    Raises:
        ValueError: see `read_split` and `root`.
    """
    tensors, table = _read("train")
    if "resize" in tensors:
        return Listed(table, root(), int(tensors["resize"]), int(tensors["size"]))
    return _split("train", tensors, table)


def read_split(name: str) -> Split:
    """Read a split.

    Raises:
        ValueError: a file is missing or damaged, or the two do not belong together.
    """
    return _split(name, *_read(name))


def _read(name: str) -> tuple[dict[str, Tensor], pd.DataFrame]:
    path = store.split_path(name)
    try:
        return load_file(path), pd.read_csv(store.split_table_path(name), dtype={"id": str})
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"cannot read {path}: {error}; run `dvc repro` to make it") from error


def _split(name: str, tensors: dict[str, Tensor], table: pd.DataFrame) -> Split:
    path, table_path = store.split_path(name), store.split_table_path(name)
    if len(table) != len(tensors["pixels"]):
        raise ValueError(
            f"{table_path} has {len(table)} rows, {path} {len(tensors['pixels'])} images: expected "
            "as many; remove both and run `dvc repro` to make them"
        )
    return Split(table=table, **tensors)
