"""Two sides timed in turns, in one process."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 3


def synchronised(work: Callable[[], Any]) -> Any:
    """What `work` gives, once it is there."""
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def seconds_of(work: Callable[[], Any]) -> float:
    """How long `work` takes until it is there."""
    start = time.perf_counter()
    synchronised(work)
    return time.perf_counter() - start


def paired(
    benchmark: BenchmarkFixture,
    group: str,
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    images: int,
    rounds: int = ROUNDS,
) -> None:
    """Time `ours` by pytest-benchmark, and before each round `theirs`; the ratio is theirs / ours.

    `group` is the table of results/speed/ it belongs to.
    """
    synchronised(ours)
    seconds: list[float] = []

    def other() -> None:
        seconds.append(seconds_of(theirs))

    benchmark.pedantic(lambda: synchronised(ours), setup=other, rounds=rounds, iterations=1)
    own = benchmark.stats.stats.data
    benchmark.extra_info |= {
        "group": group,
        "name": name,
        "ours": float(np.median(own)) / images,
        "theirs": float(np.median(seconds)) / images,
        "ratio": float(np.median(np.divide(seconds, own))),
        "ratios": [float(r) for r in np.divide(seconds, own)],
    }
