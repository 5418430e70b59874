"""Photographs of ImageNet's classes: the held-out ones decoded, those for training listed."""

import hashlib
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from benchmark.data.decoding import Crop, File, decoded
from benchmark.data.splits import Listed, Place, Split, blank, root

BATCH = 64
"""Photographs a decoding process hands over at a time."""

HELD_OUT = ("validation", "evaluation")


def make_splits(folder: Path, crop: Crop, place: Place = blank) -> dict[str, Split | Listed]:
    """The three splits of the photographs that were listed.

    Args:
        folder: of the lists.
        crop: how they become images.
        place: where the held-out ones are put.

    Raises:
        ValueError: a list or a photograph is missing, or a photograph is another one.
    """
    tables = {name: read_index(folder, name) for name in ("train", *HELD_OUT)}
    for name in HELD_OUT:
        refuse_changed(tables[name])
    held = {name: split_of(tables[name], name, crop, place) for name in HELD_OUT}
    return {"train": Listed(tables["train"], root(), crop), **held}


def read_index(folder: Path, name: str) -> pd.DataFrame:
    """A list of photographs, as `index` and `new` write them.

    Raises:
        ValueError: missing.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"{path} not found: run `python -m benchmark index FOLDER` to write it")
    return pd.read_csv(path, dtype={"id": str})


def refuse_changed(table: pd.DataFrame) -> None:
    """Refuse photographs that are missing or not as they were listed.

    Raises:
        ValueError: names the first.
    """
    for path, expected in zip(table["path"], table["sha256"], strict=True):
        file = root() / path
        if not file.is_file():
            raise ValueError(f"photograph {file} not found: expected it where it was listed")
        if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise ValueError(f"photograph {file} has changed: list them again")


def split_of(table: pd.DataFrame, name: str, crop: Crop, place: Place) -> Split:
    """The centre crops of the photographs; no pixel is known to be the object's."""
    tensors = place(name, len(table), crop.size)
    tensors["labels"][:] = torch.from_numpy(table["class_index"].to_numpy("int64"))
    files: list[File] = [(root() / path, None) for path in table["path"]]
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    starts = range(0, len(files), BATCH)
    with tqdm(total=len(files), desc=name, unit="image", disable=None) as progress:
        for start, part in zip(starts, decoded(batches, crop), strict=True):
            tensors["pixels"][start : start + len(part)] = part
            progress.update(len(part))
    return Split(table=table, **tensors)
