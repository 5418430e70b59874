"""The sanity check: what is shuffled, and how alike maps are."""

import copy

import numpy as np
import pytest
import torch
from conftest import TINY, MakeSplit
from scipy.stats import spearmanr
from torch import nn

from benchmark.engine.randomising import WINDOW, rank_correlation, seed_agreement, shuffle, ssim
from methods import Backbone


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    """Names of the modules of which a weight is another."""
    return {
        name.rpartition(".")[0]
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }


def test_the_topmost_layers_are_shuffled_first(tiny: Backbone) -> None:
    network = tiny.network
    layers = [n for n, m in network.named_modules() if any(True for _ in m.parameters(False))]
    for percent in (1, 34, 100):
        shuffled = copy.deepcopy(network)
        shuffle(shuffled, percent, seed=0)
        count = max(1, round(len(layers) * percent / 100))
        found = changed(network, shuffled)
        assert found <= set(layers[-count:])
        assert layers[-1] in found or layers[-count] in found
        linear = {n for n in layers[-count:] if isinstance(network.get_submodule(n), nn.Linear)}
        assert linear <= found


def test_values_stay_and_move(tiny: Backbone) -> None:
    shuffled, again, other = (copy.deepcopy(tiny.network) for _ in range(3))
    shuffle(shuffled, 100, seed=0)
    shuffle(again, 100, seed=0)
    shuffle(other, 100, seed=1)
    for old, new, same in zip(
        tiny.network.parameters(), shuffled.parameters(), again.parameters(), strict=True
    ):
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        assert torch.equal(new, same)
    assert changed(shuffled, other)


def test_ssim_by_its_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, WINDOW, WINDOW)).astype(np.float32)
    # One window: means, unbiased variances and covariance over all 49 pixels.
    cov = np.cov(a.ravel(), b.ravel())
    c1, c2 = 0.01**2, 0.03**2
    means = a.mean() * b.mean()
    expected = (2 * means + c1) * (2 * cov[0, 1] + c2)
    expected /= (a.mean() ** 2 + b.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-5)
    assert ssim(a, a) == pytest.approx(1.0)


def test_rank_correlation() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 9, 9)).astype(np.float32)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    assert rank_correlation(a, a**3) == pytest.approx(1.0)
    assert rank_correlation(a, 1 - a) == pytest.approx(-1.0)


def test_constant_maps() -> None:
    flat, other = np.zeros((9, 9), np.float32), np.eye(9, dtype=np.float32)
    assert rank_correlation(flat, flat) == 1.0
    assert rank_correlation(flat, other) == 0.0
    assert ssim(flat, flat) == pytest.approx(1.0)


def test_seeds_agree_as_their_maps_rank(make_split: MakeSplit) -> None:
    """Image by image: 1 for the same map, -1 for its opposite, 0 for an unrelated one, about."""
    split = make_split("evaluation", 3)
    rng = np.random.default_rng(0)
    before = rng.random((3, TINY, TINY), np.float32)
    after = np.stack([before[0], 1 - before[1], rng.random((TINY, TINY), np.float32)])
    found = seed_agreement(before, after, split)
    assert found["image"].tolist() == split.ids
    assert set(found["metric"]) == {"seed_rank"}
    assert found["value"].tolist() == pytest.approx([1, -1, 0], abs=0.1)
