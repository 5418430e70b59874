"""Compare with other libraries, and each explainer with its passes, in one run on this machine."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pandas as pd

from benchmark.core import results
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.timings import measure

BENCHMARKS = ("test_speed.py", "test_explainer_speed.py")
PROFILE = "tests/benchmarks/profile_evaluate.py"
FLOORS = "tests/benchmarks/floors.py"
BACKBONE = "efficientnet_lite0"
"""The backbone whose evaluation is profiled."""

PAIRS = ("metrics", "decoding")
"""Tables of two sides and their ratio."""

PACKAGES = ("torch", "timm", "grad-cam", "numba", "scipy")


def main(_params: Params) -> None:
    """Write results/speed/: the figures as JSON, the tables of docs/speed.md as Markdown."""
    run_script(PROFILE, BACKBONE)  # reads all files once
    profiled = run_script(PROFILE, BACKBONE)
    floors = run_script(FLOORS)
    compared = measure(*BENCHMARKS)
    machine = {
        "processor": compared["machine_info"]["cpu"]["brand_raw"],
        "device": compared["machine_info"]["device"],
        "cores": compared["machine_info"]["cores"],
        "threads": compared["machine_info"]["threads"],
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in (*PAIRS, "explainers", "added")}
    for entry in compared["benchmarks"]:
        groups[entry["extra_info"]["group"]].append(entry["extra_info"])
    results.write_json(
        results.SPEED / "speed.json",
        {"machine": machine, **groups, "evaluate": profiled, "floors": floors},
    )
    compares = dict.fromkeys(PAIRS, pair) | {"explainers": explainer_pair, "added": added}
    for name, compare in compares.items():
        table = pd.DataFrame([compare(found) for found in groups[name]])
        results.write_markdown(results.SPEED / f"{name}.md", table)
    results.write_markdown(results.SPEED / "evaluate.md", profile_table(profiled))
    for backbone in dict.fromkeys(found["backbone"] for found in floors):
        own = [floor(found) for found in floors if found["backbone"] == backbone]
        results.write_markdown(results.SPEED / f"floors_{backbone}.md", pd.DataFrame(own))


def run_script(*command: str) -> Any:
    """What a script prints, as JSON, in a process of its own.

    Raises:
        ValueError: it fails, such as before the maps are there.
    """
    ran = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise ValueError(f"{command[0]} failed with {ran.returncode}: run `make repro` before")
    return json.loads(ran.stdout.splitlines()[-1])


def floor(found: dict[str, Any]) -> dict[str, str]:
    """What an explanation takes, and what its passes take by themselves."""
    return {
        "explainer": found["explainer"],
        "passes": f"{found['forward']:g} + {found['backward']:g}",
        "ms an image": f"{1e3 * found['seconds']:.1f}",
        "passes alone": f"{1e3 * found['floor']:.1f}",
        "share, %": f"{100 * found['floor'] / found['seconds']:.0f}",
    }


def pair(found: dict[str, Any]) -> dict[str, str]:
    """Seconds of both sides and their ratio, with its range over the rounds."""
    least, most = min(found["ratios"]), max(found["ratios"])
    return {
        "seconds an image": found["name"],
        "this suite": f"{found['ours']:.3f}",
        "the other": f"{found['theirs']:.3g}",
        "ratio": f"{found['ratio']:.3g}",
        "of rounds": f"{least:.3g} to {most:.3g}",
        "largest difference": f"{found['largest_error']:.0e}" if "largest_error" in found else "",
    }


def explainer_pair(found: dict[str, Any]) -> dict[str, str]:
    """The same, with the peak memory of both sides above that of the loaded network."""
    memory = {
        "MB, this suite": f"{found['peak_ours']:.0f}" if "peak_ours" in found else "",
        "MB, the other": f"{found['peak_theirs']:.0f}" if "peak_theirs" in found else "",
    }
    return pair(found) | memory


def added(found: dict[str, Any]) -> dict[str, str]:
    """What a trained explainer needs beside the bare forward pass."""
    ratios = sorted(found["ratios"])
    quarter = len(ratios) // 4
    return {
        "explainer": found["name"],
        "ms an image": f"{1e3 * found['ours']:.2f}",
        "bare forward pass": f"{1e3 * found['theirs']:.2f}",
        "added": f"{100 * (found['ratio'] - 1):+.1f} %",
        "middle half of the rounds": (
            f"{100 * (ratios[quarter] - 1):+.1f} to {100 * (ratios[-1 - quarter] - 1):+.1f} %"
        ),
    }


def profile_table(seconds: dict[str, float]) -> pd.DataFrame:
    """Seconds and share of each part."""
    total = sum(seconds.values())
    return pd.DataFrame(
        [
            {"part": part, "seconds": f"{s:.1f}", "%": f"{100 * s / total:.0f}"}
            for part, s in [*seconds.items(), ("all", total)]
        ]
    )


if __name__ == "__main__":
    run(main)
