"""Exact numbers of pixels, whatever the ties."""

import pytest
import torch

from metrics._masking import count, ranks, resize


def test_ranks_from_most_to_least_relevant() -> None:
    maps = torch.tensor([[[0.1, 0.9], [0.5, 0.3]]])
    assert ranks(maps, [0]).tolist() == [[[3, 0], [1, 2]]]


@pytest.mark.parametrize("zeros", [0.6, 0.7, 1.0])
def test_ties_change_no_count(zeros: float) -> None:
    """The reference removes 60 % where 10 % are asked for on a map that is 60 % zeros."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 20, 20, generator=generator)
    maps[:, : round(20 * zeros)] = 0
    rank = ranks(maps, [1, 2])
    for percent in (10, 15, 50, 90):
        wanted = count(percent, 400)
        assert ((rank < wanted).sum(dim=(1, 2)) == wanted).all()
        assert ((rank >= 400 - wanted).sum(dim=(1, 2)) == wanted).all()
    assert [sorted(r.flatten().tolist()) for r in rank] == [list(range(400))] * 2


def test_ties_are_broken_by_the_images_seed_alone() -> None:
    maps = torch.zeros(3, 8, 8)
    rank = ranks(maps, [1, 2, 1])
    assert torch.equal(rank[0], rank[2])
    assert not torch.equal(rank[0], rank[1])
    assert torch.equal(ranks(maps[:1], [2])[0], rank[1])


def test_ties_have_no_place_of_their_own() -> None:
    """Among tied pixels every place is as likely: no row or column is favoured."""
    top = torch.stack([(ranks(torch.zeros(1, 8, 8), [s])[0] < 32).float() for s in range(400)])
    assert float((top.mean(dim=0) - 0.5).abs().max()) < 0.125  # five standard deviations


@pytest.mark.parametrize(
    ("percent", "pixels", "expected"),
    [(100, 50176, 50176), (50, 50176, 25088), (15, 50176, 7526), (0.1, 100, 0), (50, 5, 3)],
)
def test_count(percent: float, pixels: int, expected: int) -> None:
    assert count(percent, pixels) == expected


def test_resize_has_half_pixel_centres() -> None:
    maps = torch.tensor([[[0.0, 1.0]]])
    assert resize(maps, (1, 4)).tolist() == [[[0.0, 0.25, 0.75, 1.0]]]


def test_resize_refuses_nan() -> None:
    maps = torch.zeros(3, 2, 2)
    maps[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="map 1 of the batch holds NaN"):
        resize(maps, (4, 4))
