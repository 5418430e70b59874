"""Each explainer against an independent reference or a case whose answer is known."""

import math

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from methods import Backbone
from methods._base import normalise
from methods._fill import Fill
from methods.centre_gaussian import CentreGaussian
from methods.edges import Edges
from methods.integrated_gradients import IntegratedGradients
from methods.random_map import RandomMap
from methods.rise import RISE

TARGETS = torch.tensor([0, 3, 1])


def test_integrated_gradients_is_captums(cnn: Backbone, pixels: Tensor) -> None:
    maps = IntegratedGradients(cnn, steps=8, batch_size=5)(pixels, TARGETS)
    reference = CaptumIntegratedGradients(cnn).attribute(pixels, 0.0, target=TARGETS, n_steps=8)
    assert torch.allclose(maps, normalise(reference.sum(1).abs().float()), atol=1e-5)


class Linear(nn.Module):
    """Two classes whose logits are w.x and 0, so that integrated gradients are w x exactly."""

    def __init__(self, size: int) -> None:
        super().__init__()
        weights = torch.randn(3, size, size, generator=torch.Generator().manual_seed(3))
        self.weights = nn.Parameter(weights / size)
        self.identity = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logit = (x * self.weights).sum(dim=(1, 2, 3))
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


@pytest.fixture
def linear() -> Backbone:
    return Backbone(
        Linear(28),
        name="linear",
        mean=[0.0] * 3,
        std=[1.0] * 3,
        size=28,
        classes=2,
        taps=["identity"],
        cam_layer="identity",
    )


def test_integrated_gradients_of_a_linear_model(linear: Backbone) -> None:
    images = torch.rand(2, 3, 28, 28)
    maps = IntegratedGradients(linear, steps=3)(images, torch.tensor([0, 0]))
    exact = (images * linear.network.weights).sum(dim=1).abs()
    assert torch.allclose(maps, normalise(exact.detach()), atol=1e-5)


def test_rise_is_the_plain_formula(linear: Backbone) -> None:
    images, explainer = torch.rand(2, 3, 28, 28), RISE(linear, masks=50, batch_size=7)
    maps = explainer(images, torch.tensor([0, 1]))
    masks = explainer.masks(0, 50, (28, 28))
    for image, target, found in zip(images, (0, 1), maps, strict=True):
        scores = linear(image * masks[:, None]).softmax(dim=1)[:, target]
        expected = sum(s * m for s, m in zip(scores, masks, strict=True)) / (50 * 0.5)
        assert torch.allclose(found, normalise(expected[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("fill", "colour"), [("mean", [0.2, 0.4, 0.6]), ("black", [0.0] * 3), ("white", [1.0] * 3)]
)
def test_rise_under_its_masks(fill: Fill, colour: list[float], linear: Backbone) -> None:
    """With the mean it is the formula on normalised images, as its authors' and T-TAME's code."""
    linear.mean[:] = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    linear.std.fill_(0.5)
    image, explainer = torch.rand(1, 3, 28, 28), RISE(linear, masks=40, fill=fill)
    masks = explainer.masks(0, 40, (28, 28))[:, None]
    masked = masks * image + (1 - masks) * torch.tensor(colour).view(1, 3, 1, 1)
    scores = linear(masked).softmax(dim=1)[:, 0]
    if fill == "mean":
        normalised = (image - linear.mean) / linear.std
        assert torch.allclose(scores, linear.network(normalised * masks).softmax(dim=1)[:, 0])
    expected = torch.einsum("n,nhw->hw", scores, masks[:, 0])
    found = explainer(image, torch.tensor([0]))[0]
    assert torch.allclose(found, normalise(expected[None])[0], atol=1e-5)


def test_rise_with_logits_is_the_references_formula(linear: Backbone) -> None:
    images, explainer = torch.rand(1, 3, 28, 28), RISE(linear, masks=30, scores="logits")
    masks = explainer.masks(0, 30, (28, 28))
    scores = linear(images * masks[:, None])[:, 1]
    expected = torch.einsum("n,nhw->hw", scores, masks)
    found = explainer(images, torch.tensor([1]))[0]
    assert torch.allclose(found, normalise(expected[None])[0], atol=1e-5)
    with pytest.raises(
        ValueError, match="scores is 'softmax': expected one of probabilities, logits"
    ):
        RISE(linear, scores="softmax")  # type: ignore[arg-type]


def test_rise_finds_the_one_region_that_matters() -> None:
    class Region(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside = x[:, :, 4:12, 16:24].mean(dim=(1, 2, 3))
            return torch.stack([8 * inside, torch.full_like(inside, 4.0)], dim=1)

    network = nn.Sequential(Region())
    backbone = Backbone(
        network,
        name="region",
        mean=[0] * 3,
        std=[1] * 3,
        size=28,
        classes=2,
        taps=["0"],
        cam_layer="0",
    )
    maps = RISE(backbone, masks=600)(torch.ones(1, 3, 28, 28), torch.tensor([0]))[0]
    y, x = divmod(int(maps.argmax()), 28)
    assert 4 <= y < 12
    assert 16 <= x < 24


def test_rise_masks_have_the_papers_statistics(cnn: Backbone) -> None:
    masks = RISE(cnn, masks=500, cells=7).masks(0, 500, (56, 56))
    assert masks.shape == (500, 56, 56)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    assert float(masks.mean()) == pytest.approx(0.5, abs=0.01)
    assert float((masks.mean(dim=0) - 0.5).abs().max()) < 0.12


def test_rise_masks_do_not_depend_on_the_chunk(cnn: Backbone) -> None:
    explainer = RISE(cnn, masks=20)
    whole = explainer.masks(0, 20, (32, 32))
    parts = torch.cat([explainer.masks(i, i + 6, (32, 32)) for i in range(0, 20, 6)])
    assert torch.equal(whole, parts)


def test_rise_refuses_senseless_settings(cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=r"probability 1.0: expected .* between 0 and 1"):
        RISE(cnn, probability=1.0)


def test_centre_gaussian_exactly(cnn: Backbone, pixels: Tensor) -> None:
    maps = CentreGaussian(cnn, sigma=0.25)(pixels, TARGETS)
    y, x = (np.mgrid[:32, :32] + 0.5) / 32 - 0.5
    expected = np.exp(-(x**2 + y**2) / (2 * 0.25**2))
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert np.allclose(maps[0].numpy(), expected, atol=1e-5)
    assert torch.equal(maps[0], maps[2])
    with pytest.raises(ValueError, match="sigma is 0"):
        CentreGaussian(cnn, sigma=0)


def test_edges_of_a_step_are_at_the_step(cnn: Backbone) -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:] = 1
    maps = Edges(cnn, sigma=2)(images, TARGETS[:1])[0].numpy()
    profile = np.abs(gaussian_filter((np.arange(32) >= 16).astype(float), 2, order=1))
    assert maps[10].argmax() in (15, 16)
    assert np.allclose(maps[10], profile / profile.max(), atol=1e-3)
    assert np.allclose(maps, maps[0])


def test_random_maps_differ_between_images_and_seeds(cnn: Backbone, pixels: Tensor) -> None:
    first, other = RandomMap(cnn)(pixels, TARGETS), RandomMap(cnn, seed=1)(pixels, TARGETS)
    assert first.shape == (3, 7, 7)
    for a, b in ((first[0], first[1]), (first[0], other[0])):
        assert abs(spearmanr(a.flatten(), b.flatten()).statistic) < 4 / math.sqrt(48)
        assert not torch.equal(a, b)
