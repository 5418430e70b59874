"""The CAM family against pytorch-grad-cam and captum, and against loops of one image a time."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import methods
from methods import Backbone, wrap
from methods._base import normalise
from methods.ablationcam import AblationCAM
from methods.eigencam import EigenCAM
from methods.finercam import FinerCAM
from methods.fullgrad import FullGrad, bias, hook_bias
from methods.fullgrad import channels as of_channels
from methods.gradcam import GradCAM
from methods.gradcampp import GradCAMPlusPlus
from methods.layercam import LayerCAM
from methods.refinecam import RefineCAM
from methods.scorecam import ScoreCAM
from methods.shapleycam import ShapleyCAM
from metrics import Maps
from metrics.confidence import Confidence

TARGETS = torch.tensor([0, 3, 1])
GRADIENT = {
    "gradcam": "GradCAM",
    "gradcampp": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
}


def librarys(name: str, backbone: Backbone, layer: str, images: Tensor, targets: Tensor) -> Tensor:
    """Maps (B, H, W) of pytorch-grad-cam at the size of the image."""
    arguments: dict[str, Any] = {"reshape_transform": backbone.grid}
    layers = [] if name == "FullGrad" else [backbone.layer(layer)]
    with getattr(pytorch_grad_cam, name)(backbone, layers, **arguments) as cam:
        classes = [ClassifierOutputTarget(int(t)) for t in targets]
        return torch.from_numpy(cam(images.clone().requires_grad_(), classes))


def of_normalised(name: str, cnn: Backbone, images: Tensor) -> Tensor:
    """Maps (B, H, W) of pytorch-grad-cam, which gets normalised images."""
    with getattr(pytorch_grad_cam, name)(cnn.network, [cnn.layer("2")]) as cam:
        classes = [ClassifierOutputTarget(int(t)) for t in TARGETS]
        return torch.from_numpy(cam((images - cnn.mean) / cnn.std, classes))


def resized(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear")[:, 0]


@pytest.mark.parametrize("name", GRADIENT)
def test_cams_are_the_librarys(
    name: str, lite0: Backbone, photographs: tuple[Tensor, Tensor]
) -> None:
    images, targets = photographs[0][:2], photographs[1][:2]
    maps = resized(methods.load(name)(lite0)(images, targets), 224)
    expected = librarys(GRADIENT[name], lite0, lite0.cam_layer, images, targets)
    assert torch.allclose(normalise(maps), expected, atol=1e-4)


@pytest.mark.parametrize("name", GRADIENT)
def test_cams_are_the_librarys_on_tokens(name: str, vit: Backbone, pixels: Tensor) -> None:
    maps = resized(methods.load(name)(vit)(pixels, TARGETS), 32)
    expected = librarys(GRADIENT[name], vit, vit.cam_layer, pixels, TARGETS)
    assert torch.allclose(normalise(maps), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["gradcam", "gradcampp", "xgradcam"])
def test_another_layer(name: str, cnn: Backbone, pixels: Tensor) -> None:
    maps = resized(methods.load(name)(cnn, layer="1")(pixels, TARGETS), 32)
    expected = librarys(GRADIENT[name], cnn, "1", pixels, TARGETS)
    assert torch.allclose(normalise(maps), expected, atol=1e-4)


def librarys_finer(backbone: Backbone, images: Tensor, targets: Tensor, alpha: float) -> Tensor:
    """Maps (B, H, W) of pytorch-grad-cam, which takes one class a call and finds those like it."""
    layers = [backbone.layer(backbone.cam_layer)]
    with pytorch_grad_cam.FinerCAM(backbone, layers, reshape_transform=backbone.grid) as cam:
        maps = [
            cam(image[None].clone().requires_grad_(), alpha=alpha, target_idx=int(target))
            for image, target in zip(images, targets, strict=True)
        ]
    return torch.from_numpy(np.concatenate(maps))


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_finercam_is_the_librarys(
    alpha: float, lite0: Backbone, photographs: tuple[Tensor, Tensor]
) -> None:
    images, targets = photographs[0][:2], photographs[1][:2]
    explainer = FinerCAM(lite0, alpha=alpha)
    maps = normalise(resized(explainer(images, targets), 224))
    expected = librarys_finer(lite0, images, targets, alpha)
    assert torch.allclose(maps, expected, atol=1e-4)
    assert not torch.allclose(
        GradCAM(lite0)(images, targets), explainer(images, targets), atol=0.05
    )


def test_finercam_is_the_librarys_on_tokens(vit: Backbone, pixels: Tensor) -> None:
    maps = normalise(resized(FinerCAM(vit)(pixels, TARGETS), 32))
    assert torch.allclose(maps, librarys_finer(vit, pixels, TARGETS, 1.0), atol=1e-4)


def librarys_shapley(backbone: Backbone, images: Tensor, targets: Tensor) -> Tensor:
    """Maps (B, H, W) of pytorch-grad-cam with its paper's score, one image a call."""
    layers = [backbone.layer(backbone.cam_layer)]
    with (
        sdpa_kernel(SDPBackend.MATH),
        pytorch_grad_cam.ShapleyCAM(backbone, layers, reshape_transform=backbone.grid) as cam,
    ):
        maps = [
            cam(image[None].clone().requires_grad_(), [ClassifierOutputReST(int(target))])
            for image, target in zip(images, targets, strict=True)
        ]
    return torch.from_numpy(np.concatenate(maps))


