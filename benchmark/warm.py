"""Run a module like `python -m`, in a process that has loaded its libraries already.

`python -m benchmark.warm benchmark.explain KEY` is `python -m benchmark.explain KEY`, without the
four seconds that importing torch, timm and pandas takes. That matters to the sample, whose stages
are many and short. The first call starts a server that imports libraries, but nothing of this
repository, and forks a process for each call; it ends by itself. With `launch: python -m` in
params.yaml, or BENCHMARK_WARM=0 in the environment, it is not used.
"""

import atexit
import contextlib
import fcntl
import gc
import hashlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Never

PRELOAD = (
    "torch numpy pandas pydantic yaml numba scipy.stats safetensors.torch tqdm timm captum.attr "
    "torchvision.models skimage.metrics skimage.segmentation"
)
"""Libraries the server imports; BENCHMARK_WARM_PRELOAD names others."""

IDLE = 20.0
"""Seconds without a call after which the server ends; BENCHMARK_WARM_IDLE names others."""

KILL_AFTER = 5.0
"""Seconds between SIGTERM and SIGKILL for what a vanished caller left running."""

SEEN_BY_LIBRARIES = (
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMBA_", "CUDA_", "MALLOC_", "LD_"),
    *("PYTHON", "TORCH", "BENCHMARK_WARM"),
)
"""Environment variables that libraries read when they are loaded: other values, other server."""

STARTED = b"s"


@dataclass(frozen=True)
class Call:
    """What a caller asks for."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]


def main() -> None:
    """Run the module of the command line, or serve."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--help":
        sys.exit("usage: python -m benchmark.warm MODULE [ARGUMENT ...]")
    if name == "--serve":
        call = serve(socket.socket(fileno=int(arguments[0])), Path(arguments[1]))
        if call is not None:
            finish(call)
    else:
        call = Call(name, arguments, str(Path.cwd()), dict(os.environ))
        code = None if os.environ.get("BENCHMARK_WARM") == "0" else ask(call)
        if code is not None:
            sys.exit(code)
        execute(call)


def finish(call: Call) -> Never:
    """Run a call and leave the forked process, without the seconds it takes to unload libraries."""
    code: object = 1
    try:
        execute(call)
        code = 0
    except SystemExit as leaving:
        code = 0 if leaving.code is None else leaving.code
    except BaseException as error:
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        traceback.print_exc()
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def execute(call: Call) -> None:
    """Run the module as `python -m` does."""
    sys.argv = [call.module, *call.arguments]
    sys.path[0] = call.folder
    runpy.run_module(call.module, run_name="__main__", alter_sys=True)


def ask(call: Call) -> int | None:
    """Let the server run a call; its exit code, or None if it could not be started there."""
    try:
        connection = connected(socket_path())
        socket.send_fds(connection, [STARTED], [0, 1, 2])
        connection.sendall(json.dumps(asdict(call)).encode() + b"\n")
        if connection.recv(1) != STARTED:
            return None
    except (OSError, AttributeError):
        return None
    answer = connection.makefile().readline()
    return int(answer) if answer else 1


def socket_path() -> Path:
    """Where the server of this environment listens; relative, as such paths must be short."""
    settings = {k: v for k, v in os.environ.items() if k.startswith(SEEN_BY_LIBRARIES)}
    packages = [p for p in sys.path if p.endswith("-packages")]
    changed = [Path(p).stat().st_mtime_ns for p in packages if Path(p).is_dir()]
    parts = [sys.executable, sys.version, packages, changed, sorted(settings.items())]
    return Path("work") / f"warm-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}.sock"


def connected(path: Path) -> socket.socket:
    """A connection to the server at `path`, which is started if there is none."""
    path.parent.mkdir(exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
            subprocess.Popen(
                [sys.executable, "-m", "benchmark.warm", "--serve", str(listener.fileno()), path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
            connection.connect(str(path))
    return connection


def serve(listener: socket.socket, path: Path) -> Call | None:
    """Fork for every caller, until none is left and none came for a while.

    Returns:
        None in the server, when it is done; in a forked process the call it is for.
    """
    for name in os.environ.get("BENCHMARK_WARM_PRELOAD", PRELOAD).split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    idle = float(os.environ.get("BENCHMARK_WARM_IDLE", IDLE))
    children: set[int] = set()
    while True:
        came, _, _ = select.select([listener], [], [], idle)
        children -= {child for child in children if os.waitpid(child, os.WNOHANG)[0]}
        if came:
            connection, _ = listener.accept()
            child = os.fork()
            if child == 0:
                listener.close()
                return attend(connection)
            children.add(child)
            connection.close()
        elif not children:
            path.unlink(missing_ok=True)
            return None


def attend(connection: socket.socket) -> Call | None:
    """Fork the process that a caller asks for, and see it end before its caller does.

    Returns:
        The call, in the forked process. The one that watches it does not return.
    """
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    call = Call(**json.loads(connection.makefile().readline()))
    child = os.fork()
    if child == 0:
        connection.close()
        os.setsid()
        for descriptor, standard in zip(descriptors, (0, 1, 2), strict=True):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        sys.stdin = os.fdopen(0)
        sys.stdout = os.fdopen(1, "w", buffering=1 if os.isatty(1) else -1)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        os.chdir(call.folder)
        os.environ.clear()
        os.environ.update(call.environment)
        return call
    connection.send(STARTED)
    ended = os.pidfd_open(child)
    watched = [connection.fileno(), ended]
    if ended not in select.select(watched, [], [])[0]:  # the caller is gone
        stop(child, ended)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.send(f"{code if code >= 0 else 128 - code}\n".encode())
    os._exit(0)


def stop(child: int, ended: int) -> None:
    """End a process and those it has started, at first politely."""
    for number, patience in ((signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, number)
        if select.select([ended], [], [], patience)[0]:
            return


if __name__ == "__main__":
    main()
