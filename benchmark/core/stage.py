"""One way to run a stage: arguments, memory allocator, and errors in one line."""

import argparse
import ctypes
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from benchmark.core import processes
from benchmark.core.params import load

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def run(stage: Callable[..., None], *arguments: str) -> None:
    """Call `stage` with the parameters and the command line's arguments of these names.

    A name that starts with `--` is a switch.

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
        if argument.startswith("--"):
            parser.add_argument(argument, action="store_true")
        else:
            parser.add_argument(argument)
    values = vars(parser.parse_args())
    keep_freed_memory()
    try:
        stage(load(), **values)
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


def announce_training(name: str, why: Sequence[str], seconds: float) -> None:
    """Say what is going to be trained, why, and how long that takes on this device."""
    if processes.first():
        takes = timedelta(seconds=round(seconds))
        print(f"training {name} ({', '.join(why)}) takes about {takes}", file=sys.stderr)
