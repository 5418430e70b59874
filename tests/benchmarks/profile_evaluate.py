"""Where the time of `python -m benchmark.evaluate BACKBONE` goes, as JSON; run by `make speed`.

One cell is scored anew, in a folder of its own.
"""

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BOOT = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
START = BOOT / os.sysconf("SC_CLK_TCK")
"""When this process began, in seconds since the machine did."""


EXPLAINER = "gradcam"


def now() -> float:
    """Seconds since the machine began."""
    return float(Path("/proc/uptime").read_text().split()[0])


def timed(owner: Any, name: str, seconds: dict[str, float], label: str) -> None:
    """Add the time spent in a function to `seconds[label]`."""
    function = getattr(owner, name)
    seconds[label] = 0.0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[label] += time.perf_counter() - start

    setattr(owner, name, wrapper)


def main() -> None:
    """Run the stage and print seconds by part."""
    import methods
    from benchmark import evaluate
    from benchmark.core import results
    from benchmark.core.params import load
    from benchmark.core.stage import keep_freed_memory
    from benchmark.engine import passes
    from methods import Backbone
    from metrics import road

    seconds = {"start of Python, imports": now() - START}
    timed(methods, "build_backbone", seconds, "building the network, with timm's import")
    timed(Backbone, "forward", seconds, "forward passes")
    timed(road, "impute", seconds, "ROAD's imputation")
    passes.share_of_network = lambda *_: "profiled"  # which times passes of its own
    keep_freed_memory()
    params = load()
    one = params.model_copy(update={"explainers": {EXPLAINER: params.explainers[EXPLAINER]}})
    with TemporaryDirectory() as folder:
        results.SCORES, results.DELTA = Path(folder) / "scores", Path(folder) / "delta"
        evaluate.main(one, sys.argv[1])
    seconds["everything else"] = now() - START - sum(seconds.values())
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
