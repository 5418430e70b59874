"""What every metric promises: pure functions, one value an image, no backbone in sight."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metrics._maps import Maps


@dataclass(frozen=True)
class Measure:
    """One number a metric gives for an image, at each of its levels if it has any.

    Attributes:
        name: in the `metric` column of every result file.
        label: in tables and plots.
        unit: of the value of an image and of the mean over images.
        bounds: the lowest and the highest value it can have.
        higher_is_better: the good direction.
        paper: author, year, venue or arXiv number.
        levels: what its levels count; None for a measure without levels.
        agreement: it asks whether the prediction stays the explained class, so that it means
            something only where that is what the network predicts.

    Example:
        >>> import metrics
        >>> metrics.measures()["average_drop"].label
        'AD'
    """

    name: str
    label: str
    unit: str
    bounds: tuple[float, float]
    higher_is_better: bool
    paper: str
    levels: str | None = None
    agreement: bool = False


@dataclass(frozen=True)
class Values:
    """A measure at one level (per cent of the pixels; None if it has none): `per_image` (B,).

    Example:
        >>> import torch
        >>> Values("average_drop", 50.0, torch.tensor([12.5])).level
        50.0
    """

    measure: str
    level: float | None
    per_image: Tensor


class Metric(ABC):
    """A file's metric: what it measures. Derive from one of the two kinds below.

    `in_reference` says whether the evaluation of the T-TAME paper computes it, that is whether it
    exists in the mode `reference`. `version` is raised when a value of a measure can change; the
    changelog says why.

    Example:
        >>> import metrics
        >>> [measure.label for measure in metrics.load("confidence").measures]
        ['AD', 'IC', 'AG']
    """

    measures: ClassVar[tuple[Measure, ...]]
    in_reference: ClassVar[bool] = False
    version: ClassVar[int] = 1


class Perturbation(Metric):
    """Perturbs images by their maps and judges the predictions before and after.

    The two halves are apart so that one forward pass serves the perturbed images of many metrics.

    Example:
        >>> import torch
        >>> from metrics import Maps, build
        >>> maps = Maps(torch.rand(2, 4, 4), (8, 8), seeds=[0, 1])
        >>> build("confidence", {"kept": [50, 15]}).perturb(torch.ones(2, 3, 8, 8), maps).shape
        torch.Size([2, 2, 3, 8, 8])
    """

    @property
    @abstractmethod
    def versions(self) -> int:
        """V, the number of perturbed versions of an image."""

    @abstractmethod
    def perturb(self, pixels: Tensor, maps: Maps) -> Tensor:
        """The images a metric asks predictions for.

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            maps: of these images; the only source of randomness is their seeds.

        Returns:
            (B, V, 3, H, W), the perturbed versions of each image.
        """

    @abstractmethod
    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """The measures, from probabilities.

        Args:
            before: (B, K), of the images.
            after: (B, V, K), of their perturbed versions.
            targets: (B,), the explained classes.
        """


class Reading(Metric):
    """Reads its measures off the maps: no prediction is asked for.

    Example:
        >>> import torch
        >>> from metrics import Maps, build
        >>> objects = torch.zeros(1, 2, 2, dtype=torch.bool)
        >>> objects[0, 0, 0] = True
        >>> maps = Maps(torch.tensor([[[1.0, 0.0], [0.0, 0.5]]]), (2, 2), seeds=[0])
        >>> build("localisation", {}).read(maps, objects)[0]
        Values(measure='pointing_game', level=None, per_image=tensor([100.]))
    """

    @abstractmethod
    def read(self, maps: Maps, objects: Tensor) -> list[Values]:
        """The measures.

        Args:
            maps: of the images.
            objects: (B, H, W), bool, where the object of each image is.
        """


def check_levels(name: str, levels: Sequence[float]) -> tuple[float, ...]:
    """The levels of a metric, per cent of the pixels, if they can be that.

    Raises:
        ValueError: none, one outside of [0, 100] or one twice; calls them `name`.
    """
    outside = [v for v in levels if not isinstance(v, int | float) or not 0 <= v <= 100]
    if outside or not levels or len(set(levels)) < len(levels):
        raise ValueError(
            f"{name} is {list(levels)}: expected per cent of the pixels, each from 0 to 100 and "
            "once, at least one"
        )
    return tuple(levels)
