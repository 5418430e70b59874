"""Maps as metrics see them: at the size of the image, and cut at a share of their pixels.

The two modes of the protocol differ here. `Maps` is the corrected arithmetic: exact numbers of
pixels, ties broken by the image's seed, and a map that holds NaN or infinite values says nothing
(it counts as a constant one). `ReferenceMaps` repeats the arithmetic of the T-TAME reference:
thresholds, whatever the ties, and NaN goes its way.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Maps:
    """Maps of a batch of images, in the corrected mode.

    Args:
        native: (B, h, w), as the explainer gave them, of any resolution.
        size: (H, W) of the images.
        seeds: (B,), one an image: ties are broken by it and by nothing else.

    Raises:
        ValueError: not three dimensions, or another number of seeds than of maps.

    Example:
        >>> maps = Maps(torch.tensor([[[0.2, 0.8], [0.4, 0.6]]]), (2, 2), seeds=[0])
        >>> maps.ranks.tolist()
        [[[3, 0], [2, 1]]]
        >>> maps.top(50).tolist()
        [[[False, True], [False, True]]]
    """

    def __init__(
        self, native: Tensor, size: tuple[int, int] | torch.Size, seeds: Sequence[int]
    ) -> None:
        if native.ndim != 3 or len(native) != len(seeds):
            raise ValueError(
                f"maps have shape {tuple(native.shape)}: expected ({len(seeds)}, h, w), one a seed"
            )
        self.native = native
        self.size = (int(size[0]), int(size[1]))
        self.seeds = list(seeds)

    def __len__(self) -> int:
        """The number of images, B."""
        return len(self.native)

    @property
    def pixels(self) -> int:
        """The number of pixels of an image, H W."""
        return self.size[0] * self.size[1]

    @cached_property
    def finite(self) -> Tensor:
        """Which maps (B,) hold neither NaN nor infinite values."""
        return self.native.isfinite().flatten(1).all(dim=1)

    @cached_property
    def constant(self) -> Tensor:
        """Which maps (B,) are finite and have one value only."""
        return self.finite & (self.native.amax(dim=(1, 2)) == self.native.amin(dim=(1, 2)))

    @cached_property
    def resized(self) -> Tensor:
        """(B, H, W), min-max normalised at the native size, then resized bilinearly.

        Pixel centres lie at halves. A map that is constant or not finite is zero everywhere.
        """
        return _resize(_normalise(self.native.where(self.finite[:, None, None], 0.0)), self.size)

    @cached_property
    def ranks(self) -> Tensor:
        """The rank of every pixel (B, H, W): 0 is the most relevant, H W - 1 the least.

        Pixels of equal value come in an order drawn from the image's seed.
        """
        order = self._order
        positions = torch.arange(self.pixels, device=order.device).expand_as(order)
        return torch.empty_like(order).scatter_(1, order, positions).view(-1, *self.size)

    @cached_property
    def ascending(self) -> Tensor:
        """The values (B, H W) of `resized`, sorted."""
        return self.resized.flatten(1).gather(1, self._order).flip(1)

    @cached_property
    def _order(self) -> Tensor:
        """The places (B, H W) of the pixels in the order of their ranks."""
        flat = self.resized.flatten(1)
        shuffles = torch.stack(
            [
                torch.from_numpy(np.random.default_rng(s).permutation(self.pixels))
                for s in self.seeds
            ]
        ).to(flat.device)
        order = flat.gather(1, shuffles).argsort(dim=1, descending=True, stable=True)
        return shuffles.gather(1, order)

    def top(self, percent: float) -> Tensor:
        """The `percent` most relevant pixels, bool (B, H, W)."""
        return self.ranks < self.count(percent)

    def bottom(self, percent: float) -> Tensor:
        """The `percent` least relevant pixels, bool (B, H, W)."""
        return self.ranks >= self.pixels - self.count(percent)

    def count(self, percent: float) -> int:
        """How many pixels are `percent` of an image's, rounded to the nearest, halves up."""
        return int(percent / 100 * self.pixels + 0.5)

    def settle(self, values: Tensor) -> Tensor:
        """Values (B,) of a measure as they are kept.

        Raises:
            ValueError: one is NaN, which no map can cause in this mode.
        """
        bad = int(values.isnan().sum())
        if bad:
            raise ValueError(
                f"{bad} of {len(values)} scores are NaN: expected numbers, check that the "
                "network's probabilities are finite"
            )
        return values


class ReferenceMaps(Maps):
    """Maps of a batch of images, in the mode `reference` (the T-TAME code, commit 92499e7).

    A share of the pixels is what lies above a quantile, linearly interpolated: with ties it can be
    many more. A NaN score becomes 0, which for a drop is as good as can be.
    """

    @cached_property
    def resized(self) -> Tensor:
        """See Maps; a map with NaN is NaN everywhere."""
        return _resize(_normalise(self.native), self.size)

    @cached_property
    def ascending(self) -> Tensor:
        """See Maps."""
        return self.resized.flatten(1).sort(dim=1).values

    def top(self, percent: float) -> Tensor:
        """All but the pixels below the (100 - percent) % quantile, bool (B, H, W)."""
        return ~(self.resized < _quantile(self.ascending, 100 - percent))

    def bottom(self, percent: float) -> Tensor:
        """The same of the map's complement."""
        return ~(1 - self.resized < _quantile(1 - self.ascending.flip(1), 100 - percent))

    def settle(self, values: Tensor) -> Tensor:
        """Values (B,) of a measure with 0 for NaN."""
        return values.nan_to_num(0.0)


MODES: dict[str, type[Maps]] = {"corrected": Maps, "reference": ReferenceMaps}
"""The arithmetic of each mode."""


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed for a device: the CPU for Apple's MPS, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


def _normalise(maps: Tensor) -> Tensor:
    low = maps.amin(dim=(1, 2), keepdim=True)
    spread = maps.amax(dim=(1, 2), keepdim=True) - low
    return torch.where(spread == 0, 0.0, (maps - low) / spread)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _quantile(ascending: Tensor, percent: float) -> Tensor:
    """The linearly interpolated quantile of sorted values (B, N), as (B, 1, 1)."""
    place = percent / 100 * (ascending.shape[1] - 1)
    below, above = math.floor(place), math.ceil(place)
    return torch.lerp(ascending[:, below], ascending[:, above], place - below)[:, None, None]
