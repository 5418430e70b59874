"""The attention mechanism of T-TAME and the loss that trains it.

Source: Ntrougkas, Gkalelis, Mezaris: T-TAME, IEEE Access 2024, arXiv 2403.04523. Modules are named
as in the released checkpoints (`convs`, `bns`, `fuser`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_GRID = 56
"""Feature maps are fused at the largest tapped grid, but at no more than this side."""


class AttentionMechanism(nn.Module):
    """A branch a feature set (1x1 convolution, batch norm, skip, ReLU), fused by a 1x1 convolution.

    Args:
        channels: C_i of each feature set.
        classes: K, the number of class maps.
        skip: add the features to the branch's output before the ReLU.
        gain: factor of the fuser's initial weights.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, *, skip: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 1) for c in channels)
        self.bns = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        self.fuser = nn.Conv2d(sum(channels), classes, 1)
        with torch.no_grad():
            self.fuser.weight.mul_(gain)
        self.skip = skip

    def fused(self, features: Sequence[Tensor]) -> Tensor:
        """All branches at one resolution: (B, C_i, h_i, w_i) each to (B, sum C_i, h, w)."""
        height = min(MAX_GRID, max(f.shape[-2] for f in features))
        width = min(MAX_GRID, max(f.shape[-1] for f in features))
        branches = []
        for conv, bn, feature in zip(self.convs, self.bns, features, strict=True):
            branch = bn(conv(feature))
            if self.skip:
                branch = branch + feature
            branches.append(_resize(F.relu(branch), (height, width)))
        return torch.cat(branches, dim=1)

    def class_maps(self, features: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Logit maps (B, L, h, w) of the L `classes` (L,) for every image."""
        fused = self.fused(features)
        bias = None if self.fuser.bias is None else self.fuser.bias[classes]
        return F.conv2d(fused, self.fuser.weight[classes], bias)

    def own_maps(self, features: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Logit maps (B, h, w), for each image the map of its own class in `targets` (B,)."""
        fused = self.fused(features)
        rows = self.fuser.weight[targets, :, 0, 0]
        maps = torch.einsum("bchw,bc->bhw", fused, rows)
        return maps if self.fuser.bias is None else maps + self.fuser.bias[targets, None, None]


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def area(masks: Tensor) -> Tensor:
    """Mean of (m + 0.0005) ** 0.3 over masks of any shape in [0, 1]."""
    return ((masks + 0.0005) ** 0.3).mean()


def smoothness(masks: Tensor) -> Tensor:
    """Squared differences of neighbours, and 0.3 times the squared borders, over 2 B.

    Args:
        masks: (B, L, h, w) in [0, 1].
    """
    vertical = masks.diff(dim=-2).square().sum()
    horizontal = masks.diff(dim=-1).square().sum()
    top_bottom = masks[..., 0, :].square().sum() + masks[..., -1, :].square().sum()
    left_right = masks[..., :, 0].square().sum() + masks[..., :, -1].square().sum()
    return (vertical + horizontal + 0.3 * (top_bottom + left_right)) / (2 * len(masks))


def masked_images(images: Tensor, masks: Tensor) -> Tensor:
    """Images (B, 3, H, W) times masks (B, h, w), resized bilinearly."""
    resized = F.interpolate(
        masks[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False
    )
    return images * resized
