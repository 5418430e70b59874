"""A split: images with ids, labels and object masks."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark import store


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

    def first(self, count: int) -> "Split":
        """The first `count` images, or all if there are fewer."""
        return Split(
            self.table.iloc[:count],
            self.pixels[:count],
            self.objects[:count],
            self.labels[:count],
        )

    def images(self, indices: slice | Tensor) -> Tensor:
        """Some of the images, float32 in [0, 1]."""
        return as_pixels(self.pixels[indices])

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


def read_split(name: str) -> Split:
    """Read a split.

    Raises:
        ValueError: a file is missing or damaged, or the two do not belong together.
    """
    path, table_path = store.split_path(name), store.split_table_path(name)
    try:
        tensors = load_file(path)
        table = pd.read_csv(table_path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"cannot read {path}: {error}; run `dvc repro subset` to make it"
        ) from error
    if len(table) != len(tensors["pixels"]):
        raise ValueError(
            f"{table_path} has {len(table)} rows, {path} {len(tensors['pixels'])} images: expected "
            "as many; run `dvc repro --force subset` to make both"
        )
    return Split(table=table, **tensors)
