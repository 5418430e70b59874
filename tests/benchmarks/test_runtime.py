"""Runtime of every cell of params.yaml, one image and a batch; run by benchmark.runtime."""

from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmark import explain, images, params, stage
from methods import Backbone

PARAMS = params.load()


@cache
def built(backbone: str) -> Backbone:
    """A backbone, built once."""
    return explain.backbones.build(backbone, PARAMS.backbones[backbone])


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, so that the clock sees finished work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(benchmark: BenchmarkFixture, device: torch.device, work: Any) -> None:
    """Time `work()`, after a warm-up."""

    def timed() -> None:
        work()
        synchronise(device)

    runtime = PARAMS.runtime
    benchmark.pedantic(timed, rounds=runtime.rounds, warmup_rounds=runtime.warmup, iterations=1)


@pytest.fixture(scope="module", autouse=True)
def allocator() -> None:
    """The allocator settings of every stage."""
    stage.keep_freed_memory()


@pytest.fixture(scope="module")
def split() -> images.Split:
    """The evaluation images."""
    return images.read_split("evaluation")


@pytest.mark.parametrize("count", [1, PARAMS.runtime.batch])
@pytest.mark.parametrize("cell", PARAMS.cells)
def test_explainer(benchmark: BenchmarkFixture, split: images.Split, cell: str, count: int) -> None:
    """One call of the explainer on `count` images."""
    spec = PARAMS.cells[cell]
    explainer = explain.assemble(PARAMS, spec, PARAMS.mode, built(spec.backbone))
    device = explainer.backbone.device
    pixels = split.images(slice(count)).to(device)
    targets = explainer.backbone.predict(pixels)
    benchmark.extra_info |= {
        "backbone": spec.backbone,
        "explainer": spec.explainer,
        "images": count,
    }
    measure(benchmark, device, lambda: explainer(pixels, targets))


@pytest.mark.parametrize("count", [1, PARAMS.runtime.batch])
@pytest.mark.parametrize("backbone", sorted({cell.backbone for cell in PARAMS.cells.values()}))
def test_forward(
    benchmark: BenchmarkFixture, split: images.Split, backbone: str, count: int
) -> None:
    """The yardstick: a bare forward pass of `count` images."""
    network = built(backbone)
    pixels = split.images(slice(count)).to(network.device)
    benchmark.extra_info |= {"backbone": backbone, "explainer": "forward", "images": count}
    measure(benchmark, network.device, lambda: network.probabilities(pixels))
