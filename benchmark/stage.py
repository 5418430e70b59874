"""One way to run a stage: arguments, memory allocator, and errors in one line."""

import argparse
import ctypes
import hashlib
import sys
from collections.abc import Callable
from typing import Any

from benchmark import processes
from benchmark.params import load

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def run(stage: Callable[..., None], *arguments: str) -> None:
    """Call `stage(params, *arguments)` with the command line's arguments of these names.

    Of several processes the first does it all. Exits with 1 after one line on stderr if the stage
    refuses its input.
    """
    if processes.first():
        call(stage, arguments)


def run_shared(stage: Callable[..., None], *arguments: str) -> None:
    """`run` for a stage whose work several processes share."""
    with processes.joined():
        call(stage, arguments)


def call(stage: Callable[..., None], arguments: tuple[str, ...]) -> None:
    """See `run`."""
    module = sys.modules[stage.__module__]
    spec = getattr(module, "__spec__", None)
    name = spec.name if spec is not None else stage.__module__
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=module.__doc__)
    for argument in arguments:
        parser.add_argument(argument)
    values = vars(parser.parse_args())
    keep_freed_memory()
    try:
        stage(load(), *(values[argument] for argument in arguments))
    except (ValueError, OSError) as error:
        sys.exit(f"{name.rpartition('.')[2]}: {' '.join(str(error).split())}")


def keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back: on a CPU a forward pass takes a third of the time.

    Other C libraries have no `mallopt` and are left as they are.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from any parts with a stable `repr`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
