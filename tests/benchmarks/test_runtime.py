"""Runtime of every cell of params.yaml, one image and a batch; run by benchmark.runtime.

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

from benchmark import explain, images, params
from methods import Backbone

PARAMS = params.load()
MOST_ROUNDS = 100


@cache
def built(backbone: str) -> Backbone:
    """A backbone, built once."""
    return explain.backbones.build(backbone, PARAMS.backbones[backbone])


@pytest.fixture(scope="module")
def split() -> images.Split:
    """The evaluation images."""
    return images.read_split("evaluation")


@pytest.mark.parametrize("count", sorted({1, PARAMS.runtime.batch}))
@pytest.mark.parametrize("cell", PARAMS.cells)
def test_explainer(
    benchmark: BenchmarkFixture,
    split: images.Split,
    cell: str,
    count: int,
    request: pytest.FixtureRequest,
) -> None:
    """One call of the explainer on `count` images."""
    spec, settings = PARAMS.cells[cell], PARAMS.runtime
    backbone = built(spec.backbone)
    explainer = explain.assemble(PARAMS, spec, PARAMS.mode, backbone)
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
        "backbone": spec.backbone,
        "explainer": spec.explainer,
        "images": count,
        "images_forward": passes["forward"],
        "images_backward": passes["backward"],
        "peak_memory_mb": memory,
        "forward": min(yardsticks),
        "ratio": benchmark.stats.stats.min / min(yardsticks),
    }


@pytest.mark.parametrize("count", sorted({1, PARAMS.runtime.batch}))
@pytest.mark.parametrize("backbone", sorted({cell.backbone for cell in PARAMS.cells.values()}))
def test_forward(
    benchmark: BenchmarkFixture, split: images.Split, backbone: str, count: int
) -> None:
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
