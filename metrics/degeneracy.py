"""Degenerate maps: those with NaN, with one value only, with many equal values."""

import torch
from torch import Tensor

from metrics._base import Measure, Reading, Values
from metrics._maps import Maps

PAPER = "this suite"


class Degeneracy(Reading):
    """How often a map says nothing, and how much of it is left to the seed that breaks ties.

    A cut through a group of equal values takes pixels of the group at random; the largest group
    bounds how many.

    Example:
        >>> import torch
        >>> from metrics import Maps, build
        >>> maps = Maps(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), (2, 2), seeds=[0])
        >>> found = build("degeneracy", {}).read(maps, torch.ones(1, 2, 2) > 0)
        >>> {value.measure: float(value.per_image[0]) for value in found}
        {'nan_maps': 0.0, 'constant_maps': 0.0, 'tied_pixels': 75.0}
    """

    measures = (
        Measure(
            name="nan_maps",
            label="NaN maps",
            unit="% of maps",
            bounds=(0, 100),
            higher_is_better=False,
            paper=PAPER,
        ),
        Measure(
            name="constant_maps",
            label="Constant maps",
            unit="% of maps",
            bounds=(0, 100),
            higher_is_better=False,
            paper=PAPER,
        ),
        Measure(
            name="tied_pixels",
            label="Tied pixels",
            unit="% of pixels in the largest group of one value",
            bounds=(0, 100),
            higher_is_better=False,
            paper=PAPER,
        ),
    )

    def read(self, maps: Maps, objects: Tensor) -> list[Values]:
        """See Reading."""
        return [
            Values("nan_maps", None, 100.0 * (~maps.finite).float()),
            Values("constant_maps", None, 100.0 * maps.constant.float()),
            Values("tied_pixels", None, tied_pixels(maps.ascending)),
        ]


def tied_pixels(ascending: Tensor) -> Tensor:
    """The largest group of equal values (B, n), which are sorted, in per cent; 0 if none are."""
    groups = [own.unique_consecutive(return_counts=True)[1] for own in ascending]
    largest = torch.stack([counts.amax() for counts in groups])
    return 100 * largest.where(largest > 1, 0) / ascending.shape[1]
