"""The captum family against exact answers of small networks, and against plain loops."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods import Backbone, Passes
from methods._base import image_seeds, normalise, seeded
from methods._captum import superpixels
from methods._fill import Fill, SegmentFill, without_superpixels
from methods.constant import Constant
from methods.gradient_shap import GradientShap
from methods.input_x_gradient import InputXGradient
from methods.kernel_shap import KernelShap
from methods.lime import Lime
from methods.occlusion import Occlusion
from methods.saliency import Saliency
from methods.smoothgrad import SmoothGrad

TARGETS = torch.tensor([0, 3, 1])
SIDE = 24


class Logits(nn.Module):
    """Two classes: a function of the pixels, and zero."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logit = self.function(x)
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


def network(function: Callable[[Tensor], Tensor]) -> Backbone:
    return Backbone(
        Logits(function),
        name="exact",
        mean=[0.0] * 3,
        std=[1.0] * 3,
        size=SIDE,
        classes=2,
        taps=["unused"],
        cam_layer="unused",
    )


WEIGHTS = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) / SIDE


@pytest.fixture
def linear() -> Backbone:
    return network(lambda x: (x * WEIGHTS).sum(dim=(1, 2, 3)))


@pytest.fixture
def images() -> Tensor:
    """Two images of four flat quarters with a little noise."""
    generator = torch.Generator().manual_seed(5)
    colours = torch.rand(2, 3, 2, 2, generator=generator)
    noise = 0.01 * torch.rand(2, 3, SIDE, SIDE, generator=generator)
    return (nn.functional.interpolate(colours, size=(SIDE, SIDE)) * 0.9 + noise).clamp(0, 1)


def gradient(backbone: Backbone, images: Tensor, targets: Tensor) -> Tensor:
    inputs = images.clone().requires_grad_()
    score = backbone(inputs)[range(len(images)), targets].sum()
    return torch.autograd.grad(score, inputs)[0]


def test_saliency_is_the_largest_gradient(tiny: Backbone, pixels: Tensor) -> None:
    expected = gradient(tiny, pixels, TARGETS).abs().amax(dim=1)
    assert torch.allclose(Saliency(tiny)(pixels, TARGETS), normalise(expected), atol=1e-6)


def test_input_x_gradient(tiny: Backbone, pixels: Tensor, linear: Backbone, images: Tensor) -> None:
    expected = (gradient(tiny, pixels, TARGETS) * pixels).sum(dim=1).abs()
    assert torch.allclose(InputXGradient(tiny)(pixels, TARGETS), normalise(expected), atol=1e-6)
    exact = (images * WEIGHTS).sum(dim=1).abs()
    maps = InputXGradient(linear)(images, torch.tensor([0, 0]))
    assert torch.allclose(maps, normalise(exact), atol=1e-6)


def test_smoothgrad_is_the_mean_gradient_under_its_noise(tiny: Backbone, pixels: Tensor) -> None:
    maps = SmoothGrad(tiny, samples=6, sigma=0.2, seed=3)(pixels, TARGETS)
    for image, target, seed, found in zip(pixels, TARGETS, image_seeds(pixels), maps, strict=True):
        with seeded(seed ^ 3):
            noisy = torch.normal(image.repeat(6, 1, 1, 1), 0.2)
        mean = gradient(tiny, noisy, target.expand(6)).mean(dim=0)
        assert torch.allclose(found, normalise(mean.abs().amax(0)[None])[0], atol=1e-5)


def test_smoothgrad_without_noise_is_saliency(tiny: Backbone, pixels: Tensor) -> None:
    maps = SmoothGrad(tiny, samples=3, sigma=0.0)(pixels, TARGETS)
    assert torch.allclose(maps, Saliency(tiny)(pixels, TARGETS), atol=1e-5)


def test_gradient_shap_of_a_linear_network(linear: Backbone, images: Tensor) -> None:
    """Both blanks are black here: every sample is the image times the weights."""
    maps = GradientShap(linear, samples=3)(images, torch.tensor([0, 0]))
    exact = (images * WEIGHTS).sum(dim=1).abs()
    assert torch.allclose(maps, normalise(exact), atol=1e-5)


def test_gradient_shap_takes_both_blanks(linear: Backbone, images: Tensor) -> None:
    linear.mean.fill_(0.5)
    maps = GradientShap(linear, samples=400)(images, torch.tensor([0, 0]))
    exact = ((images - 0.25) * WEIGHTS).sum(dim=1).abs()
    assert torch.allclose(maps, normalise(exact), atol=0.1)
    assert not torch.allclose(maps, normalise((images * WEIGHTS).sum(dim=1).abs()), atol=0.1)