def test_shapleycam_is_the_librarys(lite0: Backbone, photographs: tuple[Tensor, Tensor]) -> None:
    images, targets = photographs[0][:2], photographs[1][:2] + 1  # less sure than of the label
    maps = ShapleyCAM(lite0)(images, targets)
    expected = librarys_shapley(lite0, images, targets)
    assert torch.allclose(normalise(resized(maps, 224)), expected, atol=1e-4)
    assert not torch.allclose(GradCAM(lite0)(images, targets), maps, atol=0.01)


def test_shapleycam_on_tokens_by_differences(vit: Backbone, pixels: Tensor) -> None:
    """The Hessian times the features is how the gradient changes along them.

    pytorch-grad-cam takes no tokens here.
    """
    vit.double()
    pixels, explainer, step = pixels.double(), ShapleyCAM(vit.double()), 1e-4
    with torch.no_grad(), vit.tap([vit.cam_layer]) as outputs:
        vit(pixels)
    features = outputs[vit.cam_layer]

    def gradient(factor: float) -> Tensor:
        own = (factor * features).requires_grad_()
        with vit.changed(vit.cam_layer, lambda _output: own.clone()):
            score = explainer.score(vit(pixels), TARGETS).sum()
        return torch.autograd.grad(score, own)[0]

    product = (gradient(1 + step) - gradient(1 - step)) / (2 * step)
    weights = vit.grid(gradient(1.0) - product / 2).mean(dim=(2, 3), keepdim=True)
    expected = normalise((weights * vit.grid(features)).sum(dim=1).relu())
    assert torch.allclose(explainer.explain(pixels, TARGETS).double(), expected, atol=1e-5)


def librarys_refined(backbone: Backbone, layers: Sequence[str], images: Tensor) -> Tensor:
    """Maps (B, H, W) of pytorch-grad-cam."""
    chosen = [backbone.layer(name) for name in layers]
    cam = pytorch_grad_cam.RefineCAM(backbone, chosen, reshape_transform=backbone.grid)
    given = [ClassifierOutputTarget(int(target)) for target in TARGETS]
    return torch.from_numpy(cam(images.clone().requires_grad_(), given))


@pytest.mark.parametrize("layers", [None, ["0", "2"]])
def test_refinecam_is_the_librarys(layers: list[str] | None, cnn: Backbone, pixels: Tensor) -> None:
    expected = librarys_refined(cnn, layers or cnn.taps, pixels)
    assert torch.allclose(RefineCAM(cnn, layers=layers)(pixels, TARGETS), expected, atol=1e-4)


def test_refinecam_is_the_librarys_on_tokens(vit: Backbone, pixels: Tensor) -> None:
    expected = librarys_refined(vit, vit.taps, pixels)
    assert torch.allclose(RefineCAM(vit)(pixels, TARGETS), expected, atol=1e-4)


def test_refinecam_of_one_layer_is_gradcampp(cnn: Backbone, pixels: Tensor) -> None:
    found = RefineCAM(cnn, layers=["1"])(pixels, TARGETS)
    expected = GradCAMPlusPlus(cnn, layer="1")(pixels, TARGETS)
    assert torch.allclose(found, normalise(resized(expected, 32)), atol=1e-5)
    with pytest.raises(ValueError, match=r"layers is \[\]: expected one or more"):
        RefineCAM(cnn, layers=[])


