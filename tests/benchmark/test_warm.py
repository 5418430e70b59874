"""`python -m benchmark.warm MODULE` is `python -m MODULE`, in a process that is warm."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")

STAGE = """
import os, sys, time
print("arguments", sys.argv[1:], "in", os.getcwd(), "with", os.environ.get("GIVEN"))
print("server", os.environ.get("INHERITED"), file=sys.stderr)
word = sys.argv[1] if len(sys.argv) > 1 else "0"
if word == "raise":
    raise ValueError("broken")
if word == "pid":
    print("parent", os.getppid(), "json" in sys.modules)
elif word == "echo":
    print(sys.stdin.read())
elif word == "sleep":
    open("pid", "w").write(str(os.getpid()))
    time.sleep(60)
else:
    sys.exit(int(word) if word.isdigit() else word)
"""


class Runner:
    """Runs modules of a folder, as `python -m` and warm."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "BENCHMARK_WARM_PRELOAD": "json missing_library",
            "BENCHMARK_WARM_IDLE": "0.5",
            **environment,
        }
        (folder / "stage.py").write_text(STAGE)

    def command(self, *arguments: str, warm: bool = True) -> list[str]:
        return [sys.executable, "-m", *(["benchmark.warm"] if warm else []), "stage", *arguments]

    def run(self, *arguments: str, warm: bool = True, **options: Any) -> tuple[int, str, str]:
        done = subprocess.run(
            self.command(*arguments, warm=warm),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        return done.returncode, done.stdout, done.stderr

    def sockets(self) -> list[Path]:
        return list((self.folder / "work").glob("*.sock"))

    def wait(self, condition: Any) -> None:
        for _ in range(200):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError("waited ten seconds")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path)
    yield made
    made.wait(lambda: not made.sockets())  # the server ends by itself, and removes its socket


@pytest.mark.parametrize("word", ["0", "3", "a sentence"])
def test_same_output_and_exit_code(word: str, runner: Runner) -> None:
    assert runner.run(word, "more") == runner.run(word, "more", warm=False)


def test_an_exception_has_its_traceback(runner: Runner) -> None:
    code, _, error = runner.run("raise")
    assert code == 1
    assert error.endswith("ValueError: broken\n")
    assert "stage.py" in error


def test_input_and_environment_arrive(runner: Runner) -> None:
    runner.environment["GIVEN"] = "first"
    assert "with first" in runner.run("0")[1]
    runner.environment["GIVEN"] = "second"
    code, output, _ = runner.run("echo", input="spoken")
    assert (code, "with second" in output, "spoken" in output) == (0, True, True)
    assert len(runner.sockets()) == 1


def test_edited_code_is_read_anew(runner: Runner) -> None:
    assert "arguments" in runner.run("0")[1]
    (runner.folder / "stage.py").write_text("print('edited')")
    assert runner.run("0")[1] == "edited\n"


def test_libraries_are_loaded_once(runner: Runner) -> None:
    first, second = runner.run("pid")[1], runner.run("pid")[1]
    assert "True" in first
    assert "True" in second
    assert "False" in runner.run("pid", warm=False)[1]


def test_two_callers_at_once_share_a_server(runner: Runner) -> None:
    running = [
        subprocess.Popen(
            runner.command("0"), cwd=runner.folder, env=runner.environment, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert all(b"arguments" in output for output in outputs)
    assert [process.returncode for process in running] == [0] * 4
    assert len(runner.sockets()) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_caller_takes_its_process_along(number: int, runner: Runner) -> None:
    caller = subprocess.Popen(
        runner.command("sleep"),
        cwd=runner.folder,
        env=runner.environment,
        stderr=subprocess.DEVNULL,
    )
    pid = runner.folder / "pid"
    runner.wait(lambda: pid.exists() and pid.read_text())
    child = int(pid.read_text())
    caller.send_signal(number)
    caller.wait()
    runner.wait(lambda: not Path(f"/proc/{child}").exists())


def test_another_environment_has_another_server(runner: Runner) -> None:
    runner.run("0")
    runner.environment["OMP_NUM_THREADS"] = "7"
    runner.run("0")
    assert len(runner.sockets()) == 2


def test_without_a_server(tmp_path: Path) -> None:
    runner = Runner(tmp_path, BENCHMARK_WARM="0")
    assert runner.run("3", "x") == runner.run("3", "x", warm=False)
    assert not (tmp_path / "work").exists()


def test_where_no_server_can_be_had(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    (tmp_path / "work").write_text("a file, no folder")
    assert runner.run("3", "x") == runner.run("3", "x", warm=False)


def test_a_dead_socket_is_replaced(runner: Runner) -> None:
    runner.run("0")
    (old,) = runner.sockets()
    runner.wait(lambda: not runner.sockets())
    old.touch()
    assert runner.run("3")[0] == 3
