"""From captum's attributions to maps, and the superpixels of those that need some."""

import math

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

from methods._base import normalise

COMPACTNESS = 10.0
"""SLIC's balance of place against colour."""


def pixel_maps(attributions: Tensor) -> Tensor:
    """Maps (B, H, W) in [0, 1] of attributions (B, 3, H, W): the magnitude of the channels' sum.

    The sum is what completeness distributes over a pixel. Its magnitude is taken, so that a
    pixel without influence is the least relevant one, whatever the sign of the others.
    """
    return normalise(attributions.detach().sum(dim=1).abs().float())


def region_maps(attributions: Tensor) -> Tensor:
    """Maps (B, H, W) in [0, 1] of attributions (B, 3, H, W) that are the same in all channels.

    A region that speaks against the class is less relevant than one without influence.
    """
    return normalise(attributions.detach()[:, 0].float())


def superpixels(image: Tensor, segments: int) -> Tensor:
    """About so many SLIC superpixels of an image (3, H, W), as labels (H, W) from 0, int64.

    Squares, where SLIC finds no borders and merges everything into one.
    """
    pixels = image.detach().permute(1, 2, 0).cpu().double().numpy()
    labels = slic(pixels, n_segments=segments, compactness=COMPACTNESS, sigma=1, start_label=0)
    if labels.max() == 0:
        side = math.ceil(math.sqrt(segments))
        rows, columns = (np.arange(length) * side // length for length in labels.shape)
        labels = side * rows[:, None] + columns
    return torch.from_numpy(labels).to(image.device, torch.int64)