def test_finercams_score_by_hand(cnn: Backbone) -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, -2.0, 4.5]], dtype=torch.float64)
    p = logits[0].exp() / logits[0].exp().sum()
    explainer = FinerCAM(cnn, alpha=0.5, comparisons=2)  # those of 1 are 4 and 2
    expected = (p[4] * (4 - 0.5 * 4.5) + p[2] * (4 - 0.5 * 3)) / (p[4] + p[2])
    found = explainer.score(logits, torch.tensor([1]))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    sure = torch.tensor([[60.0, 0.0, -1.0, -2.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, -1.0]).double().softmax(dim=0)  # of 4 and 2, far below class 0
    expected = (weights * (0 - 0.5 * torch.tensor([1.0, -1.0]))).sum()
    assert float(explainer.score(sure, torch.tensor([1]))) == pytest.approx(float(expected))
    plain = FinerCAM(cnn, alpha=0.0, comparisons=9).score(logits, torch.tensor([1]))
    assert float(plain) == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"alpha": -0.1}, "alpha is -0.1"), ({"comparisons": 0}, "comparisons is 0")],
)
def test_finercam_refuses(settings: dict[str, Any], message: str, cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=message):
        FinerCAM(cnn, **settings)


def test_gradcam_is_captums(cnn: Backbone, pixels: Tensor) -> None:
    reference = LayerGradCam(cnn, cnn.layer("2")).attribute(
        pixels.clone().requires_grad_(), TARGETS, relu_attributions=True
    )
    assert torch.allclose(
        GradCAM(cnn)(pixels, TARGETS), normalise(reference[:, 0].detach()), atol=1e-5
    )


def test_gradcam_by_hand(tiny: Backbone, pixels: Tensor) -> None:
    maps = GradCAM(tiny)(pixels, TARGETS)
    with tiny.tap([tiny.cam_layer]) as outputs:
        logits = tiny(pixels.clone().requires_grad_())
    features = outputs[tiny.cam_layer]
    (gradient,) = torch.autograd.grad(logits[range(3), TARGETS].sum(), features)
    weights = tiny.grid(gradient).mean(dim=(2, 3), keepdim=True)
    expected = (weights * tiny.grid(features)).sum(dim=1).relu()
    assert torch.allclose(maps, normalise(expected.detach()), atol=1e-5)


