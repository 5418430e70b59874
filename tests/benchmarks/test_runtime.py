"""Runtime of every cell of params.yaml, one image and a batch; run by the stage runtime.

Before every round of an explainer a bare forward pass of the same images is timed, so that what
slows the machine for a while slows both.
"""

import ctypes
import gc
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.pairing import seconds_of
from pytest_benchmark.fixture import BenchmarkFixture

from benchmark.core import params, results
from benchmark.core.cells import Project
from benchmark.core.params import Cell
from benchmark.data.splits import Split, read_split
from benchmark.engine.devices import device
from benchmark.engine.explaining import assemble
from methods import Backbone, TrainableExplainer, build_backbone

PARAMS = params.load()
PROJECT = Project(PARAMS)
CELLS = {f"{cell.backbone}-{cell.explainer}": cell for cell in PROJECT.all_cells()}
MOST_ROUNDS = 100


@cache
def built(backbone: str) -> Backbone:
    """A backbone, built once."""
    return build_backbone(backbone, device=device(), **PROJECT.spec(backbone))


@pytest.fixture(scope="module")
def split() -> Split:
    """The evaluation images."""
    return read_split(results.SPLITS, "evaluation")


@pytest.mark.parametrize("count", sorted({1, PARAMS.runtime.batch}))
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_explainer(
    benchmark: BenchmarkFixture,
    split: Split,
    cell: Cell,
    count: int,
    request: pytest.FixtureRequest,
) -> None:
    """One call of the explainer on `count` images."""
    settings = PARAMS.runtime
    backbone = built(cell.backbone)
    own = cell.settings_in(PARAMS.mode)
    name = cell.load or cell.explainer
    explainer = assemble(name, backbone, own, PROJECT.state_of(cell))
    if isinstance(explainer, TrainableExplainer):
        explainer.allows_unseen = True
    pixels = split.images(slice(count)).to(backbone.device)
    targets = backbone.predict(pixels)
    yardsticks: list[float] = []

    def work() -> object:
        return explainer(pixels, targets)

    def forward() -> object:
        return backbone.probabilities(pixels)

    def yardstick() -> None:
        yardsticks.append(seconds_of(forward))

    backbone.passes.forward = backbone.passes.backward = 0
    memory = peak_memory(work, backbone.device)
    passes = {name: value / count for name, value in vars(backbone.passes).items()}
    pair = min(seconds_of(work) for _ in range(settings.warmup)) + seconds_of(forward)
    given = request.config.getoption("--seconds")
    budget = settings.seconds if given is None else given
    rounds = min(MOST_ROUNDS, max(settings.rounds, math.ceil(budget / pair)))
    benchmark.pedantic(lambda: seconds_of(work), setup=yardstick, rounds=rounds, iterations=1)
    benchmark.extra_info |= {
        "backbone": cell.backbone,
        "explainer": cell.explainer,
        "images": count,
        "images_forward": passes["forward"],
        "images_backward": passes["backward"],
        "peak_memory_mb": memory,
        "forward": min(yardsticks),
        "ratio": benchmark.stats.stats.min / min(yardsticks),
    }


@pytest.mark.parametrize("count", sorted({1, PARAMS.runtime.batch}))
@pytest.mark.parametrize("backbone", list(PARAMS.backbones))
def test_forward(benchmark: BenchmarkFixture, split: Split, backbone: str, count: int) -> None:
    """The yardstick on its own: a bare forward pass of `count` images."""
    network, settings = built(backbone), PARAMS.runtime
    pixels = split.images(slice(count)).to(network.device)
    benchmark.extra_info |= {"backbone": backbone, "explainer": "forward", "images": count}
    benchmark.pedantic(
        lambda: seconds_of(lambda: network.probabilities(pixels)),
        rounds=settings.rounds,
        warmup_rounds=settings.warmup,
        iterations=1,
    )


def peak_memory(work: Any, device: torch.device) -> float | None:
    """How much memory one call takes at its peak, in MB; None where the system does not say.

    On a CPU that is what the process holds beyond what it held before, after it has given back
    what was free.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    reset = Path("/proc/self/clear_refs")
    if trim is None or not reset.exists():
        work()
        return None
    trim(0)
    reset.write_text("5")
    before = held("VmRSS")
    work()
    return max(0.0, held("VmHWM") - before)


def held(field: str) -> float:
    """A figure of /proc/self/status, in MB."""
    (kilobytes,) = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024 / 1e6
