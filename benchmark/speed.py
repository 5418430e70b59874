"""Compare with other libraries in one run on this machine, and profile evaluate."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmark import store
from benchmark.params import Params
from benchmark.stage import run

BENCHMARKS = "tests/benchmarks/test_speed.py"
PROFILE = "tests/benchmarks/profile_evaluate.py"
CELL = "efficientnet_lite0-gradcam"
"""The cell whose evaluation is profiled."""

PACKAGES = ("torch", "timm", "grad-cam", "numba", "scipy")
SPEED = store.RESULTS / "speed"


def main(_params: Params) -> None:
    """Write results/speed/: the figures as JSON, the tables of the README as Markdown."""
    profiled = profile()
    compared = compare()
    machine = {
        "processor": compared["machine_info"]["cpu"]["brand_raw"],
        "device": compared["machine_info"]["device"],
        "cores": compared["machine_info"]["cores"],
        "threads": compared["machine_info"]["threads"],
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
    pairs = [entry["extra_info"] for entry in compared["benchmarks"]]
    figures = {"machine": machine, "pairs": pairs, "evaluate": profiled}
    store.write_json(SPEED / "speed.json", figures)
    store.write_text(SPEED / "pairs.md", pairs_table(pairs))
    store.write_text(SPEED / "evaluate.md", profile_table(profiled))


def profile() -> dict[str, float]:
    """Seconds of one run of evaluate by part; of a second run, when all files have been read.

    Raises:
        ValueError: it fails, such as before the maps are there.
    """
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, PROFILE, CELL], stdout=subprocess.PIPE, text=True, check=False
        )
        if ran.returncode != 0:
            raise ValueError(f"{PROFILE} failed with {ran.returncode}: run `make repro` before")
    seconds: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return seconds


def compare() -> dict[str, Any]:
    """What pytest-benchmark wrote of the comparisons.

    Raises:
        ValueError: one of them fails.
    """
    with TemporaryDirectory() as folder:
        written = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", BENCHMARKS, "-q", "-p", "no:cacheprovider"]
        ran = subprocess.run(
            [*command, "--benchmark-only", f"--benchmark-json={written}"], check=False
        )
        if ran.returncode != 0:
            raise ValueError(f"{BENCHMARKS} failed with {ran.returncode}: see its output above")
        raw: dict[str, Any] = store.read_json(written)
    return raw


def pairs_table(pairs: list[dict[str, Any]]) -> str:
    """Seconds of both sides and their ratio, with its range over the rounds."""
    rows = [
        {
            "seconds an image": pair["name"],
            "this suite": f"{pair['ours']:.3f}",
            "pytorch-grad-cam": f"{pair['theirs']:.2f}",
            "ratio": f"{pair['ratio']:.0f}",
            "of rounds": f"{min(pair['ratios']):.0f} to {max(pair['ratios']):.0f}",
            "largest difference": f"{pair['largest_error']:.0e}" if "largest_error" in pair else "",
        }
        for pair in pairs
    ]
    return markdown(rows)


def profile_table(seconds: dict[str, float]) -> str:
    """Seconds and share of each part."""
    total = sum(seconds.values())
    rows = [
        {"part": part, "seconds": f"{s:.1f}", "%": f"{100 * s / total:.0f}"}
        for part, s in [*seconds.items(), ("all", total)]
    ]
    return markdown(rows)


def markdown(rows: list[dict[str, str]]) -> str:
    """Rows of text as a Markdown table, all but the first column to the right."""
    table = pd.DataFrame(rows)
    sides = ["left"] + ["right"] * (len(table.columns) - 1)
    return f"{table.to_markdown(index=False, colalign=sides, disable_numparse=True)}\n"


if __name__ == "__main__":
    run(main)
