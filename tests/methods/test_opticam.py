"""Opti-CAM: its first step by hand, where it ends, and what it refuses."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import Backbone
from methods._base import normalise
from methods.opticam import OptiCAM, masked_by

TARGETS = torch.tensor([0, 3, 1])


class Picked(nn.Module):
    """Two channels: the image's red and its green; a logit is what one exceeds the other by."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.eye(3)[:2, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        means: Tensor = self.features(images).mean(dim=(2, 3))
        return means - means.flip(1)


@pytest.fixture
def picked() -> Backbone:
    return Backbone(
        Picked(), name="picked", mean=[0.0] * 3, std=[1.0] * 3, size=32, classes=2,
        taps=["features"], cam_layer="features",
    )  # fmt: skip


@pytest.fixture
def flag() -> Tensor:
    """Red on the left, green on the right, nothing between."""
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, :, :12] = 1
    image[:, 1, :, 20:] = 1
    return image


@pytest.mark.parametrize("target", [0, 1])
def test_the_channel_that_makes_the_class_is_left(
    target: int, picked: Backbone, flag: Tensor
) -> None:
    maps = OptiCAM(picked)(flag, torch.tensor([target]))
    assert torch.allclose(maps, flag[:, target], atol=0.05)


def test_the_first_step_of_adam_is_the_rate(picked: Backbone, flag: Tensor) -> None:
    """Adam's first step is the rate times the sign of the gradient."""
    rate, image = 0.3, flag[0]
    explainer = OptiCAM(picked, steps=1, rate=rate)
    asked: list[Tensor] = []
    picked.network.register_forward_pre_hook(lambda _module, own: asked.append(own[0]))
    features = torch.stack([image[0], 0.5 * image[1]])
    mixed = explainer._optimised(image, features, 1)
    first = normalise(features.mean(dim=0)[None])  # equal weights
    assert torch.allclose(asked[0], image * first, atol=1e-6)
    weights = torch.tensor([-rate, rate]).softmax(dim=0)
    assert torch.allclose(mixed, torch.einsum("c,chw->hw", weights, features), atol=1e-5)


def test_the_logit_of_what_is_kept_grows(cnn: Backbone, pixels: Tensor) -> None:
    with torch.no_grad(), cnn.tap([cnn.cam_layer]) as outputs:
        cnn(pixels)
        features = outputs[cnn.cam_layer].relu()
    found = []
    for maps in (features.mean(dim=1), OptiCAM(cnn, steps=30)(pixels, TARGETS)):
        masks = normalise(F.interpolate(maps[:, None], size=32, mode="bilinear")[:, 0])
        found.append(cnn(pixels * masks[:, None]).gather(1, TARGETS[:, None]))
    assert bool((found[1] >= found[0] - 1e-4).all())
    assert bool((found[1] > found[0] + 1e-3).any())


def test_the_fill_lies_under_the_mask(cnn: Backbone, pixels: Tensor) -> None:
    black, mean = (OptiCAM(cnn, fill=fill)(pixels, TARGETS) for fill in ("black", "mean"))
    assert not torch.allclose(black, mean, atol=0.01)


def test_it_costs_what_it_says(cnn: Backbone, pixels: Tensor) -> None:
    OptiCAM(cnn, steps=4)(pixels, TARGETS)
    assert (cnn.passes.forward, cnn.passes.backward) == (3 * 5, 3 * 4)


def test_equal_features_make_no_mask() -> None:
    """A constant map says nothing, and keeps nothing."""
    mask = masked_by(torch.zeros(2), torch.ones(2, 4, 4), torch.Size([8, 8]))
    assert torch.equal(mask, torch.zeros(8, 8))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"rate": 0.0}, {"rate": math.nan}])
def test_it_refuses(settings: dict[str, Any], cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=r"steps is \d+, rate .*: expected 1 or more"):
        OptiCAM(cnn, **settings)
