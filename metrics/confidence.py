"""Average Drop, Increase in Confidence and Average Gain under masking by the map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metrics._base import Measure, Perturbation, Values, check_levels
from metrics._maps import Maps

KEPT = (100.0, 50.0, 15.0)
"""Per cent of the pixels kept, the levels of the T-TAME paper."""


class Confidence(Perturbation):
    """AD, IC and AG: the image is multiplied with its map, of which the best pixels are kept.

    All but the `kept` per cent most relevant pixels of the map become 0, the others stay as they
    are (soft); the raw image in [0, 1] times that is what the network sees (black fill). With s and
    s' the probabilities of the explained class before and after, and means over images:
    AD = 100 max(0, s - s') / s, IC = 100 [s' > s], AG = 100 max(0, s' - s) / (1 - s).

    Args:
        kept: levels, per cent of the pixels kept.

    Raises:
        ValueError: levels that are no per cent.

    Example:
        >>> import torch
        >>> from metrics import build
        >>> before, after = torch.tensor([[0.8, 0.2]]), torch.tensor([[[0.6, 0.4]]])
        >>> found = build("confidence", {"kept": [50]}).judge(before, after, torch.tensor([0]))
        >>> {value.measure: round(float(value.per_image[0]), 3) for value in found}
        {'average_drop': 25.0, 'increase_in_confidence': 0.0, 'average_gain': 0.0}
    """

    measures = (
        Measure(
            name="average_drop",
            label="AD",
            unit="%",
            bounds=(0, 100),
            levels="% of pixels kept",
            higher_is_better=False,
            paper="Chattopadhay et al. 2018, arXiv 1710.11063; levels: arXiv 2403.04523",
        ),
        Measure(
            name="increase_in_confidence",
            label="IC",
            unit="%",
            bounds=(0, 100),
            levels="% of pixels kept",
            higher_is_better=True,
            paper="Chattopadhay et al. 2018, arXiv 1710.11063; levels: arXiv 2403.04523",
        ),
        Measure(
            name="average_gain",
            label="AG",
            unit="%",
            bounds=(0, 100),
            levels="% of pixels kept",
            higher_is_better=True,
            paper="Zhang et al. 2023 (Opti-CAM), arXiv 2301.07002",
        ),
    )
    in_reference = True

    def __init__(self, kept: Sequence[float] = KEPT) -> None:
        self._kept = check_levels("kept", kept)

    @property
    def versions(self) -> int:
        """One a level."""
        return len(self._kept)

    def perturb(self, pixels: Tensor, maps: Maps) -> Tensor:
        """See Perturbation: one version a level."""
        masks = torch.stack([maps.resized.where(maps.top(p), 0.0) for p in self._kept], dim=1)
        return pixels[:, None] * masks[:, :, None]

    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """See Perturbation: AD, IC and AG in per cent, of each image."""
        rows = torch.arange(len(targets), device=targets.device)
        old = before[rows, targets]
        new = after[rows, :, targets]
        return [
            Values(measure.name, level, function(old, new[:, v]))
            for measure, function in zip(
                self.measures, (average_drop, increase_in_confidence, average_gain), strict=True
            )
            for v, level in enumerate(self._kept)
        ]


def average_drop(before: Tensor, after: Tensor) -> Tensor:
    """100 max(0, s - s') / s of the probabilities `before` (s > 0) and `after` (s'), [0, 100]."""
    return 100 * (before - after).clamp_min(0) / before


def increase_in_confidence(before: Tensor, after: Tensor) -> Tensor:
    """100 where the probability `after` is greater than `before`, else 0."""
    return 100.0 * (after > before).float()


def average_gain(before: Tensor, after: Tensor) -> Tensor:
    """100 max(0, s' - s) / (1 - s), [0, 100]; 0 where s = 1 leaves nothing to gain."""
    gain = 100 * (after - before).clamp_min(0) / (1 - before)
    return gain.where(before < 1, 0.0)