class Channels(nn.Module):
    """Pools three channels: the logit of class 0 is 2 a - b, that of class 1 is c."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.features(x).mean(dim=(2, 3)).unbind(1)
        return torch.stack([2 * a - b, c], dim=1)


@pytest.fixture
def channels() -> Backbone:
    return Backbone(
        Channels(),
        name="channels",
        mean=[0.0] * 3,
        std=[1.0] * 3,
        size=4,
        classes=2,
        taps=["features"],
        cam_layer="features",
    )


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "layercam", "ablationcam"])
def test_exact_maps_of_a_linear_network(name: str, channels: Backbone) -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    maps = methods.load(name)(channels)(images, torch.tensor([0, 1]))
    a, b, c = images.unbind(1)
    if name == "ablationcam":  # weights: the share of the logit that a channel carries
        mean_a, mean_b = a.mean(dim=(1, 2))[0], b.mean(dim=(1, 2))[0]
        whole = 2 * mean_a - mean_b
        first = (2 * mean_a / whole) * a[0] - (mean_b / whole) * b[0]
    elif name == "layercam":  # without the negative gradient of b
        first = a[0]
    else:
        first = 2 * a[0] - b[0]
    expected = torch.stack([first.relu(), c[1]])
    assert torch.allclose(maps, normalise(expected), atol=1e-6)


def test_eigencam_is_the_librarys_up_to_its_sign(
    lite0: Backbone, photographs: tuple[Tensor, Tensor]
) -> None:
    images = photographs[0][:2]
    maps = EigenCAM(lite0)(images, TARGETS[:2])
    with torch.no_grad(), lite0.tap([lite0.cam_layer]) as outputs:
        lite0(images)
    projection = pytorch_grad_cam.utils.svd_on_activations.get_2d_projection(
        outputs[lite0.cam_layer].numpy()
    )
    for own, theirs in zip(maps, torch.from_numpy(projection), strict=True):
        signed = theirs if theirs.max() >= -theirs.min() else -theirs
        assert torch.allclose(own, normalise(signed.relu()[None])[0], atol=1e-4)


def test_eigencam_of_features_that_are_not_finite_is_nan(channels: Backbone) -> None:
    """Of that image alone: the maps of the others are as they would be without it."""
    images = torch.rand(2, 3, *[channels.size] * 2, generator=torch.Generator().manual_seed(0))
    alone = EigenCAM(channels)(images[1:], torch.tensor([0]))
    images[0, 0, 0, 0] = torch.nan
    maps = EigenCAM(channels).explain(images, torch.tensor([0, 0]))
    assert bool(maps[0].isnan().all())
    assert torch.allclose(maps[1:], alone, atol=1e-6)


def test_eigencam_of_one_varying_channel_is_that_channel(channels: Backbone) -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 1, 2, 3] = 0.7
    maps = EigenCAM(channels)(images, torch.tensor([0]))
    expected = torch.zeros(1, 4, 4)
    expected[0, 2, 3] = 1.0
    assert torch.allclose(maps, expected, atol=1e-6)


def test_scorecam_is_the_librarys(cnn: Backbone, pixels: Tensor) -> None:
    maps = resized(ScoreCAM(cnn, batch_size=3, fill="black")(pixels, TARGETS), 32)
    expected = librarys("ScoreCAM", cnn, "2", pixels, TARGETS)
    assert torch.allclose(normalise(maps), expected, atol=1e-4)


def test_scorecam_masks_normalised_images(cnn: Backbone, pixels: Tensor) -> None:
    """As its authors and T-TAME's do: the library's maps for them, given normalised images."""
    with torch.no_grad():
        cnn.network[3][2].weight.mul_(300.0)  # type: ignore[index, union-attr]  # sure of itself
    maps = resized(ScoreCAM(cnn)(pixels, TARGETS), 32)
    assert torch.allclose(normalise(maps), of_normalised("ScoreCAM", cnn, pixels), atol=1e-4)
    black = resized(ScoreCAM(cnn, fill="black")(pixels, TARGETS), 32)
    assert not torch.allclose(maps, black, atol=1e-2)


def test_scorecam_is_the_librarys_on_tokens(vit: Backbone, pixels: Tensor) -> None:
    maps = resized(ScoreCAM(vit, fill="black")(pixels, TARGETS), 32)
    expected = librarys("ScoreCAM", vit, vit.cam_layer, pixels, TARGETS)
    assert torch.allclose(normalise(maps), expected, atol=1e-4)


def test_scorecam_is_a_loop_of_one_image_a_time(cnn: Backbone, pixels: Tensor) -> None:
    maps = ScoreCAM(cnn, batch_size=5, fill="black")(pixels, TARGETS)
    with torch.no_grad(), cnn.tap(["2"]) as outputs:
        cnn(pixels)
    for image, own, target, found in zip(pixels, outputs["2"], TARGETS, maps, strict=True):
        logits = []
        for channel in own:
            mask = F.interpolate(
                channel[None, None], size=(32, 32), mode="bilinear", align_corners=True
            )[0, 0]
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            with torch.no_grad():
                logits.append(cnn((image * mask)[None])[0, target])
        weights = torch.stack(logits).softmax(0)
        expected = sum(w * c for w, c in zip(weights, own, strict=True))
        assert torch.allclose(found, normalise(expected.relu()[None])[0], atol=1e-4)  # type: ignore[union-attr]


def test_dead_channels_pass_once(cnn: Backbone, pixels: Tensor) -> None:
    whole = ScoreCAM(cnn, fill="black")(pixels, TARGETS)
    with torch.no_grad():
        cnn.network[2][0].bias[:3] -= 100.0  # type: ignore[index, union-attr]
    with torch.no_grad(), cnn.tap(["2"]) as outputs:
        cnn(pixels)
    alive = int((outputs["2"].amax(dim=(2, 3)) > 0).sum())
    assert 0 < alive <= 3 * 5
    cnn.passes = methods.Passes()
    maps = ScoreCAM(cnn, fill="black")(pixels, TARGETS)
    assert cnn.passes.forward == 3 * (1 + 1) + alive
    expected = librarys("ScoreCAM", cnn, "2", pixels, TARGETS)
    assert torch.allclose(normalise(resized(maps, 32)), expected, atol=1e-4)
    assert not torch.allclose(maps, whole, atol=1e-2)
    under_the_mean = resized(ScoreCAM(cnn)(pixels, TARGETS), 32)
    assert torch.allclose(
        normalise(under_the_mean), of_normalised("ScoreCAM", cnn, pixels), atol=1e-4
    )


def test_scorecam_of_dead_channels_alone(tiny: Backbone, pixels: Tensor) -> None:
    """Nothing stands out of a blank layer: a blank map, after the image and one blank image."""
    explainer = ScoreCAM(tiny)
    with tiny.changed(tiny.cam_layer, torch.zeros_like):
        maps = explainer(pixels[:1], TARGETS[:1])
    assert not maps.any()
    assert tiny.passes.forward == 2


def test_scorecam_of_some_channels(cnn: Backbone, pixels: Tensor) -> None:
    everything = ScoreCAM(cnn)(pixels, TARGETS)
    assert torch.equal(ScoreCAM(cnn, channels=8)(pixels, TARGETS), everything)
    cnn.passes = methods.Passes()
    assert not torch.equal(ScoreCAM(cnn, channels=2)(pixels, TARGETS), everything)
    assert cnn.passes.forward == 3 * (1 + 2)
    with pytest.raises(ValueError, match="channels 0: expected at least 1"):
        ScoreCAM(cnn, channels=0)
    with pytest.raises(ValueError, match="fill is 'grey': expected one of mean, black, white"):
        ScoreCAM(cnn, fill="grey")  # type: ignore[arg-type]


def test_ablationcam_is_the_librarys(cnn: Backbone, pixels: Tensor) -> None:
    targets = [ClassifierOutputTarget(int(t)) for t in TARGETS]
    with pytorch_grad_cam.AblationCAM(cnn, [cnn.layer("2")], batch_size=4) as cam:
        expected = torch.from_numpy(cam(pixels, targets))
    maps = resized(AblationCAM(cnn, batch_size=3)(pixels, TARGETS), 32)
    assert torch.allclose(normalise(maps), expected, atol=1e-4)


def test_ablationcam_is_a_loop_of_one_channel_a_time(tiny: Backbone, pixels: Tensor) -> None:
    layer = tiny.cam_layer
    maps = AblationCAM(tiny, batch_size=5)(pixels, TARGETS)
    with torch.no_grad(), tiny.tap([layer]) as outputs:
        logits = tiny(pixels)[range(3), TARGETS]
    features = outputs[layer].clone()
    axis = 1 if tiny.prefix_tokens is None else 2
    weights = []
    for channel in range(features.shape[axis]):
        changed = features.clone()
        changed.select(axis, channel).zero_()
        handle = tiny.layer(layer).register_forward_hook(lambda *_, out=changed: out)
        with torch.no_grad():
            weights.append((logits - tiny(pixels)[range(3), TARGETS]) / logits)
        handle.remove()
    cams = torch.einsum("cb,bchw->bhw", torch.stack(weights), tiny.grid(features))
    assert torch.allclose(maps, normalise(cams.relu()), atol=1e-4)


def test_ablations_pass_behind_the_layer_only(cnn: Backbone, pixels: Tensor) -> None:
    seen: list[int] = []
    handles = [
        cnn.layer(name).register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
        for name in ("0", "3.2")
    ]
    explainer = AblationCAM(cnn)
    seen.clear()  # the layer was probed
    explainer(pixels[:1], TARGETS[:1])
    for handle in handles:
        handle.remove()
    assert seen == [1, 1, 1, 8]
    assert cnn.passes.forward == 1 + 8


def test_the_drop_alone_knows_no_offset_of_the_logits(cnn: Backbone, pixels: Tensor) -> None:
    """The same number less for every class is the same prediction; the quotient turns over."""
    drop, quotient = AblationCAM(cnn, relative=False), AblationCAM(cnn)
    with torch.no_grad():
        before = drop(pixels, TARGETS), quotient(pixels, TARGETS)
        cnn.network[-1][-1].bias -= 100.0  # type: ignore[index, operator]
        assert (cnn(pixels) < 0).all()
        after = drop(pixels, TARGETS), quotient(pixels, TARGETS)
    assert torch.allclose(before[0], after[0], atol=1e-3)
    assert not torch.allclose(before[1], after[1], atol=0.1)


class Tangled(nn.Module):
    """Registers its layers in another order than it runs them, one twice and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)
        self.never = nn.Conv2d(3, 3, 1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.first = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.first(images).relu()).relu()
        logits: Tensor = self.head(self.first(hidden).mean(dim=(2, 3)))
        return logits


