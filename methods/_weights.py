"""From a file to the weights of a network, whoever wrote it; or why they are none."""

import pickle
import re
import sys
from collections import Counter
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
    if path.stat().st_size == 0:
        raise ValueError(
            f"cannot read the weights file {path} (it is empty): expected a whole file, fetch it "
            "again"
        )
    if path.suffix != ".safetensors" and not path.open("rb").read(2).startswith(SAVED):
        raise ValueError(
            f"weights file {path} begins with {start[:8]!r}: expected what torch.save writes"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = dict(flatten(torch.load(path, map_location="cpu", weights_only=True)))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights file {path} holds more than tensors and plain values, which could run code: "
            "expected one that torch.load reads with weights_only=True, save its state_dict alone"
        ) from error
    except Exception as error:  # whatever a damaged file does to its reader
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"cannot read the weights file {path} ({said}): expected a whole file, fetch it again"
        ) from error
    if not found:
        raise ValueError(f"weights file {path} holds no tensors by name: expected a state_dict")
    return found


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

    Names of other publishers become the network's by timm's own function, where it has one.

    Args:
        network: takes them.
        state: by name.
        source: what messages call it.
        key: see `load_weights`.

    Raises:
        ValueError: none or several of the sets of names fit, or a tensor holds NaN.
    """
    state = {DENSE_LAYER.sub(r"\1\2.", name): tensor for name, tensor in state.items()}
    whole = whole_sets(network, state)
    if not whole and key is None and (renamed := renamed_by_timm(network, state)):
        state, whole = renamed, [""]
    if key is not None:
        start = key if not key or key.endswith(".") else f"{key}."
        if start not in whole:
            known = ", ".join(map(repr, whole)) or "none"
            raise ValueError(
                f"{source} have no set under weights_key {key!r} that fits: expected one of {known}"
            )
        whole, others = [start], [own for own in whole if own != start]
        state = {n: t for n, t in state.items() if not n.startswith(tuple(filter(None, others)))}
    if len(whole) > 1:
        raise ValueError(
            f"{source} are {len(whole)} sets, under {', '.join(repr(s) for s in whole)}: expected "
            "one, choose it by weights_key"
        )
    start = whole[0] if whole else nearest_start(network, state)
    given = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
    refuse_misfit(network, given, source)
    own = network.state_dict().keys()
    network.load_state_dict({n: t for n, t in given.items() if n in own}, strict=False)


def needed_names(network: nn.Module) -> list[str]:
    """The tensors that a file of weights has to have."""
    return [name for name in network.state_dict() if not name.endswith(COUNTER)]


def whole_sets(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """What stands in front of the names of each set that has every tensor of a network."""
    needed = needed_names(network)
    if not needed:
        return [""]
    starts = [n.removesuffix(needed[-1]) for n in state if f".{n}".endswith(f".{needed[-1]}")]
    return [s for s in starts if all(s + name in state for name in needed)]


def nearest_start(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What stands in front of most names of a network where no set is whole, for messages."""
    starts = Counter(
        name.removesuffix(own)
        for own in needed_names(network)
        for name in state
        if f".{name}".endswith(f".{own}")
    )
    return max(starts, key=lambda start: starts[start], default="")


def renamed_by_timm(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors by the names that timm gives those of other publishers, if one set gets whole.

    Older files of its own count as such.
    """
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return None
    found = []
    entries = dict.fromkeys(f"{name.partition('.')[0]}." for name in state)
    for start in ("", *entries, *(f"{entry}module." for entry in entries)):
        own = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
        try:
            renamed = dict(rename(own, network)) if own else {}
        except Exception:  # names that it does not know
            continue
        if whole_sets(network, renamed) == [""]:
            found.append(renamed)
    return found[0] if len(found) == 1 else None


def refuse_misfit(network: nn.Module, given: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not those of a network; counters and what modules keep beside may be.

    Raises:
        ValueError: names the first tensor that is missing, has another shape, is of no module of
            the network, or is not finite.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    modules = dict(network.named_modules())
    for name in sorted(own.keys() | given.keys()):
        if name not in given and name.endswith(COUNTER):
            continue
        module, _, tensor = name.rpartition(".")
        if name not in own and module in modules and tensor not in ("weight", "bias"):
            continue  # tables and counters of other versions
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
