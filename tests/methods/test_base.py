"""Backbone, maps and seeds."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from methods import Backbone, Passes, Preparation, check_maps, wrap
from methods._base import image_seeds, normalise
from methods._layers import wake


def test_normalises_inside(cnn: Backbone, pixels: Tensor) -> None:
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    std = torch.tensor([0.5, 0.25, 0.2]).view(3, 1, 1)
    assert torch.allclose(cnn(pixels), cnn.network((pixels - mean) / std))


def test_counts_images_forward_and_backward(cnn: Backbone, pixels: Tensor) -> None:
    with torch.no_grad():
        cnn(pixels)
    inputs = pixels[:2].clone().requires_grad_()
    cnn(inputs).sum().backward()
    assert (cnn.passes.forward, cnn.passes.backward) == (5, 2)


def test_taps_and_removes_hooks(tiny: Backbone, pixels: Tensor) -> None:
    with tiny.tap(tiny.taps) as outputs:
        tiny(pixels)
    grids = [tuple(tiny.grid(outputs[layer]).shape) for layer in tiny.taps]
    expected = {
        "cnn": [(3, 4, 16, 16), (3, 6, 8, 8), (3, 8, 4, 4)],
        "transformer": [(3, 12, 4, 4)] * 3,
    }
    assert grids == expected[tiny.family]
    assert all(not m._forward_hooks for m in tiny.modules())


def test_hooks_go_when_a_layer_is_unknown(cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=r"no layer '0.conf'"), cnn.tap(["0", "0.conf"]):
        pass
    assert all(not m._forward_hooks for m in cnn.modules())


def test_unknown_layer_lists_near_names(lite0: Backbone) -> None:
    with pytest.raises(ValueError, match=r"no layer 'blocks.9'.*blocks\.[0-6]"):
        lite0.layer("blocks.9")


def test_grid_keeps_the_order_of_the_patches(tiny: Backbone) -> None:
    if tiny.family == "cnn":
        pytest.skip("a CNN has no tokens")
    tokens = torch.arange(17.0).view(1, 17, 1)
    assert tiny.grid(tokens).flatten().tolist() == [float(i) for i in range(1, 17)]
    with pytest.raises(ValueError, match="15 patch tokens"):
        tiny.grid(tokens[:, :16])


def test_digest_sees_weights_and_preprocessing(cnn: Backbone) -> None:
    network, kwargs = cnn.network, {"name": "n", "size": 32, "classes": 5, "taps": ["0"]}
    first = Backbone(network, mean=[0.5] * 3, std=[0.5] * 3, cam_layer="2", **kwargs).digest  # type: ignore[arg-type]
    other = Backbone(network, mean=[0.4] * 3, std=[0.5] * 3, cam_layer="1", **kwargs).digest  # type: ignore[arg-type]
    again = Backbone(network, mean=[0.5] * 3, std=[0.5] * 3, cam_layer="1", **kwargs).digest  # type: ignore[arg-type]
    assert first == again != other
    with torch.no_grad():
        next(network.parameters())[0, 0] += 1
    changed = Backbone(network, mean=[0.5] * 3, std=[0.5] * 3, cam_layer="2", **kwargs).digest  # type: ignore[arg-type]
    assert changed != first


def test_a_preparation_is_for_the_size() -> None:
    with pytest.raises(ValueError, match="a preparation that crops 7 pixels: expected its size, 8"):
        Backbone(
            torch.nn.Conv2d(3, 4, 1), name="x", mean=HALF, std=HALF, size=8, classes=4, taps=["x"],
            cam_layer="x", preparation=Preparation(9, 7),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (255 * x).byte(), "images are torch.uint8: expected a tensor of torch.float32"),
        (lambda x: x[0], r"shape \(3, 32, 32\): expected \(B, 3, H, W\); images\[None\] is"),
        (lambda x: x[:, :1], r"shape \(3, 1, 32, 32\): expected"),
        (lambda x: x.numpy(), "images are of type ndarray: expected a tensor"),
    ],
)
def test_a_network_is_asked_about_pixels(
    cnn: Backbone, pixels: Tensor, change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cnn(change(pixels))
    with pytest.raises(ValueError, match=message):
        cnn.probabilities(change(pixels))


def test_normalise() -> None:
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]])
    assert normalise(maps).tolist() == [[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]


HALF = [0.5] * 3


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], HALF, r"has mean \[0.5\]: expected three numbers, one a channel"),
        (HALF, [0.5] * 4, "has std .*: expected three numbers"),
        (0.5, HALF, "has mean 0.5: expected three numbers"),
        ("abc", HALF, "has mean 'abc': expected three numbers"),
        (HALF, [0.5, 0.0, 0.5], r"has std .*: expected values in \(0, 1\]"),
        ([123.7, 116.3, 103.5], HALF, r"has mean .*: expected values in \[0, 1\].*by 255"),
        (HALF, [0.5, float("nan"), 0.5], "has std .*: expected values in"),
    ],
)
def test_mean_and_std_are_of_three_channels(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"'x' {message}"):
        Backbone(
            torch.nn.Conv2d(3, 4, 1), name="x", mean=mean, std=std, size=8, classes=4, taps=["x"],
            cam_layer="x",
        )  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_normalise_hides_nothing_that_is_not_finite(value: float) -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, value]], [[0.0, 1.0], [2.0, 4.0]]])
    found = normalise(maps)
    with pytest.raises(ValueError, match="NaN or infinite"):
        check_maps(found, maps)
    assert found[1].tolist() == [[0.0, 0.25], [0.5, 1.0]]


def test_image_seeds_depend_on_the_image_alone(pixels: Tensor) -> None:
    seeds = image_seeds(pixels)
    assert len(set(seeds)) == 3
    assert image_seeds(pixels.flip(0)) == seeds[::-1]
    assert image_seeds(pixels[1:2]) == seeds[1:2]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.float64), "float64"),
        (torch.zeros(1, 4, 4), r"expected \(2, h, w\)"),
        (torch.zeros(2, 1, 4, 4), r"expected \(2, h, w\)"),
        (torch.full((2, 4, 4), torch.nan), "32 values that are NaN"),
        (torch.full((2, 4, 4), 1.5), r"expected \[0, 1\]"),
        (torch.full((2, 4, 4), -0.5), r"expected \[0, 1\]"),
    ],
)
def test_check_maps_refuses(maps: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_maps(maps, torch.zeros(2, 3, 8, 8))


def test_what_lies_before_a_layer_sees_one_image_or_as_many_as_it_must() -> None:
    """CrossViT joins the tokens of two branches: of one branch alone there cannot be more."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("crossvit_9_240", num_classes=5)
    wake(network)
    joined = wrap(
        network, name="joined", size=240, mean=[0.5] * 3, std=[0.5] * 3,
        taps=["norm.0"], cam_layer="norm.0", prefix_tokens=1, trusted=["norm.0", "norm.1"],
    )  # fmt: skip
    image = torch.rand(1, 3, 240, 240)
    for layer in ("blocks.0.blocks.0.0.norm1", "norm.0"):
        with torch.no_grad(), joined.tap([layer]) as outputs:
            whole = joined(image)
        several = torch.cat([outputs[layer], 2 * outputs[layer], outputs[layer]])
        joined.passes = Passes()
        with torch.no_grad():
            found = joined.from_layer(layer, image, several)
        assert joined.passes == Passes(3, 0)
        assert torch.allclose(found[[0, 2]], whole.expand(2, -1), atol=1e-5)
        assert not torch.allclose(found[1], whole[0], atol=1e-3)