@pytest.mark.parametrize("fill", ["mean", "black", "white"])
def test_occlusion_is_a_loop_over_the_squares(fill: Fill, tiny: Backbone, pixels: Tensor) -> None:
    maps = Occlusion(tiny, window=12, stride=10, fill=fill, batch_size=4)(pixels, TARGETS)
    colour = {"mean": tiny.mean[0], "black": 0.0, "white": 1.0}[fill]
    for image, target, found in zip(pixels, TARGETS, maps, strict=True):
        with torch.no_grad():
            whole = tiny(image[None])[0, target]
            total, count = torch.zeros(32, 32), torch.zeros(32, 32)
            for top in (0, 10, 20):
                for left in (0, 10, 20):
                    window = (slice(top, top + 12), slice(left, left + 12))
                    covered = image.clone()
                    covered[:, window[0], window[1]] = colour
                    total[window] += whole - tiny(covered[None])[0, target]
                    count[window] += 1
        assert torch.allclose(found, normalise((total / count)[None])[0], atol=1e-4)


def regions(backbone: Backbone, image: Tensor, labels: Tensor) -> Callable[[set[int]], float]:
    """The logit of class 0 with only some of the superpixels there, the others white."""

    def value(there: set[int]) -> float:
        kept = torch.isin(labels, torch.tensor(sorted(there), dtype=torch.int64))
        return float(backbone(torch.where(kept, image, torch.ones(()))[None])[0, 0])

    return value


def test_kernel_shap_is_the_shapley_value(images: Tensor) -> None:
    """Of a network with an interaction, over all orders; every coalition of four is drawn."""
    backbone = network(
        lambda x: (
            x[:, :, :12, :12].mean((1, 2, 3)) * x[:, :, 12:, 12:].mean((1, 2, 3)) * 4
            + x[:, 0, :12, 12:].mean((1, 2))
        )
    )
    labels = superpixels(images[0], 4)
    count = int(labels.max()) + 1
    assert count == 4
    value, players = regions(backbone, images[0], labels), set(range(count))
    shapley = np.zeros(count)
    weights = {0: 1 / 4, 1: 1 / 12, 2: 1 / 12, 3: 1 / 4}
    for player in players:
        others = sorted(players - {player})
        for size in range(count):
            for chosen in combinations(others, size):
                gain = value({*chosen, player}) - value(set(chosen))
                shapley[player] += weights[size] * gain
    maps = KernelShap(backbone, samples=5000, segments=4, scores="logits")(
        images[:1], torch.tensor([0])
    )
    expected = torch.from_numpy(shapley).float()[labels]
    assert torch.allclose(maps, normalise(expected[None]), atol=0.05)


def test_kernel_shap_and_lime_of_a_linear_network(linear: Backbone, images: Tensor) -> None:
    labels = superpixels(images[0], 4)
    parts = (images[0] * WEIGHTS).sum(dim=0)
    exact = torch.stack([parts[labels == i].sum() for i in range(int(labels.max()) + 1)])
    target = torch.tensor([0])
    plain: dict[str, Any] = {"segments": 4, "scores": "logits", "fill": "black"}
    shap = KernelShap(linear, samples=200, **plain)(images[:1], target)
    assert torch.allclose(shap, normalise(exact[labels][None]), atol=1e-3)
    lime = Lime(linear, samples=400, **plain)(images[:1], target)
    assert torch.allclose(lime, normalise(exact[labels][None]), atol=0.1)
    order = torch.stack([lime[0][labels == i].mean() for i in range(len(exact))]).argsort()
    assert torch.equal(order, exact.argsort())


@pytest.mark.parametrize("cls", [KernelShap, Lime])
def test_they_explain_the_probability(cls: type[KernelShap | Lime], images: Tensor) -> None:
    """Of two classes with the logits y and 0 that is the sigmoid of y."""

    def logit(x: Tensor) -> Tensor:
        return 3 * (x * WEIGHTS).sum(dim=(1, 2, 3))

    settings: dict[str, Any] = {"samples": 60, "segments": 6, "fill": "black"}
    target = torch.tensor([0])
    maps = cls(network(logit), **settings)(images[:1], target)
    of_sigmoid = cls(network(lambda x: logit(x).sigmoid()), scores="logits", **settings)
    assert torch.allclose(maps, of_sigmoid(images[:1], target), atol=1e-5)
    plain = cls(network(logit), scores="logits", **settings)(images[:1], target)
    assert not torch.allclose(maps, plain, atol=1e-3)


