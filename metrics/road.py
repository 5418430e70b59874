"""ROAD: remove pixels by noisy linear imputation, see whether the prediction stays."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metrics._base import Measure, Metric, Values
from metrics._imputation import impute
from metrics._masking import count, ranks, resize

REMOVED = (10.0, 20.0, 30.0, 40.0, 50.0, 70.0, 90.0)
"""Per cent of the pixels removed, the levels of the T-TAME paper."""


class ROAD(Metric):
    """ROAD in both orders: the most relevant pixels first (MoRF) and the least (LeRF).

    The number of removed pixels is exact; the noise is drawn from the seed of the image, the
    order and the level, and added to the removed pixels in units of pixels in [0, 1].

    Args:
        removed: levels, per cent of the pixels removed.
        noise: standard deviation of the noise.
    """

    measures = (
        Measure(
            name="road_morf",
            label="ROAD MoRF",
            unit="% unchanged",
            levels="% of pixels removed",
            higher_is_better=False,
            paper="Rong et al. 2022, ICML, arXiv 2202.00449",
        ),
        Measure(
            name="road_lerf",
            label="ROAD LeRF",
            unit="% unchanged",
            levels="% of pixels removed",
            higher_is_better=True,
            paper="Rong et al. 2022, ICML, arXiv 2202.00449",
        ),
    )

    def __init__(self, removed: Sequence[float] = REMOVED, noise: float = 0.01) -> None:
        self._removed = tuple(removed)
        self._noise = noise

    def perturb(self, pixels: Tensor, maps: Tensor, seeds: Sequence[int]) -> Tensor:
        """See Metric: one version a level of MoRF, then one a level of LeRF."""
        masks = self.masks(maps, pixels.shape[-2:], seeds)
        imputed = impute(pixels.cpu(), masks.cpu())
        for image, mask, seed in zip(imputed, masks.cpu(), seeds, strict=True):
            for version in range(len(mask)):
                self._add_noise(image[version], mask[version], [seed, version])
        return imputed.to(pixels.device)

    def masks(
        self, maps: Tensor, size: tuple[int, int] | torch.Size, seeds: Sequence[int]
    ) -> Tensor:
        """The removed pixels of every version, bool (B, V, H, W)."""
        rank = ranks(resize(maps, size), seeds)
        total = rank[0].numel()
        counts = [count(level, total) for level in self._removed]
        first = [rank < n for n in counts]
        last = [rank >= total - n for n in counts]
        return torch.stack(first + last, dim=1)

    def _add_noise(self, image: Tensor, mask: Tensor, seed: Sequence[int]) -> None:
        noise = np.random.default_rng(seed).standard_normal((3, int(mask.sum())), np.float32)
        image[:, mask] += self._noise * torch.from_numpy(noise)

    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """See Metric: 100 where the predicted class is the explained one still, else 0."""
        unchanged = 100.0 * (after.argmax(dim=2) == targets[:, None]).float()
        levels = len(self._removed)
        return [
            Values(measure.name, level, unchanged[:, order * levels + v])
            for order, measure in enumerate(self.measures)
            for v, level in enumerate(self._removed)
        ]
