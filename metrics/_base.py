"""What every metric promises: pure functions, one value an image, no backbone in sight."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Measure:
    """One number a metric gives for an image and a level.

    Attributes:
        name: in the `metric` column of every result file.
        label: in tables and plots.
        unit: of the mean over images.
        levels: what its levels count.
        higher_is_better: the good direction.
        paper: author, year, venue or arXiv number.
    """

    name: str
    label: str
    unit: str
    levels: str
    higher_is_better: bool
    paper: str


@dataclass(frozen=True)
class Values:
    """A measure at one level (per cent of the pixels): `per_image` (B,)."""

    measure: str
    level: float
    per_image: Tensor


class Metric(ABC):
    """Perturbs images by their maps and judges the predictions before and after.

    The two halves are apart so that one forward pass serves the perturbed images of many metrics.
    """

    measures: ClassVar[tuple[Measure, ...]]

    @abstractmethod
    def perturb(self, pixels: Tensor, maps: Tensor, seeds: Sequence[int]) -> Tensor:
        """The images a metric asks predictions for.

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            maps: (B, h, w) in [0, 1], of any resolution.
            seeds: (B,), one an image: the only source of randomness.

        Returns:
            (B, V, 3, H, W), V perturbed versions of each image.
        """

    @abstractmethod
    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """The measures, from probabilities.

        Args:
            before: (B, K), of the images.
            after: (B, V, K), of their perturbed versions.
            targets: (B,), the explained classes.
        """
