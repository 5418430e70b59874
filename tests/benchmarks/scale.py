"""Memory and time of images, explain and evaluate against the number of images.

`python tests/benchmarks/scale.py COUNT ...` runs the stages for each count in a process and folder
of their own: Grad-CAM on EfficientNet-Lite0, scored by what passes once and by what only reads.
Memory is the most that the process holds of its own, files that are mapped apart. Writes
results/speed/scale.md.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml

from benchmark.core import results

ROOT = Path(__file__).parents[2]
BACKBONE = "efficientnet_lite0"
METRICS = {"confidence": {"settings": {"kept": [50]}}, "localisation": {}, "complexity": {}}
PERIOD = 0.02
"""Seconds between two looks at the memory."""


def own_memory() -> float:
    """What this process holds of its own, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1e3


def watched(work: Callable[[], None]) -> tuple[float, float]:
    """The most memory and the seconds of some work."""
    seen, done = [own_memory()], threading.Event()

    def look() -> None:
        while not done.wait(PERIOD):
            seen.append(own_memory())

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return max(seen), seconds


def write_params(count: int) -> None:
    """The sample's parameters with so many images, and a copy of its cut-outs that lists them."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    shutil.copytree(ROOT / "data" / "sample", "sample")
    listed = {"split": "evaluation", "seed": raw["seed"], "size": 224, "number": range(count)}
    pd.DataFrame(listed).to_csv("sample/recognised.csv", index=False)
    raw["images"] |= {"folder": "sample", "train": 1, "validation": 0, "evaluation": count}
    spec = raw["backbones"][BACKBONE]
    raw["backbones"] = {
        BACKBONE: {k: v for k, v in spec.items() if k not in ("skip", "explainers")}
    }
    raw["explainers"] = {"gradcam": {}}
    raw["ablation"], raw["tables"]["short"] = {}, []
    raw["evaluate"]["metrics"] = METRICS
    Path("params.yaml").write_text(yaml.safe_dump(raw))


def measured(count: int) -> str:
    """Of each stage the memory, in MB, and the milliseconds an image, as a line of JSON."""
    from benchmark import check, evaluate, explain, images
    from benchmark.core.params import load
    from benchmark.core.stage import keep_freed_memory

    write_params(count)
    keep_freed_memory()
    params = load()
    check.main(params)
    found: dict[str, Any] = {"count": count}
    for name, work in (
        ("images", lambda: images.main(params)),
        ("explain", lambda: explain.main(params, BACKBONE)),
        ("evaluate", lambda: evaluate.main(params, BACKBONE)),
    ):
        memory, seconds = watched(work)
        found[name] = {"mb": round(memory), "ms_an_image": round(1000 * seconds / count, 2)}
    return json.dumps(found) + "\n"


def main() -> None:
    """Measure each count in a process and a folder of its own, and write a table."""
    rows = []
    for count in sys.argv[1:]:
        with TemporaryDirectory() as folder:
            code = f"import benchmarks.scale as s; s.sys.stdout.write(s.measured({int(count)}))"
            path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
            ran = subprocess.run(
                [sys.executable, "-c", code],
                cwd=folder,
                env=path,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        found = json.loads(ran.stdout.splitlines()[-1])
        row = {"images": f"{found.pop('count'):,}"}
        for stage, own in found.items():
            row[f"{stage}, MB"] = str(own["mb"])
            row[f"{stage}, ms an image"] = f"{own['ms_an_image']:.1f}"
        rows.append(row)
    results.write_markdown(results.SPEED / "scale.md", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
