"""Localisation: exact values, limits, and the definitions as plain loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics import Maps
from metrics.localisation import (
    Localisation,
    energy_pointing_game,
    iou_best,
    iou_matched,
    pointing_game,
)


@pytest.fixture
def square() -> Tensor:
    """An object of 16 pixels in a corner of 8 x 8."""
    objects = torch.zeros(1, 8, 8, dtype=torch.bool)
    objects[:, :4, :4] = True
    return objects


def read(native: Tensor, objects: Tensor, tolerance: float = 0.0) -> dict[str, float]:
    maps = Maps(native, objects.shape[1:], list(range(len(native))))
    values = Localisation(tolerance).read(maps, objects)
    assert [v.measure for v in values] == [m.name for m in Localisation.measures]
    return {v.measure: float(v.per_image[0]) for v in values}


def test_the_object_itself_is_perfect(square: Tensor) -> None:
    assert set(read(square.float(), square).values()) == {100.0}


def test_its_complement_is_the_worst(square: Tensor) -> None:
    found = read((~square).float(), square)
    assert (found["pointing_game"], found["energy_pointing_game"]) == (0, 0)
    assert found["iou_matched"] == 0
    assert found["iou_best"] == 25  # the whole image, at the lowest threshold


@pytest.mark.parametrize("value", [0.0, 0.7, torch.nan])
def test_a_map_that_says_nothing(square: Tensor, value: float) -> None:
    found = read(torch.full((1, 8, 8), value), square)
    assert found["energy_pointing_game"] == 0
    assert found["iou_best"] == 25


def test_exact_values() -> None:
    native = torch.tensor([[[0.0, 1.0, 0.5], [0.25, 0.25, 0.0]]])
    objects = torch.tensor([[[False, True, False], [True, False, False]]])
    found = read(native, objects)
    assert found["pointing_game"] == 100
    assert found["energy_pointing_game"] == pytest.approx(62.5)
    # Sorted: in, out, {in, out} tied, {out, out} tied: IoU 1/2, 1/3, 2/4, 2/6.
    assert found["iou_best"] == 50
    assert found["iou_matched"] == pytest.approx(100 / 3)


def test_tolerance_of_the_pointing_game(square: Tensor) -> None:
    ranks = torch.ones(1, 8, 8, dtype=torch.int64)
    ranks[0, 6, 7] = 0  # 3 rows and 4 columns off: a distance of 5 pixels
    assert float(pointing_game(ranks, square, 5.0)) == 100
    assert float(pointing_game(ranks, square, 4.9)) == 0


def test_a_tied_maximum_is_drawn_by_the_seed(square: Tensor) -> None:
    maps = Maps(torch.zeros(400, 8, 8), (8, 8), list(range(400)))
    hits = pointing_game(maps.ranks, square.expand(400, -1, -1))
    assert float(hits.mean()) == pytest.approx(25, abs=11)  # five standard deviations


def test_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    native = rng.integers(0, 12, (6, 9, 7)) / 11  # with ties
    native[:, 0, 0], native[:, 0, 1] = 0, 1
    objects = rng.random((6, 9, 7)) < 0.3
    maps, there = torch.from_numpy(native).float(), torch.from_numpy(objects)
    for i in range(6):
        best = max(
            100 * ((native[i] >= t) & objects[i]).sum() / ((native[i] >= t) | objects[i]).sum()
            for t in np.unique(native[i])
        )
        assert float(iou_best(maps, there)[i]) == pytest.approx(best, rel=1e-5)
        energy = 100 * native[i][objects[i]].sum() / native[i].sum()
        assert float(energy_pointing_game(maps, there)[i]) == pytest.approx(energy, rel=1e-5)


def test_matched_area_is_the_rank_accuracy_as_iou() -> None:
    """Arras et al.: the share a of the top pixels that lie in the object; IoU = a / (2 - a)."""
    native = torch.rand(4, 10, 10, generator=torch.Generator().manual_seed(1))
    objects = torch.rand(4, 10, 10, generator=torch.Generator().manual_seed(2)) < 0.4
    ranks = Maps(native, (10, 10), [0, 1, 2, 3]).ranks
    for i in range(4):
        area = int(objects[i].sum())
        top = np.argsort(-native[i].numpy().ravel())[:area]
        accuracy = objects[i].numpy().ravel()[top].mean()
        expected = 100 * accuracy / (2 - accuracy)
        assert float(iou_matched(ranks, objects)[i]) == pytest.approx(expected, rel=1e-5)


def test_refuses_an_image_without_object_and_a_negative_tolerance(square: Tensor) -> None:
    with pytest.raises(ValueError, match="image 1 of the batch has no object pixel"):
        read(torch.rand(2, 8, 8), torch.cat([square, ~square & square]))
    with pytest.raises(ValueError, match=r"tolerance of localisation is -1\.0"):
        Localisation(-1.0)
