"""The device of this process: its precision, its memory, and the time that passes take on it."""

import os
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.engine.recipe import Precision
from methods import Backbone, Passes

TIMED = 5
"""Batches that are timed, the first of which loads what is loaded at first use."""


def device() -> torch.device:
    """This process's GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def autocast(where: torch.device, precision: Precision) -> torch.autocast:
    """Within the block the network computes in `precision`."""
    half = precision != "float32"
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(where.type, dtype=dtype, enabled=half)


def in_memory(work: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """`work(*batch)`, a part at a time if the whole batch does not fit into memory.

    Args:
        work: takes tensors (n, ...) and gives one (n, ...), each row by itself.
        batch: the tensors, of n rows each.

    Raises:
        ValueError: one row alone does not fit.
    """
    size = len(batch[0])
    try:
        return work(*batch)
    except torch.OutOfMemoryError as error:
        if size == 1:
            raise ValueError(
                "out of memory with one image: expected a smaller batch_size in the explainer's "
                "settings, a smaller network or a larger GPU"
            ) from error
    torch.cuda.empty_cache()
    half = size // 2
    warnings.warn(f"out of memory with {size} images at a time: going on with {half}", stacklevel=2)
    parts = zip(*(tensor.split(half) for tensor in batch), strict=True)
    return torch.cat([in_memory(work, *part) for part in parts])


def clock(device: torch.device) -> float:
    """Seconds, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def share_of_network(backbone: Backbone, batch_size: int, seconds: float) -> str:
    """In words: what the passes that a backbone counted take by themselves, of so many seconds.

    Args:
        backbone: whose passes are timed, with gradients up to the image and without.
        batch_size: images through it at a time.
        seconds: in which it counted these passes.
    """
    passes = backbone.passes
    forward, backward = seconds_of_passes(backbone, batch_size)
    alone = passes.forward * forward + passes.backward * backward
    return (
        f"{passes.forward:,} images forward, {passes.backward:,} backward, by themselves "
        f"{alone:.0f} of {seconds:.0f} seconds ({100 * alone / seconds:.0f} %)"
    )


def seconds_of_passes(backbone: Backbone, batch_size: int) -> tuple[float, float]:
    """Of an image forward, and backward up to its pixels: the best of some batches, not counted."""
    counted, backbone.passes = backbone.passes, Passes()
    size = backbone.size
    pixels = torch.rand(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(backbone.device)
    forward, both = [], []
    for _ in range(TIMED):
        start = clock(backbone.device)
        backbone.probabilities(pixels)
        forward.append(clock(backbone.device) - start)
        start = clock(backbone.device)
        logits = backbone(pixels.requires_grad_())
        torch.autograd.grad(logits.sum(), pixels)
        both.append(clock(backbone.device) - start)
    backbone.passes = counted
    least = min(forward)
    return least / batch_size, max(0.0, min(both) - least) / batch_size
