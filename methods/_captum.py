"""From captum's attributions to maps."""

from torch import Tensor

from methods._base import normalise


def pixel_maps(attributions: Tensor) -> Tensor:
    """Maps (B, H, W) in [0, 1] of attributions (B, 3, H, W): the magnitude of the channels' sum.

    The sum is what completeness distributes over a pixel. Its magnitude is taken, so that a
    pixel without influence is the least relevant one, whatever the sign of the others.
    """
    return normalise(attributions.detach().sum(dim=1).abs().float())
