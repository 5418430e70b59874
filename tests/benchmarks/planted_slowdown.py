"""How often `make runtime-compare` finds a planted slowdown, and nothing else, on a noisy machine.

`python tests/benchmarks/planted_slowdown.py [TRIES]`, in the folder of params.yaml after `dvc
repro`: in each try a clone records some cells, commits, records them again with one explainer that
takes 1.5 times as long, and compares, while another process keeps a core busy on and off.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CELLS = (
    "ttame",
    "gradcam",
    "layercam",
    "saliency",
    "rise",
    "scorecam",
    "iia",
    "integrated_gradients",
)
BACKBONE = "efficientnet_lite0"
PLANTED = ("gradcam", "ttame", "rise", "saliency", "scorecam")
"""Explainers that are slowed down, in turns."""

SLOW = '''
import time
import methods

Original = methods.load("{name}")


class Slow(Original):
    """Takes 1.5 times as long."""

    def explain(self, images, targets):
        start = time.perf_counter()
        maps = super().explain(images, targets)
        end = time.perf_counter() + 0.5 * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return maps
'''


def noise(stop: Any) -> None:
    """Keep a core busy, two seconds of three."""
    while not stop.is_set():
        end = time.monotonic() + 2
        while time.monotonic() < end:
            pass
        time.sleep(1)


def track(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `benchmark track` in a folder, with this checkout's code and the folder's modules."""
    return subprocess.run(
        [sys.executable, "-m", "benchmark", "track", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"},
        capture_output=True,
        text=True,
        check=False,
    )


def attempt(folder: Path, planted: str) -> set[str]:
    """The explainers that are reported in one try."""
    for name in ("data", "results/splits", "results/states", "results/check.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["backbones"] = {BACKBONE: raw["backbones"][BACKBONE]}
    raw["explainers"] = {name: raw["explainers"][name] for name in CELLS}
    raw["backbones"][BACKBONE]["skip"], raw["ablation"] = [], {}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "empty"], check=True)
    done = track(folder, "record")
    assert done.returncode == 0, done.stderr
    subprocess.run([*git, "add", "results/runtime"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "before"], check=True)
    (folder / "planted.py").write_text(SLOW.format(name=planted))
    raw["explainers"][planted]["load"] = "planted:Slow"
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    done = track(folder, "record")
    assert done.returncode == 0, done.stderr
    done = track(folder, "compare", "HEAD")
    slower = done.stdout.partition("slower than")[2].partition("faster than")[0]
    return {name for name in CELLS if f" {name} " in slower}


def main() -> None:
    """Print what each try found, and how many found the planted one alone."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    stop = multiprocessing.Event()
    busy = multiprocessing.Process(target=noise, args=(stop,))
    busy.start()
    hits = 0
    try:
        for number in range(tries):
            planted = PLANTED[number % len(PLANTED)]
            with TemporaryDirectory() as folder:
                found = attempt(Path(folder), planted)
            hits += found == {planted}
            print(f"{number + 1}: planted {planted}, found {', '.join(sorted(found)) or 'none'}")
    finally:
        stop.set()
        busy.join()
    print(f"{hits} of {tries} tries found the planted slowdown and nothing else")


if __name__ == "__main__":
    main()
