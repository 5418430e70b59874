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

    Gradients up to the image are timed; they may end at a layer before, hence `up to`.

    Args:
        backbone: that counted them.
        batch_size: images through it at a time.
        seconds: in which it did.
    """
    passes = backbone.passes
    forward = seconds_of_passes(backbone, batch_size, back=False)
    said = f"{passes.forward:,} images through the network take {passes.forward * forward:.0f} of "
    said += f"{seconds:.0f} seconds ({100 * passes.forward * forward / seconds:.0f} %)"
    if passes.backward:
        both = seconds_of_passes(backbone, batch_size, back=True)
        most = 100 * passes.backward * (both - forward) / seconds
        said += f", {passes.backward:,} back up to {most:.0f} %"
    return said


def seconds_of_passes(backbone: Backbone, batch_size: int, *, back: bool) -> float:
    """Of an image, forward or also back to its pixels: the best of some batches, not counted."""
    counted, backbone.passes = backbone.passes, Passes()
    size, found = backbone.size, []
    pixels = torch.rand(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(backbone.device)
    for _ in range(TIMED):
        start = clock(backbone.device)
        if back:
            logits = backbone(pixels.requires_grad_())
            torch.autograd.grad(logits.sum(), pixels)
        else:
            backbone.probabilities(pixels)
        found.append(clock(backbone.device) - start)
    backbone.passes = counted
    return min(found) / batch_size
