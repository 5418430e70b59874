"""Exact numbers of pixels, whatever the ties; and the reference's thresholds."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.perturbation_confidence import (
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from torch import Tensor

from metrics import MODES, Maps
from metrics._maps import ReferenceMaps


def maps_of(native: Tensor, side: int | None = None, seeds: list[int] | None = None) -> Maps:
    """Corrected maps, of the native size if no side is given."""
    size = (side, side) if side else native.shape[1:]
    return Maps(native, size, list(range(len(native))) if seeds is None else seeds)


def test_modes() -> None:
    assert {"corrected": Maps, "reference": ReferenceMaps} == MODES


def test_ranks_from_most_to_least_relevant() -> None:
    native = torch.tensor([[[0.1, 0.9], [0.5, 0.3]]])
    assert maps_of(native).ranks.tolist() == [[[3, 0], [1, 2]]]


@pytest.mark.parametrize("zeros", [0.6, 0.7, 1.0])
def test_ties_change_no_count(zeros: float) -> None:
    """The reference removes 60 % where 10 % are asked for on a map that is 60 % zeros."""
    native = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0))
    native[:, : round(20 * zeros)] = 0
    maps = maps_of(native, seeds=[1, 2])
    for percent in (10, 15, 50, 90):
        wanted = maps.count(percent)
        assert wanted == 400 * percent / 100
        assert maps.top(percent).sum(dim=(1, 2)).tolist() == [wanted] * 2
        assert maps.bottom(percent).sum(dim=(1, 2)).tolist() == [wanted] * 2
        assert not bool((maps.top(percent) & maps.bottom(100 - percent)).any())
    assert [sorted(r.flatten().tolist()) for r in maps.ranks] == [list(range(400))] * 2


def test_ties_are_broken_by_the_images_seed_alone() -> None:
    native = torch.zeros(3, 8, 8)
    ranks = maps_of(native, seeds=[1, 2, 1]).ranks
    assert torch.equal(ranks[0], ranks[2])
    assert not torch.equal(ranks[0], ranks[1])
    assert torch.equal(maps_of(native[:1], seeds=[2]).ranks[0], ranks[1])


def test_ties_have_no_place_of_their_own() -> None:
    """Among tied pixels every place is as likely: no row or column is favoured."""
    maps = maps_of(torch.zeros(400, 8, 8))
    share = maps.top(50).float().mean(dim=0)
    assert float((share - 0.5).abs().max()) < 0.125  # five standard deviations


@pytest.mark.parametrize(
    ("percent", "size", "expected"),
    [
        (100, (224, 224), 50176),
        (50, (224, 224), 25088),
        (15, (224, 224), 7526),
        (0.1, (10, 10), 0),
        (50, (1, 5), 3),
    ],
)
def test_count(percent: float, size: tuple[int, int], expected: int) -> None:
    assert Maps(torch.zeros(1, 2, 2), size, [0]).count(percent) == expected


def test_resized_has_half_pixel_centres() -> None:
    maps = Maps(torch.tensor([[[0.0, 1.0]]]), (1, 4), [0])
    assert maps.resized.tolist() == [[[0.0, 0.25, 0.75, 1.0]]]


@pytest.mark.parametrize("mode", MODES)
def test_normalised_before_it_is_resized(mode: str) -> None:
    maps = MODES[mode](torch.tensor([[[0.2, 0.6]]]), (1, 4), [0])
    assert torch.allclose(maps.resized, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite_counts_as_constant(value: float) -> None:
    native = torch.rand(3, 4, 4)
    native[1, 2, 2] = value
    maps = maps_of(native, 8)
    assert maps.finite.tolist() == [True, False, True]
    assert not bool(maps.constant.any())
    assert float(maps.resized[1].abs().max()) == 0
    assert torch.equal(maps.ranks[1], maps_of(torch.zeros(3, 4, 4), 8).ranks[1])
    assert torch.equal(maps.resized[::2], maps_of(native[::2], 8).resized)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_is_zero(value: float) -> None:
    maps = maps_of(torch.full((1, 4, 4), value), 8)
    assert maps.constant.tolist() == [True]
    assert float(maps.resized.abs().max()) == 0


@pytest.mark.parametrize(
    ("native", "seeds"), [(torch.zeros(2, 3), [0, 1]), (torch.zeros(2, 3, 3), [0])]
)
def test_refuses_what_is_no_batch_of_maps(native: Tensor, seeds: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected \(\d, h, w\), one a seed"):
        Maps(native, (4, 4), seeds)


def test_nan_scores_are_refused_or_the_references_zero() -> None:
    values = torch.tensor([1.0, torch.nan])
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        maps_of(torch.zeros(2, 2, 2)).settle(values)
    assert ReferenceMaps(torch.zeros(2, 2, 2), (2, 2), [0, 1]).settle(values).tolist() == [1, 0]


@pytest.mark.parametrize("zeros", [0.0, 0.6])
@pytest.mark.parametrize("percent", [10, 50, 70, 90])
def test_reference_removes_what_pytorch_grad_cam_removes(percent: float, zeros: float) -> None:
    native = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(3))
    native = native.where(native > zeros, 0.0)
    maps = ReferenceMaps(native, (12, 12), [0])
    for remove, ours in (
        (RemoveMostRelevantFirst, maps.top(percent)),
        (RemoveLeastRelevantFirst, maps.bottom(percent)),
    ):
        kept = remove(100 - percent, lambda _image, mask: mask)(native[0], maps.resized[0])
        assert torch.equal(~ours[0], kept.bool())


@pytest.mark.parametrize("percent", [0, 10, 15, 33.3, 50, 85, 100])
def test_reference_thresholds_are_torchs_quantiles(percent: float) -> None:
    resized = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(2))
    resized[:, 0, 0], resized[:, 0, 1] = 0, 1
    maps = ReferenceMaps(resized, (9, 11), [0, 1, 2])
    threshold = resized.flatten(1).quantile(1 - percent / 100, dim=1)[:, None, None]
    assert torch.equal(maps.top(percent), resized >= threshold)
    threshold = (1 - resized).flatten(1).quantile(1 - percent / 100, dim=1)[:, None, None]
    assert torch.equal(maps.bottom(percent), 1 - resized >= threshold)


def test_modes_agree_without_ties() -> None:
    native = torch.from_numpy(np.random.default_rng(0).permutation(400).reshape(1, 20, 20) / 399.0)
    corrected, reference = (mode(native.float(), (20, 20), [0]) for mode in MODES.values())
    for percent in (10, 50, 90):
        assert torch.equal(corrected.top(percent), reference.top(percent))
        assert torch.equal(corrected.bottom(percent), reference.bottom(percent))


@pytest.mark.parametrize("mode", MODES)
def test_values_are_sorted_whatever_the_ties(mode: str) -> None:
    native = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)).mul(4).round()
    maps = MODES[mode](native, (20, 20), [0, 1, 2])
    assert torch.equal(maps.ascending, maps.resized.flatten(1).sort(dim=1).values)
