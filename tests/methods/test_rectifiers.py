"""Guided backpropagation and deconvolution against captum, and by hand where it sees nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution as CaptumDeconvolution
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from timm.models.metaformer import StarReLU
from torch import Tensor, nn

from methods import Backbone
from methods._base import normalise
from methods._rectifiers import RectifiedGradient
from methods.deconvolution import Deconvolution
from methods.guided_backprop import GuidedBackprop

EXPLAINERS: list[type[RectifiedGradient]] = [GuidedBackprop, Deconvolution]
TARGETS = torch.tensor([0, 3, 1])


class Calls(nn.Module):
    """Three convolutions with a rectifier each, called in some way."""

    def __init__(self, *rectifiers: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 8), (8, 8), (8, 8)))
        self.head = nn.Linear(8, 5)
        self.rectifiers = rectifiers

    def forward(self, x: Tensor) -> Tensor:
        for conv, rectify in zip(self.convs, self.rectifiers, strict=True):
            x = rectify(3 * conv(x))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def backbone(network: nn.Module, size: int = 32) -> Backbone:
    return Backbone(
        network.eval(), name="own", mean=[0.5] * 3, std=[0.5] * 3, size=size, classes=5,
        taps=["convs.2"], cam_layer="convs.2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "reference"),
    [(GuidedBackprop, CaptumGuidedBackprop), (Deconvolution, CaptumDeconvolution)],
)
@pytest.mark.parametrize("sign", ["magnitude", "positive"])
def test_they_are_captums_on_modules(
    cls: type[RectifiedGradient], reference: Any, sign: Any, pixels: Tensor
) -> None:
    network = Calls(*(nn.ReLU() for _ in range(3)))
    network.modules_of_rectifiers = nn.ModuleList(network.rectifiers)  # type: ignore[arg-type]
    own = backbone(network)
    with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
        gradients = reference(own).attribute(pixels.clone().requires_grad_(), target=TARGETS)
    wanted = gradients.abs() if sign == "magnitude" else gradients.clamp(min=0)
    expected = normalise(wanted.amax(dim=1).detach())
    assert torch.allclose(cls(own, sign=sign)(pixels, TARGETS), expected, atol=1e-5)


REUSED = nn.ReLU()


class InPlace(nn.Module):
    """A ReLU that is called for its effect, not for its value."""

    def forward(self, x: Tensor) -> Tensor:
        F.relu_(x)
        return x


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "reused": (REUSED, REUSED, REUSED),
    "functions": (F.relu, torch.relu, Tensor.relu),
    "in place": (nn.ReLU(inplace=True), torch.relu_, Tensor.relu_),
    "effects": (InPlace(), InPlace(), InPlace()),
    "arguments": (
        lambda x: F.relu(x, True),
        lambda x: F.relu(input=x),
        lambda x: F.hardtanh(x, 0, 1e9),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", EXPLAINERS)
def test_every_way_to_call_a_relu_is_the_same(
    cls: type[RectifiedGradient], way: str, pixels: Tensor
) -> None:
    plain = cls(backbone(Calls(*(nn.ReLU() for _ in range(3)))))(pixels, TARGETS)
    assert torch.equal(cls(backbone(Calls(*WAYS[way])))(pixels, TARGETS), plain)


class Single(nn.Module):
    """A rectifier of 2 (pixel - 1), its channels weighted by 1, -1, 2 and then summed."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Identity() for _ in range(3)])
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.rectify(self.convs[2](x)) * torch.tensor([1.0, -1.0, 2.0])[:, None, None]
        return torch.stack([hidden.sum(dim=(1, 2, 3))] * 5, dim=1)


def single(rectify: Callable[[Tensor], Tensor]) -> Backbone:
    """Pixels 0, 0.5, 1 reach the rectifier as -10, 0, 10."""
    return Backbone(
        Single(rectify), name="single", mean=[0.5] * 3, std=[0.05] * 3, size=4, classes=5,
        taps=["convs.2"], cam_layer="convs.2",
    )  # fmt: skip


def test_a_relu6_by_hand() -> None:
    """The gradients at the rectifier are 1, -1 and 2; normalisation divides them by 0.05."""
    image = torch.zeros(1, 3, 4, 4)
    image[0, :, 0, 0] = 1.0  # 10: above 6
    image[0, :, 0, 1] = 0.6  # 2: within
    image[0, 0, 0, 2] = 0.6  # the first channel alone
    image[0, 1, 0, 3] = 0.6  # the second alone, whose gradient is negative
    target = torch.tensor([2])
    for rectify in (nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6):
        guided = GuidedBackprop(single(rectify))(image, target)[0]
        assert guided[0].tolist() == [0.0, 1.0, 0.5, 0.0]
        assert float(guided[1:].max()) == 0
    relu = GuidedBackprop(single(nn.ReLU()))(image, target)[0]
    assert relu[0].tolist() == [1.0, 1.0, 0.5, 0.0]
    assert float(Deconvolution(single(nn.ReLU6()))(image, target).max()) == 0  # the same everywhere


@pytest.mark.parametrize("cls", EXPLAINERS)
def test_the_logits_are_as_before(
    cls: type[RectifiedGradient], lite0: Backbone, photographs: tuple[Tensor, Tensor]
) -> None:
    images = photographs[0][:2]
    before = lite0(images)
    seen: list[Tensor] = []
    real = lite0.network.forward
    explainer = cls(lite0)

    def forward(x: Tensor) -> Tensor:
        seen.append(real(x).detach())
        return seen[-1].clone().requires_grad_() + 0 * x.sum()

    lite0.network.forward = forward  # type: ignore[method-assign]
    try:
        explainer(images, photographs[1][:2])
    finally:
        del lite0.network.forward
    assert torch.equal(seen[0], before.detach())
    assert torch.equal(lite0(images), before)


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.SiLU(), nn.GELU(), F.sigmoid, torch.tanh, nn.Hardtanh(), nn.LeakyReLU()),
        *(nn.Threshold(0.1, 0.0), nn.Softmax(dim=1), lambda x: x.clamp(0, 6), StarReLU()),
    ],
)
@pytest.mark.parametrize("cls", EXPLAINERS)
def test_another_activation_is_refused(cls: type[RectifiedGradient], activation: Any) -> None:
    with pytest.raises(ValueError, match=r"calls \w+: expected ReLU and ReLU6"):
        cls(backbone(Calls(nn.ReLU(), activation, nn.ReLU())))


@pytest.mark.parametrize("cls", EXPLAINERS)
def test_a_network_whose_relus_are_not_seen_is_refused(cls: type[RectifiedGradient]) -> None:
    identity = nn.Identity()
    with pytest.raises(ValueError, match="calls no ReLU that can be seen: expected some"):
        cls(backbone(Calls(identity, identity, identity)))
