"""Maps that somebody else made, from a file of theirs."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MAPS, IDS = "maps", "ids"
"""The arrays of an .npz file."""

NPY = b"\x93NUMPY"
"""How an .npy file begins."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".pdf", ".svg")


def read_given_maps(path: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    """Maps (N, h, w) of images, in their order.

    The file is .npy, .npz (`maps`, and if it has `ids` these say which image each map is of) or
    .pt (one tensor); of any float type. Objects are never unpickled. What the values are is not
    looked at, see engine.scoring.refuse_bad_maps.

    Args:
        path: of the file.
        ids: of the images.

    Raises:
        ValueError: no such file, another kind of file, or maps of other images.
    """
    if not path.is_file():
        raise ValueError(f"{path} not found: expected maps as .npy, .npz or .pt")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: expected maps as .npy, .npz or .pt")
    readers = {".npy": read_npy, ".npz": read_npz, ".pt": read_pt, ".pth": read_pt}
    ending = path.suffix.lower()
    if ending not in readers:
        what = "a picture" if ending in PICTURES else f"a {path.suffix or 'bare'} file"
        raise ValueError(
            f"{path} is {what}: expected the maps themselves, (N, h, w) in [0, 1], as .npy, .npz "
            "or .pt"
        )
    try:
        maps, given = readers[ending](path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"cannot read {path}: it holds more than one tensor, which could run code; save the "
            "tensor alone"
        ) from error
    except Exception as error:  # whatever a damaged file does to its reader
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"cannot read {path} as {path.suffix}, is it whole and of that kind? ({said})"
        ) from error
    if maps.dtype.kind != "f":
        raise ValueError(f"{path} holds {maps.dtype}: expected floats in [0, 1]")
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"{path} has shape {maps.shape}: expected ({len(ids)}, h, w)")
    return in_order(maps, given, ids, path).astype(np.float32)


def read_npy(path: Path) -> tuple[NDArray[Any], list[str] | None]:
    """An array; its images are not named."""
    if path.open("rb").read(len(NPY)) != NPY and not zipfile.is_zipfile(path):
        raise ValueError("it does not begin as such files do")
    found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise ValueError("it holds several arrays: expected one, or call it .npz")
    return found, None


def read_npz(path: Path) -> tuple[NDArray[Any], list[str] | None]:
    """The arrays of maps and ids."""
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        raise ValueError("it holds one array: expected several, or call it .npy")
    with found as file:
        if MAPS not in file:
            raise ValueError(f"it has {', '.join(file) or 'no arrays'}: expected `{MAPS}`")
        ids = file[IDS].astype(str) if IDS in file else None
        if ids is not None and ids.ndim != 1:
            raise ValueError(f"its `{IDS}` have shape {ids.shape}: expected (N,)")
        return file[MAPS], None if ids is None else ids.tolist()


def read_pt(path: Path) -> tuple[NDArray[Any], list[str] | None]:
    """A tensor; its images are not named."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, torch.Tensor):
        raise ValueError(f"it holds a {type(found).__name__}: expected one tensor")
    own = found.detach()
    known = (torch.float16, torch.float32, torch.float64)
    return (
        own.float() if own.is_floating_point() and own.dtype not in known else own
    ).numpy(), None


def in_order(
    maps: NDArray[Any], given: list[str] | None, ids: Sequence[str], path: Path
) -> NDArray[Any]:
    """Maps in the order of the images `ids`, of which `given` says the images they are of.

    Raises:
        ValueError: an image without a map, or with two.
    """
    if given is None:
        return maps
    if len(given) != len(maps):
        raise ValueError(f"{path} has {len(given)} ids of {len(maps)} maps: expected as many")
    places = {name: place for place, name in enumerate(given)}
    if len(places) < len(given):
        twice = next(name for place, name in enumerate(given) if places[name] != place)
        raise ValueError(f"{path} has {twice} twice: expected one map an image")
    missing = [name for name in ids if name not in places]
    if missing:
        raise ValueError(
            f"{path} has no map of {len(missing)} of {len(ids)} images, the first is {missing[0]}: "
            "expected the ids of results/splits/evaluation.csv"
        )
    return maps[[places[name] for name in ids]]
