"""What was found out about files, kept until their size or time of change is another."""

import atexit
import json
from collections.abc import Callable
from functools import cache
from hashlib import file_digest
from pathlib import Path
from typing import Any, TypeVar

from benchmark.core.results import write_text

MEMORY = Path("work") / "memory.json"

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
            if path.suffix != ".safetensors":
                return file_digest(file, "sha256").hexdigest()[:16]
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            header.pop("__metadata__", None)
            found = file_digest(file, "sha256")  # of the rest
            found.update(json.dumps(header, sort_keys=True).encode())
            return found.hexdigest()[:16]

    try:
        return remembered("file", path, read)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it and run `dvc repro`") from error


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
