"""From a file to the weights of a network, whoever wrote it; or why they are none."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""Of files of weights."""

COUNTER = "num_batches_tracked"
"""What a batch norm counts in training; older files lack it, and eval mode does not need it."""

NO_FILE = {
    b"version https://git-lfs": "a Git LFS pointer, not the file: fetch it with `git lfs pull`",
    b"<!doctype": "an HTML page: download the file itself",
    b"<html": "an HTML page: download the file itself",
}
"""How files begin that stand where a download should be, and what they are."""

SAVED = (b"PK", b"\x80")
"""How the files of torch.save begin: an archive, or in old ones a pickle."""

DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
"""Names in torchvision's oldest DenseNet files; the modules are called norm1, not norm.1."""


def load_weights(network: nn.Module, path: Path, name: str, key: str | None = None) -> None:
    """Load a file of weights into a network.

    Args:
        network: takes them.
        path: safetensors, or what torch.save wrote of tensors and plain values.
        name: of the backbone, for messages.
        key: which of several sets of weights: the start of its names, or the entry it is in.

    Raises:
        ValueError: the file cannot be read, holds several sets or none that fits, or NaN.
    """
    try:
        state = read_weights(path)
    except ValueError as error:
        raise ValueError(f"backbone {name!r}: {error}") from error
    adopt_weights(network, state, f"weights of backbone {name!r}", key)


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by their names; those of nested entries as `entry.name`.

    Raises:
        ValueError: it is missing, no file of weights, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise ValueError(f"weights file {path} not found")
    start = path.open("rb").read(32).lstrip().lower()
    for beginning, what in NO_FILE.items():
        if start.startswith(beginning):
            raise ValueError(f"weights file {path} is {what}")
    if path.suffix != ".safetensors" and start and not start.upper().startswith(SAVED):
        raise ValueError(
            f"weights file {path} begins with {start[:8]!r}: expected what torch.save writes"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return dict(flatten(torch.load(path, map_location="cpu", weights_only=True)))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights file {path} holds more than tensors and plain values, which could run code: "
            "expected one that torch.load reads with weights_only=True, save its state_dict alone"
        ) from error
    except (OSError, EOFError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"cannot read the weights file {path} ({' '.join(str(error).split())}): expected a "
            "whole file, fetch it again"
        ) from error


def flatten(saved: Any, start: str = "") -> list[tuple[str, Tensor]]:
    """The tensors of nested mappings, with the names that lead there, joined by dots."""
    if isinstance(saved, Tensor):
        return [(start.removesuffix("."), saved)]
    if not isinstance(saved, Mapping):
        return []
    return [pair for key, value in saved.items() for pair in flatten(value, f"{start}{key}.")]


def adopt_weights(
    network: nn.Module, state: Mapping[str, Tensor], source: str, key: str | None = None
) -> None:
    """Load tensors into a network, whatever stands in front of all their names.

    Args:
        network: takes them.
        state: by name.
        source: what messages call it.
        key: see `load_weights`.

    Raises:
        ValueError: none or several of the sets of names fit, or a tensor holds NaN.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    needed = [name for name in own if not name.endswith(COUNTER)]
    state = {DENSE_LAYER.sub(r"\1\2.", name): tensor for name, tensor in state.items()}
    last = needed[-1]
    starts = [name.removesuffix(last) for name in state if f".{name}".endswith(f".{last}")]
    whole = [s for s in starts if all(s + name in state for name in needed)]
    if key is not None:
        start = key if not key or key.endswith(".") else f"{key}."
        if start not in whole:
            known = ", ".join(map(repr, whole)) or "none"
            raise ValueError(
                f"{source} have no set under weights_key {key!r} that fits: expected one of {known}"
            )
        whole = [start]
    if len(whole) > 1:
        raise ValueError(
            f"{source} are {len(whole)} sets, under {', '.join(repr(s) for s in whole)}: expected "
            "one, choose it by weights_key"
        )
    start = whole[0] if whole else next(iter(starts), "")
    given = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
    chosen = len(whole) == 1 and (bool(start) or key is not None)
    parts = {name.partition(".")[0] for name in own}
    for name in sorted(own.keys() | given.keys()):
        beside = chosen and name not in own and name.partition(".")[0] not in parts
        if (name not in given and name.endswith(COUNTER)) or beside:
            continue  # another set of the file, or what was trained with the network
        found = tuple(given[name].shape) if name in given else "missing"
        expected = own.get(name, "none")
        if found != expected:
            raise ValueError(f"{source} do not fit: {name} is {found}, expected {expected}")
    for name in own.keys() & given.keys():
        if given[name].is_floating_point() and not bool(given[name].isfinite().all()):
            raise ValueError(
                f"{source} hold NaN or infinite values, in {name}: expected finite ones, the file "
                "is damaged or its training diverged"
            )
    network.load_state_dict({n: t for n, t in given.items() if n in own}, strict=False)
