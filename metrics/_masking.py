"""Maps at the size of the image, and exact numbers of pixels chosen by them."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Maps (B, h, w) resized bilinearly (half-pixel centres) to (B, H, W).

    Raises:
        ValueError: a map with a value that is NaN or infinite.
    """
    finite = maps.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f"map {int(finite.logical_not().nonzero()[0])} of the batch holds NaN or infinite "
            "values: expected finite values in [0, 1]"
        )
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[
        :, 0
    ]


def ranks(maps: Tensor, seeds: Sequence[int]) -> Tensor:
    """The rank of every pixel in its map (B, H, W): 0 is the most relevant, H*W - 1 the least.

    Pixels of equal value come in an order drawn from the image's seed.
    """
    flat = maps.flatten(1)
    shuffles = torch.stack(
        [torch.from_numpy(np.random.default_rng(s).permutation(flat.shape[1])) for s in seeds]
    ).to(maps.device)
    order = flat.gather(1, shuffles).argsort(dim=1, descending=True, stable=True)
    order = shuffles.gather(1, order)
    positions = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions).view(maps.shape)


def count(percent: float, pixels: int) -> int:
    """How many of `pixels` are `percent` of them, rounded to the nearest, halves up."""
    return int(percent / 100 * pixels + 0.5)
