"""Processes that share the work of a stage, as torchrun starts them; one alone needs nothing.

Whole batches are shared out, and what each process makes of one is written where all find it, so
that results do not depend on how many there are.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def count() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def index() -> int:
    """The number of this process, from 0; 0 writes the results."""
    return int(os.environ.get("RANK", "0"))


def first() -> bool:
    """Whether this process writes the results."""
    return index() == 0


def local_index() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def silent() -> bool | None:
    """Whether to show no progress (tqdm's `disable`): None, for none if not a terminal, or True."""
    return None if first() else True


@contextmanager
def joined() -> Iterator[None]:
    """Within the block the processes can wait for each other and exchange tensors."""
    if count() == 1:
        yield
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(local_index())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    yield
    distributed.destroy_process_group()  # not after an error: the others would not come


def own(items: Sequence[Item]) -> Sequence[Item]:
    """Those of the items that this process works on."""
    return items[index() :: count()]


def wait() -> None:
    """Until every process is here."""
    if count() > 1:
        from torch import distributed

        distributed.barrier()
