"""Time every explainer with pytest-benchmark; keep its JSON and the figures in short."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmark import store
from benchmark.params import Params
from benchmark.stage import run

BENCHMARKS = Path(__file__).parents[1] / "tests" / "benchmarks"

KEPT = ("images_forward", "images_backward")
"""What an explanation takes, of any batch size."""


def main(_params: Params) -> None:
    """Write results/runtime/raw.json and medians.json."""
    raw = measure("test_runtime.py")
    store.write_json(store.RUNTIME / "raw.json", raw)
    store.write_json(store.RUNTIME / "medians.json", medians(raw))


def measure(*tests: str) -> dict[str, Any]:
    """What pytest-benchmark writes of some files or tests of tests/benchmarks, and options.

    Raises:
        ValueError: one of them fails.
    """
    with TemporaryDirectory() as folder:
        written = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [name if name.startswith("-") else str(BENCHMARKS / name) for name in tests]
        command += ["--benchmark-only", f"--benchmark-json={written}"]
        ran = subprocess.run(command, check=False)
        if ran.returncode != 0:
            raise ValueError(
                f"{', '.join(tests)} failed with {ran.returncode}: see the output above"
            )
        raw: dict[str, Any] = store.read_json(written)
    return raw


def medians(raw: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """The figures by backbone and explainer.

    Of a call with N images the median and the interquartile range in seconds (`seconds_N`,
    `iqr_N`), the quickest call as a multiple of the quickest bare forward pass beside it
    (`ratio_N`) and the peak memory in MB (`peak_mb_N`); of one explanation the images through the
    network forward and backward.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for entry in raw["benchmarks"]:
        info, stats = entry["extra_info"], entry["stats"]
        cell = table.setdefault(info["backbone"], {}).setdefault(info["explainer"], {})
        count = info["images"]
        figures = {f"seconds_{count}": stats["median"], f"iqr_{count}": stats["iqr"]}
        if "ratio" in info:
            figures[f"ratio_{count}"] = info["ratio"]
            figures |= {name: info[name] for name in KEPT}
        if info.get("peak_memory_mb") is not None:
            figures[f"peak_mb_{count}"] = info["peak_memory_mb"]
        cell |= {name: float(f"{value:.4g}") for name, value in figures.items()}
    return table


if __name__ == "__main__":
    run(main)
