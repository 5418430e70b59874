"""Average Drop and Increase in Confidence under masking by the map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metrics._base import Measure, Metric, Values
from metrics._masking import count, ranks, resize

KEPT = (100.0, 50.0, 15.0)
"""Per cent of the pixels kept, the levels of the T-TAME paper."""


class Confidence(Metric):
    """AD and IC: the image is multiplied with its map, of which the best pixels are kept.

    The map is resized to the image; all but the `kept` per cent most relevant pixels become 0,
    the others stay as they are (soft); the raw image in [0, 1] times that is what the network
    sees (black fill). The number of kept pixels is exact.

    Args:
        kept: levels, per cent of the pixels kept.
    """

    measures = (
        Measure(
            name="average_drop",
            label="AD",
            unit="%",
            levels="% of pixels kept",
            higher_is_better=False,
            paper="Chattopadhay et al. 2018, arXiv 1710.11063; levels: arXiv 2403.04523",
        ),
        Measure(
            name="increase_in_confidence",
            label="IC",
            unit="%",
            levels="% of pixels kept",
            higher_is_better=True,
            paper="Chattopadhay et al. 2018, arXiv 1710.11063; levels: arXiv 2403.04523",
        ),
    )

    def __init__(self, kept: Sequence[float] = KEPT) -> None:
        self._kept = tuple(kept)

    def perturb(self, pixels: Tensor, maps: Tensor, seeds: Sequence[int]) -> Tensor:
        """See Metric: one version a level."""
        resized = resize(maps, pixels.shape[-2:])
        rank = ranks(resized, seeds)
        total = rank[0].numel()
        masks = torch.stack(
            [resized.where(rank < count(level, total), 0.0) for level in self._kept], dim=1
        )
        return pixels[:, None] * masks[:, :, None]

    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """See Metric: AD and IC in per cent, of each image."""
        rows = torch.arange(len(targets), device=targets.device)
        old = before[rows, targets]
        new = after[rows, :, targets]
        drop = average_drop(old[:, None], new)
        increase = increase_in_confidence(old[:, None], new)
        return [
            Values(name, level, values[:, v])
            for name, values in (("average_drop", drop), ("increase_in_confidence", increase))
            for v, level in enumerate(self._kept)
        ]


def average_drop(before: Tensor, after: Tensor) -> Tensor:
    """100 max(0, s - s') / s of the probabilities `before` (s > 0) and `after` (s'), [0, 100]."""
    return 100 * (before - after).clamp_min(0) / before


def increase_in_confidence(before: Tensor, after: Tensor) -> Tensor:
    """100 where the probability `after` is greater than `before`, else 0."""
    return 100.0 * (after > before).float()
