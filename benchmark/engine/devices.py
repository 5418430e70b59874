"""The device of this process: its precision, its memory and its clock."""

import os
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.engine.recipe import Precision


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
