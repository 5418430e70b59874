"""ROAD: remove pixels by noisy linear imputation, see whether the prediction stays.

The same predictions give comprehensiveness, sufficiency and SRG, for no further forward pass.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from metrics._base import Measure, Perturbation, Values, check_levels
from metrics._maps import Maps
from metrics.imputation import impute

REMOVED = (10.0, 20.0, 30.0, 40.0, 50.0, 70.0, 90.0)
"""Per cent of the pixels removed, the levels of the T-TAME paper."""

Colour = float | Sequence[float]
"""One number for all three channels, or one a channel, in units of pixels in [0, 1]."""


class ROAD(Perturbation):
    """ROAD in both orders: the most relevant pixels first (MoRF) and the least (LeRF).

    The noise is drawn from the seed of the image, the order and the level, and added to the
    removed pixels. ROAD keeps whether the explained class is still the predicted one;
    comprehensiveness (MoRF) and sufficiency (LeRF) keep how much of its probability went. SRG,
    the symmetric relevance gain, is the distance between the two curves of that probability (LeRF -
    MoRF). Tables also have the mean over the levels, and the area: the trapezoidal integral over
    the levels divided by their range.

    Args:
        removed: levels, per cent of the pixels removed.
        noise: standard deviation of the noise.
        empty: what an image is before the noise when all its pixels are removed.

    Raises:
        ValueError: levels that are no per cent.

    Example:
        >>> import torch
        >>> from metrics import Maps, build
        >>> maps = Maps(torch.tensor([[[0.9, 0.1], [0.4, 0.2]]]), (2, 2), seeds=[0])
        >>> most, least = build("road", {"removed": [25]}).masks(maps)[0]
        >>> most.int().tolist(), least.int().tolist()
        ([[1, 0], [0, 0]], [[0, 1], [0, 0]])
    """

    measures = (
        Measure(
            name="road_morf",
            label="ROAD MoRF",
            unit="% unchanged",
            bounds=(0, 100),
            levels="% of pixels removed",
            agreement=True,
            higher_is_better=False,
            paper="Rong et al. 2022, ICML, arXiv 2202.00449",
        ),
        Measure(
            name="road_lerf",
            label="ROAD LeRF",
            unit="% unchanged",
            bounds=(0, 100),
            levels="% of pixels removed",
            agreement=True,
            higher_is_better=True,
            paper="Rong et al. 2022, ICML, arXiv 2202.00449",
        ),
        Measure(
            name="comprehensiveness",
            label="Comprehensiveness",
            unit="percentage points of probability",
            bounds=(-100, 100),
            levels="% of pixels removed",
            higher_is_better=True,
            paper="DeYoung et al. 2020 (ERASER), arXiv 1911.03429; removal as in ROAD",
        ),
        Measure(
            name="sufficiency",
            label="Sufficiency",
            unit="percentage points of probability",
            bounds=(-100, 100),
            levels="% of pixels kept",
            higher_is_better=False,
            paper="DeYoung et al. 2020 (ERASER), arXiv 1911.03429; removal as in ROAD",
        ),
        Measure(
            name="srg",
            label="SRG",
            unit="percentage points of probability",
            bounds=(-100, 100),
            levels="% of pixels removed",
            higher_is_better=True,
            paper="Blücher et al. 2024, TMLR, arXiv 2401.06654; removal as in ROAD",
        ),
    )
    in_reference = True

    def __init__(
        self, removed: Sequence[float] = REMOVED, noise: Colour = 0.01, empty: Colour = 0.5
    ) -> None:
        self._removed = check_levels("removed", removed)
        self._noise = np.broadcast_to(np.asarray(noise, np.float32), 3)[:, None]
        self._empty = torch.broadcast_to(torch.as_tensor(empty, dtype=torch.float32), (3,))

    @property
    def versions(self) -> int:
        """One a level and order."""
        return 2 * len(self._removed)

    def perturb(self, pixels: Tensor, maps: Maps) -> Tensor:
        """See Perturbation: one version a level of MoRF, then one a level of LeRF."""
        masks = self.masks(maps)
        imputed = impute(pixels, masks)
        imputed[masks.flatten(2).all(dim=2)] = self._empty.to(pixels.device)[:, None, None]
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._add_noise, imputed.flatten(3), masks.flatten(2), maps.seeds))
        return imputed

    def masks(self, maps: Maps) -> Tensor:
        """The removed pixels of every version, bool (B, V, H, W)."""
        orders = (maps.top, maps.bottom)
        return torch.stack([order(p) for order in orders for p in self._removed], dim=1)

    def _add_noise(self, versions: Tensor, masks: Tensor, seed: int) -> None:
        """Add noise to the removed pixels (V, H W) of an image's versions (V, 3, H W)."""
        for number, (image, mask) in enumerate(zip(versions, masks, strict=True)):
            where = mask.nonzero()[:, 0]
            rng = np.random.default_rng((seed, number))
            noise = rng.standard_normal((3, len(where)), np.float32)
            noise *= self._noise
            image.index_add_(1, where, torch.from_numpy(noise).to(image.device))

    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """See Perturbation: ROAD is 100 where the class named is still the explained one, or 0."""
        unchanged = 100.0 * (after.argmax(dim=2) == targets[:, None]).float()
        rows = torch.arange(len(targets), device=targets.device)
        lost = 100 * (before[rows, targets][:, None] - after[rows, :, targets])
        levels = len(self._removed)
        kept = tuple(100 - percent for percent in self._removed)
        return [
            Values(measure.name, level, values[:, v])
            for measure, names, values in zip(
                self.measures,
                (self._removed, self._removed, self._removed, kept, self._removed),
                (
                    unchanged[:, :levels],
                    unchanged[:, levels:],
                    lost[:, :levels],
                    lost[:, levels:],
                    lost[:, :levels] - lost[:, levels:],
                ),
                strict=True,
            )
            for v, level in enumerate(names)
        ]
