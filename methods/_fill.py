"""What masked pixels are filled with."""

from typing import Literal

import torch
from torch import Tensor

from methods._base import Backbone, refuse_unless_one_of
from methods._inputs import exact_device

Fill = Literal["mean", "black", "white"]
"""A colour: the mean of the training images, which normalisation makes zero; black; white."""

SegmentFill = Literal["segment", "mean", "black", "white"]
"""The colour of a superpixel that is left out: its own mean, or a `Fill`."""


def colour_of(backbone: Backbone, fill: str) -> Tensor:
    """A colour (1, 3, 1, 1) in [0, 1], see `Fill`.

    Raises:
        ValueError: an unknown fill.
    """
    refuse_unless_one_of("fill", fill, Fill)
    plain = {"black": 0.0, "white": 1.0}
    mean = backbone.mean.float()
    return mean if fill == "mean" else torch.full_like(mean, plain[fill])


def without_superpixels(
    backbone: Backbone, image: Tensor, labels: Tensor, fill: SegmentFill
) -> Tensor:
    """An image (1, 3, H, W) like `image` (3, H, W) in which every superpixel is left out.

    Args:
        backbone: whose training images have the mean colour.
        image: in [0, 1].
        labels: of the superpixels (H, W), from 0.
        fill: what they get.
    """
    if fill != "segment":
        return colour_of(backbone, fill).expand(1, *image.shape)
    where = exact_device(image.device)
    labels = labels.to(where)
    sums = torch.zeros(3, int(labels.max()) + 1, dtype=torch.float64, device=where)
    sums.index_add_(1, labels.flatten(), image.detach().flatten(1).to(where).double())
    means = sums / labels.flatten().bincount()
    return means[:, labels][None].to(image.dtype).to(image.device)
