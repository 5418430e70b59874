"""Degenerate maps are counted."""

import torch

from metrics import Maps
from metrics.degeneracy import Degeneracy, tied_pixels


def test_counts() -> None:
    native = torch.rand(4, 4, 4)
    native[0, 1, 1] = torch.nan
    native[1] = 0.3
    native[2] = torch.arange(16).view(4, 4).clamp_min(9) / 15  # ten pixels of one value
    native[3] = torch.arange(16).view(4, 4) / 15
    values = Degeneracy().read(Maps(native, (4, 4), range(4)), torch.ones(4, 4, 4).bool())
    found = {v.measure: v.per_image.tolist() for v in values}
    assert found == {
        "nan_maps": [100, 0, 0, 0],
        "constant_maps": [0, 100, 0, 0],
        "tied_pixels": [100, 100, 62.5, 0],
    }


def test_the_largest_group_counts() -> None:
    assert tied_pixels(torch.tensor([[1.0, 1.0, 2.0, 2.0, 2.0]])).tolist() == [60]
