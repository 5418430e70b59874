"""Data-parallel training: a step of several processes is the step of one with all their images."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from methods import TrainableExplainer

Item = TypeVar("Item")


def count() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def index() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own(items: Sequence[Item]) -> Sequence[Item]:
    """Those of the items that this process works on."""
    return items[index() :: count()]


def own_first(tensor: Tensor) -> Tensor:
    """The rows (n, ...) of all processes (count * n, ...), those of this one in front.

    Args:
        tensor: as large in every process.
    """
    if count() == 1:
        return tensor
    rows = [torch.empty_like(tensor) for _ in range(count())]
    distributed.all_gather(rows, tensor)
    return torch.cat([*rows[index() :], *rows[: index()]])


def collected(values: Sequence[Item]) -> list[Item]:
    """The values of all processes, in the order that `own` took them from."""
    if count() == 1:
        return list(values)
    parts: list[Sequence[Item]] = [[] for _ in range(count())]
    distributed.all_gather_object(parts, values)
    return [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]


class Trainee(nn.Module):
    """The losses of an explainer, as a module that owns what learns."""

    def __init__(self, explainer: TrainableExplainer) -> None:
        super().__init__()
        self.attention = explainer.attention
        self.losses = explainer.losses

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See TrainableExplainer.losses."""
        return self.losses(images)


def trainee(explainer: TrainableExplainer) -> nn.Module:
    """An explainer's losses, of several processes with the gradients of all their images.

    Its batch norms then see the images of all processes, and its losses their labels; gradients
    are the mean over the processes.
    """
    if count() == 1:
        return Trainee(explainer)
    share_batch_norms(explainer.attention)
    explainer.whole_batch = own_first
    return DistributedDataParallel(Trainee(explainer), broadcast_buffers=False)


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, the same in all of them."""
    if count() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values / count()


def share_batch_norms(module: nn.Module) -> None:
    """Put SharedBatchNorm2d, with the same tensors, in the place of the batch norms inside."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.train(child.training)
                for key, tensor in (*child.named_parameters(), *child.named_buffers()):
                    setattr(shared, key, tensor)
                setattr(parent, name, shared)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the images of all processes; `torch.nn.SyncBatchNorm` has GPUs alone."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features (B, C, h, w)."""
        if not self.training:
            normalised: Tensor = super().forward(features)
            return normalised
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        axes = (0, 2, 3)
        places = float(features[:, 0].numel() * count())
        average = total(features.sum(axes)) / places
        centred = features - average[:, None, None]
        variance = total(centred.square().sum(axes)) / places
        with torch.no_grad():
            self.running_mean.lerp_(average, self.momentum)
            self.running_var.lerp_(variance * places / (places - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes; its gradient is the sum of theirs."""
    summed: Tensor = _Total.apply(tensor)
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return total(gradient)
