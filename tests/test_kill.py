"""Killed at random moments, the pipeline ends with the bytes of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_pipeline import CNN, files_of, small

ROOT = Path(__file__).parents[1]
TIMED = ("results/runtime/", "results/plots/", "results/index.html")
"""What depends on timings."""


def tiny() -> dict[str, Any]:
    """The smallest pipeline with everything that can be torn: training, maps, scores, a study."""
    raw = small()
    raw["backbones"] = {CNN: raw["backbones"][CNN]}
    raw["runtime"] = {"batch": 1, "rounds": 1, "seconds": 0, "warmup": 1}
    return raw


def prepare(folder: Path) -> None:
    """A pipeline as DVC runs it, outside of git."""
    folder.mkdir()
    (folder / ".dvc").mkdir()
    config = (ROOT / ".dvc" / "config").read_text()
    (folder / ".dvc" / "config").write_text(f"{config}    no_scm = true\n")
    (folder / "data").symlink_to(ROOT / "data")
    for name in ("dvc.yaml", ".dvcignore"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny(), sort_keys=False))


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """`dvc repro`, in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--quiet"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stage_of(process: "subprocess.Popen[bytes]") -> int | None:
    """The process of the stage that DVC runs at the moment."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--sid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    stages = [line.split() for line in listed.stdout.splitlines() if "-m benchmark." in line]
    return int(stages[-1][0]) if stages else None


@pytest.mark.slow
@pytest.mark.skipif("BENCHMARK_KILL" not in os.environ, reason="ten minutes: make kill")
def test_twenty_kills_change_no_byte(tmp_path: Path) -> None:
    """Ten times the stage, ten times DVC as well."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    prepare(whole)
    began = time.monotonic()
    assert start(whole).wait() == 0
    seconds = time.monotonic() - began
    prepare(torn)
    chance = random.Random(0)
    for number in range(20):
        process = start(torn)
        time.sleep(chance.uniform(3, max(6, seconds / 6)))
        stage = stage_of(process)
        if number % 2 and stage is not None:
            os.kill(stage, signal.SIGKILL)
            process.wait()
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert start(torn).wait() == 0
    found, expected = files_of(torn), files_of(whole)
    stable = [p for p in expected if not str(p).startswith(TIMED)]
    assert found.keys() == expected.keys()
    assert [p for p in stable if found[p][1] != expected[p][1]] == []


def test_a_torn_lock_is_named_with_what_restores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark import check

    monkeypatch.chdir(tmp_path)
    check.refuse_torn_lock()
    whole = "schema: '2.0'\nstages:\n  check:\n    cmd: python -m benchmark.check\n"
    (tmp_path / "dvc.lock").write_text(whole)
    check.refuse_torn_lock()
    for torn in (whole[:-1] + "\n  - [", "schema", ""):
        (tmp_path / "dvc.lock").write_text(torn)
        with pytest.raises(ValueError, match=r"dvc.lock is damaged.*`git checkout dvc.lock`"):
            check.refuse_torn_lock()
