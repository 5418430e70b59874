"""What was found out about files, kept until their size or time of change is another."""

import atexit
import json
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import file_digest, sha256
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from benchmark.core.results import write_text

MEMORY = Path("work") / "memory.json"

ROWS_AT_A_TIME = 64
"""Rows of a file that are in memory at once while it is digested."""

MOST_HEADER = 100_000_000
"""Bytes of a safetensors header at most, as the format has it."""

Found = TypeVar("Found")


def remembered(what: str, path: Path, find: Callable[[], Found]) -> Found:
    """What `find` finds out about a file or folder, from memory if it has not changed."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    key = f"{what} {path.absolute()}"
    known = read_memory()
    if key not in known or known[key][0] != stamp:
        known[key] = [stamp, find()]
        known["changed"] = True
    found: Found = known[key][1]
    return found


def digest_file(path: Path) -> str:
    """The first 16 digits of a file's SHA-256; of tensors (safetensors) without their metadata."""

    def read() -> str:
        with path.open("rb") as file:
            return read_digest(file, tensors=path.suffix == ".safetensors")

    return remembered("file", path, read)


def digest_rows(path: Path, count: int) -> str:
    """The digest of the first `count` rows of a table (.csv), array (.npy) or of every tensor."""

    def read() -> str:
        found = sha256()
        for part in first_rows(path, count):
            found.update(part)
        return found.hexdigest()[:16]

    return remembered(f"first {count} of", path, read)


def first_rows(path: Path, count: int) -> Iterator[bytes]:
    """What the first `count` rows of a file are; all of it, where it cannot be read."""
    if path.suffix == ".csv":
        with path.open("rb") as file:
            yield from islice(file, count + 1)
        return
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".npy":
            yield from bytes_of("", np.load(path, mmap_mode="r", allow_pickle=False), count)
        else:
            with safe_open(path, framework="numpy") as file:
                for name in sorted(file.keys()):
                    yield from bytes_of(name, file.get_slice(name), count)
    except (ValueError, EOFError, SafetensorError):
        yield path.read_bytes()  # torn: what it holds is no result of a record


def bytes_of(name: str, rows: Any, count: int) -> Iterator[bytes]:
    """Name, type, shape and values of the first `count` rows of an array that lies in a file."""
    first = rows[:1]
    length = rows.shape[0] if hasattr(rows, "shape") else rows.get_shape()[0]
    end = min(count, length)
    yield f"{name} {first.dtype} {(end, *first.shape[1:])}".encode()
    for start in range(0, end, ROWS_AT_A_TIME):
        yield rows[start : min(start + ROWS_AT_A_TIME, end)].tobytes()


def read_digest(file: BufferedReader, *, tensors: bool) -> str:
    """See `digest_file`; tensors whose header cannot be read are digested as they are."""
    header = b""
    if tensors:
        length = min(int.from_bytes(file.read(8), "little"), MOST_HEADER)
        try:
            named = json.loads(file.read(length))
            named.pop("__metadata__", None)
            header = json.dumps(named, sort_keys=True).encode()
        except (ValueError, AttributeError):
            file.seek(0)  # torn: what it holds is no result of a record
    found = file_digest(file, "sha256")
    found.update(header)
    return found.hexdigest()[:16]


@cache
def read_memory() -> dict[str, Any]:
    """All that is remembered; what changes is written when Python ends."""
    try:
        known: dict[str, Any] = json.loads(MEMORY.read_text())
    except (OSError, ValueError):
        known = {}
    known.pop("changed", None)
    folder = Path.cwd()
    atexit.register(lambda: write_memory(folder / MEMORY, known))
    return known


def write_memory(path: Path, known: dict[str, Any]) -> None:
    """Write what is remembered, if there is anything new."""
    if known.pop("changed", False):
        write_text(path, json.dumps(known))
