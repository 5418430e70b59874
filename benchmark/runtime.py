"""Time every explainer with pytest-benchmark; keep its JSON and the medians."""

import json
import subprocess
import sys
from typing import Any

from benchmark import store
from benchmark.params import Params
from benchmark.stage import run

BENCHMARKS = "tests/benchmarks/test_runtime.py"


def main(params: Params) -> None:
    """Write results/runtime/raw.json and medians.json."""
    with store.replacing(store.RUNTIME / "raw.json") as beside:
        command = [sys.executable, "-m", "pytest", BENCHMARKS, "-q", "-p", "no:cacheprovider"]
        measured = subprocess.run([*command, "--benchmark-only", f"--benchmark-json={beside}"])
        if measured.returncode != 0:
            raise ValueError(
                f"{BENCHMARKS} failed with {measured.returncode}: see its output above"
            )
        raw = json.loads(beside.read_text())
        beside.write_text(json.dumps(raw, indent=1) + "\n")
    store.write_json(store.RUNTIME / "medians.json", medians(raw))


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
