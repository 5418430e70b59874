"""IIA where it reduces to something known, and against loops of one point at a time."""

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from methods import Backbone, Passes
from methods._base import normalise
from methods._transformer import attentions, rolled_out
from methods.hirescam import HiResCAM
from methods.iia import IIA

TARGETS = torch.tensor([0, 3, 1])


@pytest.fixture
def on_pixels(cnn: Backbone) -> Backbone:
    """A CNN whose CAM layer is the image itself."""
    return Backbone(
        nn.Sequential(nn.Identity(), cnn.network),
        name="on_pixels",
        mean=[0.0] * 3,
        std=[1.0] * 3,
        size=32,
        classes=5,
        taps=["0"],
        cam_layer="0",
    )


def test_one_outer_step_on_pixels_is_integrated_gradients(
    on_pixels: Backbone, pixels: Tensor
) -> None:
    maps = IIA(on_pixels, image_steps=1, layer_steps=7)(pixels, TARGETS)
    reference = IntegratedGradients(on_pixels).attribute(
        pixels, 0.0, target=TARGETS, n_steps=7, method="riemann_right"
    )
    assert torch.allclose(maps, normalise(reference.sum(1).relu().float()), atol=1e-5)


def test_outer_steps_add_up_integrated_gradients_of_scaled_images(
    on_pixels: Backbone, pixels: Tensor
) -> None:
    maps = IIA(on_pixels, image_steps=3, layer_steps=4)(pixels, TARGETS)
    total = torch.zeros_like(pixels)
    for scale in (1 / 3, 2 / 3, 1.0):
        total = total + IntegratedGradients(on_pixels).attribute(
            scale * pixels, 0.0, target=TARGETS, n_steps=4, method="riemann_right"
        )
    assert torch.allclose(maps, normalise(total.sum(1).relu().float()), atol=1e-5)


def test_many_inner_steps_are_the_integral_of_the_layer(cnn: Backbone, pixels: Tensor) -> None:
    """Behind the CAM layer the tiny CNN is linear: any number of steps gives the same."""
    maps = IIA(cnn, image_steps=1, layer_steps=20)(pixels, TARGETS)
    with torch.no_grad(), cnn.tap(["2"]) as outputs:
        cnn(pixels)
    features = outputs["2"]
    reference = LayerIntegratedGradients(cnn.network[3], cnn.network[3][0]).attribute(  # type: ignore[index, arg-type]
        features, torch.zeros_like(features), target=TARGETS, n_steps=20
    )
    pooled = reference.detach()  # pooled features times weights: a share of the logit a channel
    share = (features * pooled / features.mean(dim=(2, 3), keepdim=True).clamp_min(1e-12)).sum(1)
    assert torch.allclose(maps, normalise(share.relu().float()), atol=1e-4)
    assert torch.allclose(maps, IIA(cnn, image_steps=1, layer_steps=1)(pixels, TARGETS), atol=1e-5)


def test_one_step_each_is_hirescam(cnn: Backbone, pixels: Tensor) -> None:
    maps = IIA(cnn, image_steps=1, layer_steps=1, layer="1")(pixels, TARGETS)
    assert torch.allclose(maps, HiResCAM(cnn, layer="1")(pixels, TARGETS), atol=1e-5)


def test_of_a_transformer_is_a_loop_over_the_points(vit: Backbone, pixels: Tensor) -> None:
    maps = IIA(vit, image_steps=2, layer_steps=3, batch_size=4)(pixels, TARGETS)
    for image, target, found in zip(pixels, TARGETS, maps, strict=True):
        blocks = [torch.zeros(17, 17) for _ in range(3)]
        for a in (0.5, 1.0):
            for b in (1 / 3, 2 / 3, 1.0):

                def last(index: int, attention: Tensor, b: float = b) -> Tensor:
                    return b * attention if index == 2 else attention

                with attentions(vit, last) as collected:
                    logits = vit(a * image[None])
                gradients = torch.autograd.grad(logits[0, target], collected)
                for i in range(3):
                    blocks[i] += (gradients[i] * collected[i].detach()).relu()[0].mean(0) / 6
        row = rolled_out([block[None, None] for block in blocks])[0, 1:]
        assert torch.allclose(found, normalise(row.view(1, 4, 4))[0], atol=1e-5)


def test_the_batch_size_changes_nothing(vit: Backbone, pixels: Tensor) -> None:
    whole = IIA(vit, image_steps=3, layer_steps=3)(pixels, TARGETS)
    parts = IIA(vit, image_steps=3, layer_steps=3, batch_size=2)(pixels, TARGETS)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_it_costs_steps_times_steps(tiny: Backbone, pixels: Tensor) -> None:
    explainer = IIA(tiny, image_steps=2, layer_steps=5)
    tiny.passes = Passes()
    explainer(pixels, TARGETS)
    assert tiny.passes == Passes(30, 30)


def test_refuses_no_steps(tiny: Backbone) -> None:
    with pytest.raises(ValueError, match="layer_steps 0, batch_size 32: expected at least 1"):
        IIA(tiny, layer_steps=0)
