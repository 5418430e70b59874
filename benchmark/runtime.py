"""Time every explainer with pytest-benchmark; keep its JSON and the medians."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmark import store
from benchmark.params import Params
from benchmark.stage import run

BENCHMARKS = Path(__file__).parents[1] / "tests" / "benchmarks"


def main(_params: Params) -> None:
    """Write results/runtime/raw.json and medians.json."""
    raw = measure("test_runtime.py")
    store.write_json(store.RUNTIME / "raw.json", raw)
    store.write_json(store.RUNTIME / "medians.json", medians(raw))


def measure(*files: str) -> dict[str, Any]:
    """What pytest-benchmark writes of some files of tests/benchmarks.

    Raises:
        ValueError: one of them fails.
    """
    with TemporaryDirectory() as folder:
        written = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [str(BENCHMARKS / file) for file in files]
        command += ["--benchmark-only", f"--benchmark-json={written}"]
        ran = subprocess.run(command, check=False)
        if ran.returncode != 0:
            raise ValueError(
                f"{', '.join(files)} failed with {ran.returncode}: see the output above"
            )
        raw: dict[str, Any] = store.read_json(written)
    return raw


def medians(raw: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Median and IQR in seconds a call, by backbone and explainer, then by number of images."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for entry in raw["benchmarks"]:
        info, stats = entry["extra_info"], entry["stats"]
        cell = table.setdefault(info["backbone"], {}).setdefault(info["explainer"], {})
        cell[f"seconds_{info['images']}"] = float(f"{stats['median']:.4g}")
        cell[f"iqr_{info['images']}"] = float(f"{stats['iqr']:.4g}")
    return table


if __name__ == "__main__":
    run(main)
