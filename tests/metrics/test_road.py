"""ROAD: exact removal, seeded noise, and pytorch-grad-cam's scores on the same masks."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import (
    NoisyLinearImputer,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.ndimage import gaussian_filter
from torch import Tensor

from methods import Backbone
from metrics import Maps
from metrics.road import REMOVED, ROAD


@pytest.fixture
def native() -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))


SEEDS = [11, 12, 13]


def maps_of(native: Tensor, side: int = 32, seeds: list[int] = SEEDS) -> Maps:
    return Maps(native, (side, side), seeds)


def test_removed_pixels_are_exact_and_ordered(native: Tensor) -> None:
    maps = maps_of(native)
    masks = ROAD().masks(maps)
    shares = [int(percent / 100 * 1024 + 0.5) for percent in REMOVED]
    assert masks.sum(dim=(2, 3)).tolist() == [shares + shares] * 3
    most, least = masks[:, :7], masks[:, 7:]
    assert bool((most[:, 1:] >= most[:, :-1]).all())
    assert bool((least[:, 1:] >= least[:, :-1]).all())
    assert not bool((most[:, 4] & least[:, 4]).any())
    for i, resized in enumerate(maps.resized):
        assert resized[most[i, 0]].min() >= resized[~most[i, 0]].max()
        assert resized[least[i, 0]].max() <= resized[~least[i, 0]].min()


def test_noise_has_its_sigma_and_stays_in_the_hole(native: Tensor) -> None:
    pixels, maps = torch.rand(3, 3, 64, 64), maps_of(native, 64)
    metric, quiet = ROAD([50], noise=0.01), ROAD([50], noise=0.0)
    masks = metric.masks(maps)
    noise = metric.perturb(pixels, maps) - quiet.perturb(pixels, maps)
    holes = masks[:, :, None].expand_as(noise)
    assert float(noise[~holes].abs().max()) == 0
    assert float(noise[holes].std()) == pytest.approx(0.01, rel=0.02)
    assert float(noise[holes].mean()) == pytest.approx(0, abs=3e-4)


def test_every_version_of_every_image_has_noise_of_its_own() -> None:
    """Equal images with equal maps and nearly equal levels: the same holes, other noise."""
    pixels, native = torch.full((2, 3, 32, 32), 0.5), torch.arange(1024.0).view(1, 32, 32)
    maps = maps_of(native.expand(2, -1, -1), seeds=[5, 6])
    metric = ROAD([50, 50.01])
    noise = metric.perturb(pixels, maps) - 0.5
    holes = metric.masks(maps)
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert torch.equal(holes[0], holes[1])
    drawn = noise[:, :2, :, holes[0, 0]].flatten(0, 1).flatten(1)
    correlation = torch.corrcoef(drawn) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / 1536**0.5


def test_noise_of_each_channel(native: Tensor) -> None:
    pixels, maps = torch.rand(3, 3, 64, 64), maps_of(native, 64)
    sigmas = [0.1, 0.0, 0.02]
    noise = ROAD([50], sigmas).perturb(pixels, maps) - ROAD([50], 0.0).perturb(pixels, maps)
    mask = ROAD([50]).masks(maps)[:, 0]
    found = [float(noise[:, 0, c][mask].std()) for c in range(3)]
    assert found == pytest.approx(sigmas, rel=0.03)


@pytest.mark.parametrize(("empty", "expected"), [(0.5, [0.5] * 3), ([0, 0.2, 1], [0, 0.2, 1])])
def test_everything_removed(native: Tensor, empty: object, expected: list[float]) -> None:
    metric = ROAD([100], noise=0.0, empty=empty)  # type: ignore[arg-type]
    perturbed = metric.perturb(torch.rand(3, 3, 32, 32), maps_of(native))
    assert torch.allclose(perturbed, torch.tensor(expected).view(3, 1, 1).expand_as(perturbed))


def test_same_bytes_alone_in_a_batch_and_in_any_order(native: Tensor) -> None:
    pixels, metric = torch.rand(3, 3, 32, 32), ROAD()
    together = metric.perturb(pixels, maps_of(native))
    turned = metric.perturb(pixels.flip(0), maps_of(native.flip(0), seeds=SEEDS[::-1]))
    assert torch.equal(turned.flip(0), together)
    for i in range(3):
        own = slice(i, i + 1)
        alone = metric.perturb(pixels[own], maps_of(native[own], seeds=SEEDS[own]))
        assert torch.equal(alone[0], together[i])


def judged(metric: ROAD, backbone: Backbone, pixels: Tensor, maps: Maps) -> dict[str, np.ndarray]:
    """Values (B, levels) by measure."""
    before = backbone.probabilities(pixels)
    perturbed = metric.perturb(pixels, maps)
    after = backbone.probabilities(perturbed.flatten(0, 1)).unflatten(0, perturbed.shape[:2])
    found: dict[str, list[np.ndarray]] = {}
    for values in metric.judge(before, after, before.argmax(dim=1)):
        found.setdefault(values.measure, []).append(values.per_image.numpy())
    return {name: np.stack(columns, axis=1) for name, columns in found.items()}


def test_decisions_equal_pytorch_grad_cams_imputer(
    tiny: Backbone, native: Tensor, pixels: Tensor
) -> None:
    metric, reference, maps = ROAD(noise=0.0), NoisyLinearImputer(noise=0), maps_of(native)
    found = judged(metric, tiny, pixels, maps)
    targets = tiny.predict(pixels)
    for i, masks in enumerate(metric.masks(maps)):
        imputed = torch.stack([reference(pixels[i], (~mask).float()) for mask in masks])
        expected = 100.0 * (tiny.predict(imputed) == targets[i])
        ours = np.concatenate([found["road_morf"][i], found["road_lerf"][i]])
        assert ours.tolist() == expected.tolist()


def test_scores_equal_pytorch_grad_cams_road(lite0: Backbone, photographs: tuple) -> None:
    """Its own two classes, noise off, on maps without ties: the same masks come out."""
    levels, pixels = [10, 50, 90], photographs[0][[0, 7]]
    smooth = gaussian_filter(np.random.default_rng(5).standard_normal((2, 224, 224)), (0, 20, 20))
    order = smooth.reshape(2, -1).argsort(axis=1).argsort(axis=1)
    native = torch.from_numpy(order / order.max()).float().view(2, 224, 224)
    maps = Maps(native, (224, 224), [0, 1])
    found = judged(ROAD(levels, noise=0.0), lite0, pixels, maps)
    before = lite0.probabilities(pixels)
    names = before.argmax(dim=1).tolist()
    for reference, changed, lost in (
        (ROADMostRelevantFirst, "road_morf", "comprehensiveness"),
        (ROADLeastRelevantFirst, "road_lerf", "sufficiency"),
    ):
        for v, level in enumerate(levels):
            theirs = reference(percentile=100 - level)

            theirs.perturbation.imputer = NoisyLinearImputer(noise=0)
            targets = [ClassifierOutputSoftmaxTarget(name) for name in names]
            difference, images = theirs(
                pixels, maps.resized.numpy(), targets, lite0, return_visualization=True
            )
            assert np.allclose(-100 * difference, found[lost][:, v], atol=1e-2)
            unchanged = 100.0 * (lite0.predict(images) == before.argmax(dim=1))
            assert unchanged.tolist() == found[changed][:, v].tolist()


def test_judges_by_order_and_level() -> None:
    before, after = torch.tensor([[0.2, 0.8, 0.0]]), torch.zeros(1, 4, 3)
    after[0] = torch.tensor([[0, 1.0, 0], [0, 0.3, 0.7], [0, 0.9, 0.1], [0, 0.6, 0.4]])
    values = ROAD([10, 50]).judge(before, after, torch.tensor([1]))
    assert [(v.measure, v.level) for v in values] == [
        ("road_morf", 10),
        ("road_morf", 50),
        ("road_lerf", 10),
        ("road_lerf", 50),
        ("comprehensiveness", 10),
        ("comprehensiveness", 50),
        ("sufficiency", 90),
        ("sufficiency", 50),
        ("srg", 10),
        ("srg", 50),
    ]
    found = [float(v.per_image) for v in values]
    expected = [100, 0, 100, 100, -20, 50, -10, 20, 90 - 100, 60 - 30]
    assert found == pytest.approx(expected, abs=1e-4)
