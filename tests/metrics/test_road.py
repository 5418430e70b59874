"""ROAD: exact removal, seeded noise, and the decisions of pytorch-grad-cam on the same masks."""

import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor

from methods import Backbone
from metrics.road import REMOVED, ROAD


@pytest.fixture
def maps() -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))


SEEDS = [11, 12, 13]


def test_removed_pixels_are_exact_and_ordered(maps: Tensor) -> None:
    size = (32, 32)
    masks = ROAD().masks(maps, size, SEEDS)
    shares = [int(percent / 100 * 1024 + 0.5) for percent in REMOVED]
    assert masks.sum(dim=(2, 3)).tolist() == [shares + shares] * 3
    most, least = masks[:, :7], masks[:, 7:]
    assert bool((most[:, 1:] >= most[:, :-1]).all())
    assert bool((least[:, 1:] >= least[:, :-1]).all())
    assert not bool((most[:, 4] & least[:, 4]).any())
    resized = torch.nn.functional.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0]
    for i in range(3):
        assert resized[i][most[i, 0]].min() >= resized[i][~most[i, 0]].max()
        assert resized[i][least[i, 0]].max() <= resized[i][~least[i, 0]].min()


def test_most_zeros_still_removes_ten_per_cent(maps: Tensor) -> None:
    """The reference's LeRF 10 % removes 60 % of a map that is 60 % zeros, MoRF 70 % all."""
    sparse = maps.where(maps > 0.6, 0.0)
    shares = ROAD([10, 70]).masks(sparse, (8, 8), SEEDS).sum(dim=(2, 3))
    assert shares.tolist() == [[6, 45, 6, 45]] * 3


def test_noise_has_its_sigma_and_stays_in_the_hole(maps: Tensor) -> None:
    pixels = torch.rand(3, 3, 64, 64)
    metric, quiet = ROAD([50], noise=0.01), ROAD([50], noise=0.0)
    masks = metric.masks(maps, (64, 64), SEEDS)
    noise = metric.perturb(pixels, maps, SEEDS) - quiet.perturb(pixels, maps, SEEDS)
    holes = masks[:, :, None].expand_as(noise)
    assert float(noise[~holes].abs().max()) == 0
    assert float(noise[holes].std()) == pytest.approx(0.01, rel=0.02)
    assert float(noise[holes].mean()) == pytest.approx(0, abs=3e-4)
    assert not torch.equal(
        noise[0, 0][masks[0, 0].expand(3, -1, -1)], noise[0, 1][masks[0, 1].expand(3, -1, -1)]
    )


def test_same_bytes_alone_in_a_batch_and_in_any_order(maps: Tensor) -> None:
    pixels, metric = torch.rand(3, 3, 32, 32), ROAD()
    together = metric.perturb(pixels, maps, SEEDS)
    assert torch.equal(metric.perturb(pixels.flip(0), maps.flip(0), SEEDS[::-1]).flip(0), together)
    for i in range(3):
        own = slice(i, i + 1)
        assert torch.equal(metric.perturb(pixels[own], maps[own], SEEDS[own])[0], together[i])


def test_decisions_equal_pytorch_grad_cams(cnn: Backbone, maps: Tensor, pixels: Tensor) -> None:
    metric, reference = ROAD(noise=0.0), NoisyLinearImputer(noise=0)
    targets = cnn.probabilities(pixels).argmax(dim=1)
    masks = metric.masks(maps, (32, 32), SEEDS)
    perturbed = metric.perturb(pixels, maps, SEEDS)
    after = cnn.probabilities(perturbed.flatten(0, 1)).unflatten(0, (3, 14))
    found = torch.stack([v.per_image for v in metric.judge(cnn(pixels), after, targets)], dim=1)
    for i in range(3):
        imputed = torch.stack([reference(pixels[i], (~mask).float()) for mask in masks[i]])
        expected = 100.0 * (cnn.probabilities(imputed).argmax(dim=1) == targets[i])
        assert found[i].tolist() == expected.tolist()


def test_judges_by_order_and_level() -> None:
    after = torch.zeros(1, 4, 3)
    after[0, [0, 1, 2, 3], [1, 2, 1, 1]] = 1
    values = ROAD([10, 50]).judge(torch.zeros(1, 3), after, torch.tensor([1]))
    assert [(v.measure, v.level, float(v.per_image)) for v in values] == [
        ("road_morf", 10, 100.0),
        ("road_morf", 50, 0.0),
        ("road_lerf", 10, 100.0),
        ("road_lerf", 50, 100.0),
    ]
