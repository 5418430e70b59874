"""One way to run a stage: arguments, memory allocator, and errors in one line."""

import argparse
import ctypes
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmark.core import processes
from benchmark.core.params import load

LOGS = Path("work/logs")
"""Tracebacks of what nobody foresaw."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def run(stage: Callable[..., None], *arguments: str) -> None:
    """Call `stage` with the parameters and the command line's arguments of these names.

    A name that starts with `--` is a switch.

    Of several processes the first does it all. Exits with 1 after one line on stderr if the stage
    refuses its input, or fails; then a log has the traceback.
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
    command = name.replace("benchmark.commands.", "benchmark.").replace(".", " ", 1)
    parser = argparse.ArgumentParser(
        prog=f"python -m {command}",
        description=module.__doc__,
        epilog=inspect.getdoc(stage),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    except Exception as error:
        log = write_log(name)
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        where = place_of(error)
        sys.exit(
            f"{name.rpartition('.')[2]}: {said} (in {where}); what was finished is kept: mend what "
            f"it names and run the same command again, or report it with {log}"
        )


def write_log(name: str) -> Path:
    """Write the traceback of the exception in hand to a file of its own."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = LOGS / f"{name.rpartition('.')[2]}-{stamp}-{os.getpid()}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc())
    return path


def place_of(error: Exception) -> str:
    """File and line of the innermost code that is no installed library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"


def keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back: on a CPU a forward pass takes a third of the time.

    Other C libraries have no `mallopt` and are left as they are.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def say(text: str) -> None:
    """Print a line beside the progress bars, once for all processes."""
    if processes.first():
        print(text, file=sys.stderr)


def announce_training(name: str, why: Sequence[str], seconds: float) -> None:
    """Say what is going to be trained, why, and how long that takes on this device."""
    takes = timedelta(seconds=round(seconds))
    say(f"training {name} ({', '.join(why)}) takes about {takes}")
