"""Maps of other people: of any float type and in any order, or refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.data.given_maps import read_given_maps

IDS = ["a", "b", "c"]
VALUES = np.arange(12, dtype=np.float64).reshape(3, 2, 2) / 16
"""Exact in every float type."""


def npy(array: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "maps.npy", array)
        return folder / "maps.npy"

    return write


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "maps.npz", **arrays)
        return folder / "maps.npz"

    return write


def pt(value: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(value, folder / "maps.pt")
        return folder / "maps.pt"

    return write


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def renamed(write: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    return lambda folder: write(folder).rename(folder / name)


TENSOR = torch.from_numpy(VALUES)


@pytest.mark.parametrize(
    "write",
    [
        *(npy(VALUES.astype(kind)) for kind in (np.float16, np.float32, np.float64, ">f4")),
        npz(maps=VALUES),
        npz(maps=VALUES, ids=IDS),
        npz(maps=VALUES[[2, 0, 1]], ids=["c", "a", "b"]),
        npz(maps=VALUES, ids=np.array(IDS, dtype="S")),
        npz(maps=VALUES[[2, 0, 1, 1]], ids=["c", "a", "b", "more"]),
        *(pt(TENSOR.to(kind)) for kind in (torch.float16, torch.bfloat16, torch.float64)),
        pt(TENSOR.requires_grad_()),
    ],
)
def test_maps_are_read(write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = read_given_maps(write(tmp_path), IDS)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert np.array_equal(found, VALUES)


class Harmful:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (raw("maps.npy", b""), "is empty"),
        (raw("maps.npy", b"no array"), "cannot read"),
        (raw("maps.npz", b"no zip"), "cannot read"),
        (raw("maps.pt", b"no tensor"), "cannot read"),
        (raw("maps.png", b"PNG"), "is a picture: expected the maps themselves"),
        (raw("maps.csv", b"1,2"), "is a .csv file: expected the maps themselves"),
        (npy(np.array([Harmful()], dtype=object)), "cannot read"),
        (pt(Harmful()), "cannot read"),
        (pt(Harmful()), "it holds more than one tensor, which could run code; save the tensor"),
        (pt(TENSOR.to_sparse()), "cannot read"),
        (pt(TENSOR.to(torch.float8_e4m3fn)), "cannot read"),
        (renamed(npz(maps=VALUES), "maps.npy"), "it holds several arrays: expected one"),
        (renamed(npy(VALUES), "maps.npz"), "it holds one array: expected several"),
        (npy(VALUES[:, :0]), r"has shape \(3, 0, 2\): expected"),
        (pt([TENSOR]), "it holds a list: expected one tensor"),
        (npy(VALUES.astype(np.uint8)), "holds uint8: expected floats"),
        (npy(VALUES[0]), r"has shape \(2, 2\): expected \(3, h, w\)"),
        (npz(other=VALUES), "it has other: expected `maps`"),
        (npz(maps=VALUES, ids=["a", "b"]), "has 2 ids of 3 maps"),
        (npz(maps=VALUES, ids=[["a"], ["b"], ["c"]]), r"its `ids` have shape \(3, 1\): expected"),
        (npz(maps=VALUES, ids=["a", "b", "b"]), "has b twice"),
        (npz(maps=VALUES, ids=["a", "b", "d"]), "has no map of 1 of 3 images, the first is c"),
        (lambda folder: folder / "nowhere.npy", "not found"),
    ],
)
def test_what_holds_no_maps_is_refused(
    write: Callable[[Path], Path],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read_given_maps(write(tmp_path), IDS)
    assert "\n" not in str(refused.value)
    assert "harm" not in capsys.readouterr().out
