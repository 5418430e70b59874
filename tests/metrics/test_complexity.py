"""Complexity: limits, the pairwise definition of Gini, and scipy's entropy."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from metrics import Maps
from metrics.complexity import Complexity, entropy, gini


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0)) ** 3


def ordered(maps: Tensor) -> Tensor:
    """The values of each map, sorted upwards."""
    return maps.flatten(1).sort(dim=1).values


def test_gini_is_the_mean_absolute_difference(maps: torch.Tensor) -> None:
    """G = sum_ij |x_i - x_j| / (2 n^2 mean)."""
    for values, found in zip(maps.flatten(1).double().numpy(), gini(ordered(maps)), strict=True):
        pairwise = np.abs(values[:, None] - values).mean() / (2 * values.mean())
        assert float(found) == pytest.approx(pairwise, rel=1e-5)


def test_entropy_is_scipys(maps: torch.Tensor) -> None:
    for values, found in zip(maps.flatten(1).double().numpy(), entropy(maps), strict=True):
        assert float(found) == pytest.approx(100 * scipy_entropy(values) / np.log(42), rel=1e-5)


def test_limits() -> None:
    one, even = torch.zeros(1, 10, 10), torch.full((1, 10, 10), 0.4)
    one[0, 3, 3] = 0.2
    assert float(gini(ordered(one))) == pytest.approx(0.99)
    assert float(gini(ordered(even))) == pytest.approx(0, abs=1e-6)
    assert float(entropy(one)) == 0
    assert float(entropy(even)) == pytest.approx(100)
    half = (torch.arange(100) < 50).float().view(1, 10, 10)
    assert float(gini(ordered(half))) == pytest.approx(0.5)
    assert float(entropy(half)) == pytest.approx(100 * np.log(50) / np.log(100))


def test_a_map_of_zeros_is_spread_over_all_pixels() -> None:
    assert float(gini(ordered(torch.zeros(1, 4, 4)))) == 0
    assert float(entropy(torch.zeros(1, 4, 4))) == pytest.approx(100)


def test_scale_changes_nothing(maps: torch.Tensor) -> None:
    assert torch.allclose(gini(ordered(maps / 3)), gini(ordered(maps)), atol=1e-6)
    assert torch.allclose(entropy(maps / 3), entropy(maps), atol=1e-4)


def test_reads_both(maps: torch.Tensor) -> None:
    found = Complexity().read(Maps(maps, (12, 14), range(5)), torch.ones(5, 12, 14).bool())
    assert [v.measure for v in found] == ["gini", "entropy"]
    resized = Maps(maps, (12, 14), range(5)).resized
    assert torch.equal(found[0].per_image, gini(ordered(resized)))
    assert torch.equal(found[1].per_image, entropy(resized))