def test_blanks_of_superpixels(cnn: Backbone) -> None:
    image, labels = torch.rand(3, 4, 4), torch.arange(4).repeat_interleave(4).view(4, 4)
    own = without_superpixels(cnn, image, labels, "segment")
    assert torch.allclose(own, image.mean(dim=2, keepdim=True).expand(1, 3, 4, 4))
    for fill, colour in (("mean", cnn.mean), ("black", 0.0), ("white", 1.0)):
        found = without_superpixels(cnn, image, labels, fill)  # type: ignore[arg-type]
        assert torch.equal(found, torch.zeros(1, 3, 4, 4) + colour)
    for cls in (KernelShap, Lime, Occlusion):
        with pytest.raises(
            ValueError, match=r"fill is 'grey': expected one of (segment, )?mean, black"
        ):
            cls(cnn, fill="grey")  # type: ignore[arg-type]


@pytest.mark.parametrize(("cls", "fill"), [(KernelShap, "white"), (Lime, "segment")])
def test_superpixels_are_filled_as_the_authors_do(
    cls: type[KernelShap | Lime], fill: SegmentFill, tiny: Backbone, pixels: Tensor
) -> None:
    maps = {
        name: cls(tiny, samples=15, segments=6, fill=name)(pixels, TARGETS)  # type: ignore[arg-type]
        for name in ("segment", "mean", "black", "white")
    }
    assert torch.equal(cls(tiny, samples=15, segments=6)(pixels, TARGETS), maps[fill])
    others = [found for name, found in maps.items() if name != fill]
    assert not any(torch.allclose(maps[fill], other, atol=1e-2) for other in others)


@pytest.mark.parametrize("cls", [KernelShap, Lime])
def test_the_batch_size_changes_nothing(
    cls: type[KernelShap | Lime], tiny: Backbone, pixels: Tensor
) -> None:
    whole = cls(tiny, samples=15, segments=6)(pixels, TARGETS)
    assert torch.allclose(
        whole, cls(tiny, samples=15, segments=6, batch_size=4)(pixels, TARGETS), atol=1e-4
    )
    other = cls(tiny, samples=15, segments=6, seed=1)(pixels, TARGETS)
    assert not torch.allclose(whole, other, atol=1e-2)


def test_superpixels(images: Tensor) -> None:
    found = superpixels(images[0], 4)
    assert sorted(found.unique().tolist()) == [0, 1, 2, 3]
    quarters = found.view(2, 12, 2, 12).permute(0, 2, 1, 3).flatten(2)
    pure = (quarters == quarters.mode(dim=2, keepdim=True).values).float().mean()
    assert pure > 0.95
    assert torch.equal(found, superpixels(images[0], 4))
    noise = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for image in (torch.full((3, SIDE, SIDE), 0.4), noise):
        labels = superpixels(image, 9).unique()
        assert labels.tolist() == list(range(len(labels)))
        assert 4 <= len(labels) <= 14


@pytest.mark.parametrize(
    ("explainer", "forward", "backward"),
    [
        (lambda b: SmoothGrad(b, samples=5), 15, 15),
        (lambda b: GradientShap(b, samples=5), 15, 15),
        (lambda b: Occlusion(b, window=16, stride=16), 3 * 5, 0),
        (lambda b: KernelShap(b, samples=7, segments=4), 21, 0),
        (lambda b: Lime(b, samples=7, segments=4), 21, 0),
    ],
)
def test_cost(explainer: object, forward: int, backward: int, tiny: Backbone) -> None:
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    tiny.passes = Passes()
    explainer(tiny)(pixels, TARGETS)  # type: ignore[operator]
    assert (tiny.passes.forward, tiny.passes.backward) == (forward, backward)


def test_constant(tiny: Backbone, pixels: Tensor) -> None:
    assert torch.equal(Constant(tiny)(pixels, TARGETS), torch.zeros(3, 7, 7))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda b: SmoothGrad(b, samples=0), "samples is 0, sigma 0.15"),
        (lambda b: GradientShap(b, samples=0), "samples is 0"),
        (lambda b: Occlusion(b, window=8, stride=9), "window is 8, stride 9"),
        (lambda b: KernelShap(b, segments=1), "segments 1, batch_size 32: expected"),
        (lambda b: Lime(b, samples=0), "samples is 0, segments 49"),
    ],
)
def test_refused_settings(build: object, message: str, cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=message):
        build(cnn)  # type: ignore[operator]
