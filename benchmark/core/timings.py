"""Timings of tests/benchmarks by pytest-benchmark: run, merged, in short, and by which machine.

Seconds are of one machine, that of the last whole sitting. What was timed on another one since
then, a new explainer say, has only what can be compared: multiples of the bare forward pass that
was timed beside it.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmark.core import results
from benchmark.core.store import digest_json

BENCHMARKS = Path(__file__).parents[2] / "tests" / "benchmarks"

SHARED = ("test_runtime.py", "pairing.py", "conftest.py")
"""The files there that time explainers."""

KEPT = ("images_forward", "images_backward")
"""What an explanation takes, of any batch size."""

VERSIONS = (
    *("device", "cores", "threads", "python_version"),
    *("torch", "torchvision", "timm", "captum", "grad-cam", "numpy"),
)
"""What is kept of pytest-benchmark's description of the machine, beside the processor."""

Raw = dict[str, Any]
"""What pytest-benchmark writes."""


def measure(*tests: str) -> Raw:
    """What pytest-benchmark writes of some files or tests of tests/benchmarks, and options.

    Raises:
        ValueError: one of them fails.
    """
    with TemporaryDirectory() as folder:
        written = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [name if name.startswith("-") else str(BENCHMARKS / name) for name in tests]
        command += ["--benchmark-only", f"--benchmark-json={written}"]
        # what a pytest that runs this one tells its workers: a worker of xdist times nothing
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
        ran = subprocess.run(command, check=False, env=environment)
        if ran.returncode != 0:
            raise ValueError(
                f"{', '.join(tests)} failed with {ran.returncode}: see the output above"
            )
        raw: Raw = results.read_json(written)
    return raw


def processor(info: dict[str, Any]) -> str:
    """The processor in pytest-benchmark's machine_info."""
    return str(info["cpu"].get("brand_raw", info["machine"]))


def describe_machine(info: dict[str, Any]) -> dict[str, Any]:
    """What timings depend on, of pytest-benchmark's machine_info: the key of a timing."""
    return {"processor": processor(info)} | {name: info[name] for name in VERSIONS}


def merge(old: Raw | None, new: Raw, wanted: set[tuple[str, str]]) -> Raw:
    """What was timed before and now; of what is timed anew the new one.

    Where nothing of before is left, the machine is the new one.

    Args:
        old: before, if anything was.
        new: now; each of its entries gets the digest of its machine.
        wanted: backbones and explainers; others are left out.
    """
    machine = digest_json(describe_machine(new["machine_info"]))
    for entry in new["benchmarks"]:
        entry["extra_info"]["machine"] = machine
    if old is None:
        return new
    again = {cell_of(entry) for entry in new["benchmarks"]}
    old_ones, new_ones = (
        [entry for entry in raw["benchmarks"] if cell_of(entry) in cells]
        for raw, cells in ((old, wanted - again), (new, wanted))
    )
    return (old if old_ones else new) | {"benchmarks": [*old_ones, *new_ones]}


def cell_of(entry: dict[str, Any]) -> tuple[str, str]:
    """Backbone and explainer of an entry."""
    return entry["extra_info"]["backbone"], entry["extra_info"]["explainer"]


def medians(raw: Raw) -> dict[str, dict[str, dict[str, float]]]:
    """The figures by backbone and explainer.

    Of a call with N images the median and the interquartile range in seconds (`seconds_N`,
    `iqr_N`) and the peak memory in MB (`peak_mb_N`), if it was timed on the machine of `raw`; the
    quickest call as a multiple of the quickest bare forward pass beside it (`ratio_N`); of one
    explanation the images through the network forward and backward.
    """
    own = digest_json(describe_machine(raw["machine_info"]))
    table: dict[str, dict[str, dict[str, float]]] = {}
    for entry in raw["benchmarks"]:
        info, stats = entry["extra_info"], entry["stats"]
        cell = table.setdefault(info["backbone"], {}).setdefault(info["explainer"], {})
        count = info["images"]
        figures = {}
        if info.get("machine", own) == own:
            figures = {f"seconds_{count}": stats["median"], f"iqr_{count}": stats["iqr"]}
            if info.get("peak_memory_mb") is not None:
                figures[f"peak_mb_{count}"] = info["peak_memory_mb"]
        if "ratio" in info:
            figures[f"ratio_{count}"] = info["ratio"]
            figures |= {name: info[name] for name in KEPT}
        cell |= {name: float(f"{value:.4g}") for name, value in figures.items()}
    return table