def test_fullgrad_takes_each_bias_where_it_is_added(pixels: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tangled()
    common: dict[str, Any] = {"name": "tangled", "size": 32, "classes": 5}
    backbone = Backbone(
        network, mean=[0.0] * 3, std=[1.0] * 3, taps=["second"], cam_layer="second", **common
    )
    images = pixels.clone().requires_grad_()
    one = network.first(images)
    two = network.second(one.relu())
    three = network.first(two.relu())
    score = network.head(three.mean(dim=(2, 3))).gather(1, TARGETS[:, None]).sum()
    inputs, *gradients = torch.autograd.grad(score, [images, one, two, three])
    biases = network.first.bias, network.second.bias, network.first.bias
    parts = [inputs * images.detach()]
    parts += [g * own[:, None, None] for g, own in zip(gradients, biases, strict=True)]  # type: ignore[index]
    total = sum(
        normalise(part.detach().abs().flatten(0, 1)).unflatten(0, part.shape[:2]).sum(dim=1)
        for part in parts
    )
    assert isinstance(total, Tensor)
    found = FullGrad(backbone)(pixels, TARGETS)
    assert torch.allclose(found, normalise(total), atol=1e-5)


def test_fullgrad_is_the_librarys(cnn: Backbone, pixels: Tensor) -> None:
    cnn.mean.zero_()
    cnn.std.fill_(1.0)
    with torch.no_grad():
        for module in cnn.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]
                module.bias.add_(0.3)
    # The library adds up the channels of the input apart from the others, normalised together.
    maps = FullGrad(cnn)(pixels, TARGETS)
    expected = librarys("FullGrad", cnn, "2", pixels, TARGETS)
    assert torch.allclose(maps, normalise(expected), atol=1e-3)


