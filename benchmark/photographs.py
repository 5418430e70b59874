"""Decode the evaluation and validation photographs; list those for training."""

import hashlib

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from benchmark.decoding import File, decoded
from benchmark.images import Split, root, write_listed, write_split
from benchmark.index import DATA
from benchmark.params import Params, given
from benchmark.params import Photographs as Settings
from benchmark.stage import run

BATCH = 64
"""Photographs a decoding process hands over at a time."""


def main(params: Params) -> None:
    """Write the three splits of the photographs that benchmark.index has listed."""
    settings = given(params.photographs, "photographs")
    tables = {name: read_index(name) for name in ("train", "validation", "evaluation")}
    for name in ("validation", "evaluation"):
        refuse_changed(tables[name])
    splits = {name: split_of(tables[name], settings, name) for name in ("validation", "evaluation")}
    for name, split in splits.items():
        write_split(name, split)
    write_listed(tables["train"], settings.resize, settings.size)


def read_index(name: str) -> pd.DataFrame:
    """A list of benchmark.index.

    Raises:
        ValueError: missing.
    """
    path = DATA / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"{path} not found: run `python -m benchmark.index FOLDER` to write it")
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
            raise ValueError(f"photograph {file} has changed: list them again, see make imagenet")


def split_of(table: pd.DataFrame, settings: Settings, name: str) -> Split:
    """The centre crops of the photographs; no pixel is known to be the object's."""
    pixels = decode(table, settings, name)
    objects = torch.zeros(len(pixels), *pixels.shape[2:], dtype=torch.bool)
    return Split(table, pixels, objects, torch.tensor(table["class_index"].to_numpy()))


def decode(table: pd.DataFrame, settings: Settings, name: str) -> Tensor:
    """Centre crops, uint8 (N, 3, size, size)."""
    files: list[File] = [(root() / path, None) for path in table["path"]]
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with tqdm(total=len(files), desc=name, unit="image", disable=None) as progress:
        parts = []
        for part in decoded(batches, settings.resize, settings.size):
            parts.append(part)
            progress.update(len(part))
    return torch.cat(parts)


if __name__ == "__main__":
    run(main)