def test_fullgrad_is_complete(pixels: Tensor) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=True),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 2, 3, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    network[1].running_mean.normal_()  # type: ignore[union-attr, operator]
    network[1].bias.data.normal_()  # type: ignore[union-attr, operator]
    inputs = pixels.clone().requires_grad_()
    first = network[0](inputs)
    second = network[1](first)
    logits = network[2:](second.clone())[:, 1]
    gradients = torch.autograd.grad(logits.sum(), [inputs, first, second])
    total = (gradients[0] * pixels).sum(dim=(1, 2, 3))
    for layer, gradient in zip(network[:2], gradients[1:], strict=True):
        total = total + (gradient * bias(layer)[:, None, None]).sum(dim=(1, 2, 3))  # type: ignore[index]
    assert torch.allclose(total, logits, atol=1e-5)


def test_fullgrad_sees_every_bias_of_lite0(lite0: Backbone) -> None:
    convolutions = [m for m in lite0.network.modules() if isinstance(m, nn.Conv2d)]
    assert len(FullGrad(lite0)._layers) == len(convolutions) == 49


def wrapped(network: nn.Module) -> Backbone:
    """A network of 32 pixels whose layer `conv` follows the image."""
    shown: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32}
    return wrap(network, name="small", taps=["conv"], cam_layer="conv", **shown)


class Windows(nn.Module):
    """Halves of an image go through a convolution as if they were images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        halves = torch.cat(x.chunk(2, dim=3))
        left, right = self.conv(halves).chunk(2)
        whole: Tensor = self.head(torch.cat([left, right], dim=3).mean(dim=(2, 3)))
        return whole


class Positions(nn.Module):
    """A bias that meets no image: it is added to a code of the places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.code = nn.Conv2d(1, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.linspace(0, 1, 16, device=x.device).reshape(1, 1, 4, 4)
        coded = self.code(places.expand(len(x), -1, -1, -1))
        grid = self.conv(nn.functional.adaptive_avg_pool2d(x, 4)) + coded
        whole: Tensor = self.head((grid**2).mean(dim=(2, 3)))
        return whole


def test_fullgrad_cannot_place_windows() -> None:
    with pytest.raises(ValueError, match=r"cannot place what layer 'conv' .* gives 2 outputs"):
        FullGrad(wrapped(Windows()))


def test_fullgrad_takes_a_bias_beside_the_image(pixels: Tensor) -> None:
    """Its gradient is that of what it is added to, image by image."""
    network = Positions()
    backbone = wrapped(network)
    inputs = pixels.clone().requires_grad_()
    grids: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        grids.append(output)

    handle = network.conv.register_forward_hook(keep)
    with torch.enable_grad():
        backbone(inputs).gather(1, TARGETS[:, None] % 3).sum().backward()
    handle.remove()
    size = pixels.shape[2:]
    expected = of_channels(inputs.grad * (pixels - backbone.mean), size)
    for module in (network.conv, network.code):
        expected += of_channels(grids[0].grad * module.bias[:, None, None], size)
    assert torch.allclose(FullGrad(backbone)(pixels, TARGETS % 3), normalise(expected), atol=1e-5)


class Constant(nn.Module):
    """Adds what a convolution makes of a constant, once for all images of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.beside = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(1, 4, 1)
        self.head = nn.Linear(4, 3)
        self.register_buffer("places", torch.arange(64.0).view(1, 1, 8, 8) / 64)

    def forward(self, images: Tensor) -> Tensor:
        grid = self.conv(images) * self.beside(self.places).sigmoid()
        logits: Tensor = self.head(grid.square().mean(dim=(2, 3)))
        return logits


def test_fullgrad_of_a_bias_for_all_images_does_not_depend_on_the_batch(pixels: Tensor) -> None:
    torch.manual_seed(0)
    fullgrad = FullGrad(wrapped(Constant()))
    together = fullgrad(pixels, TARGETS % 3)
    alone = [
        fullgrad(image[None], target[None] % 3)
        for image, target in zip(pixels, TARGETS, strict=True)
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize("model", ["densenet121", "resnetv2_50"])
def test_fullgrad_of_timms_batch_norms_with_an_activation_is_complete(model: str) -> None:
    """Their bias is added before the activation: all terms and that of the head are the logit."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(model, num_classes=5).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.bias.data.normal_(0, 0.1)
        image = torch.rand(1, 3, 64, 64)
    network = network.double()
    terms: list[Tensor] = []
    inputs = image.double().requires_grad_()
    ran: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, given: Tensor) -> Tensor:
        ran.append((module, given))
        return given.clone()

    biased = [m for m in network.modules() if bias(m) is not None]
    handles = [hook_bias(module, keep) for module in biased]
    logit = network(inputs)[0, 2]
    own, *others = torch.autograd.grad(logit, [inputs, *(given for _, given in ran)])
    for handle in handles:
        handle.remove()
    terms.append((own * inputs).sum())
    for (module, _), gradient in zip(ran, others, strict=True):
        terms.append((gradient * bias(module)[:, None, None]).sum())  # type: ignore[index]
    head = network.get_classifier()
    assert len(ran) == len(biased)
    assert float(torch.stack(terms).sum() + head.bias[2]) == pytest.approx(float(logit), rel=1e-6)


def test_fullgrad_needs_a_bias(channels: Backbone) -> None:
    with pytest.raises(ValueError, match="FullGrad needs a bias: 'channels' has none"):
        FullGrad(channels)


def test_layercam_keeps_no_negative_gradient(channels: Backbone) -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[:, 1] = torch.rand(4, 4)
    assert LayerCAM(channels)(images, torch.tensor([0])).abs().sum() == 0


def test_the_same_number_off_every_logit_turns_the_relative_ablation_cam_over(
    lite0: Backbone, photographs: tuple[Tensor, Tensor]
) -> None:
    """No prediction changes; its AD goes up from a quarter at most to nearly everything."""
    images = photographs[0][:4]
    targets = lite0.predict(images)
    shifted = copy.deepcopy(lite0)
    with torch.no_grad():
        shifted.network.classifier.bias -= 20  # type: ignore[union-attr, operator]
    assert torch.allclose(shifted.probabilities(images), lite0.probabilities(images), atol=1e-5)
    drops = {}
    for relative in (True, False):
        for name, network in (("as it is", lite0), ("shifted", shifted)):
            maps = AblationCAM(network, relative=relative)(images, targets)
            metric = Confidence(kept=[100])
            masked = metric.perturb(images, Maps(maps, images.shape[2:], seeds=[0] * 4))
            before, after = lite0.probabilities(images), lite0.probabilities(masked[:, 0])
            found = metric.judge(before, after[:, None], targets)[0].per_image
            drops[relative, name] = float(found.mean())
    assert drops[True, "as it is"] < 30
    assert drops[True, "shifted"] > 90
    assert drops[False, "as it is"] == pytest.approx(drops[True, "as it is"], abs=1)
    assert drops[False, "shifted"] == pytest.approx(drops[False, "as it is"], abs=0.1)
