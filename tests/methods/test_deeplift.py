"""DeepLIFT against captum on plain networks, by hand, and by what it promises: the sum."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift as CaptumDeepLift
from torch import Tensor, nn
from torchvision.models import resnet18

from methods import Backbone
from methods._base import normalise
from methods.deeplift import DeepLIFT

TARGETS = torch.tensor([0, 3, 1])


def plain(*, pooling: nn.Module, size: int = 32) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), pooling),
            *(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5)),
        )
    return Backbone(
        network.eval(), name="plain", mean=[0.4] * 3, std=[0.2] * 3, size=size, classes=5,
        taps=["4"], cam_layer="4",
    )  # fmt: skip


@pytest.mark.parametrize("pooling", [nn.MaxPool2d(2), nn.AvgPool2d(2)], ids=["max", "average"])
@pytest.mark.parametrize("fill", ["black", "white"])
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_it_is_captums_on_plain_networks(pooling: nn.Module, fill: Any, pixels: Tensor) -> None:
    backbone = plain(pooling=pooling)
    base = torch.zeros_like(pixels) if fill == "black" else torch.ones_like(pixels)
    theirs = CaptumDeepLift(backbone.eval()).attribute(pixels, base, target=TARGETS).detach()
    explainer = DeepLIFT(backbone, baseline=fill)
    ours = explainer.attribute(pixels, TARGETS)
    assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))
    assert torch.allclose(explainer(pixels, TARGETS), normalise(theirs.sum(dim=1).abs()), atol=1e-4)


def differences(backbone: Backbone, images: Tensor, targets: Tensor) -> Tensor:
    rows = torch.arange(len(images))
    return (backbone(images) - backbone(torch.zeros_like(images)))[rows, targets].detach()


def test_the_sum_is_the_difference_of_logits_on_the_real_backbone(
    lite0: Backbone, photographs: tuple[Tensor, Tensor]
) -> None:
    images, targets = photographs[0][:4], photographs[1][:4]
    found = DeepLIFT(lite0).attribute(images, targets).double().sum(dim=(1, 2, 3))
    assert torch.allclose(found, differences(lite0, images, targets).double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kernel", [(3, 2, 1), (2, 2, 0)])
def test_the_sum_where_windows_overlap(kernel: tuple[int, int, int], pixels: Tensor) -> None:
    """Where a place is the maximum of several windows, each adds to it."""
    backbone = plain(pooling=nn.MaxPool2d(*kernel))
    explainer = DeepLIFT(backbone)
    backbone.double()
    found = explainer.attribute(pixels.double(), TARGETS).sum(dim=(1, 2, 3))
    assert torch.allclose(found, differences(backbone, pixels.double(), TARGETS), atol=1e-10)


def test_the_sum_on_a_residual_network_that_reuses_its_relu() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet18(num_classes=5).eval()
    backbone = Backbone(
        network, name="resnet18", mean=[0.5] * 3, std=[0.5] * 3, size=64, classes=5,
        taps=["layer4"], cam_layer="layer4",
    )  # fmt: skip
    explainer = DeepLIFT(backbone)
    backbone.double()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)).double()
    found = explainer.attribute(images, TARGETS).sum(dim=(1, 2, 3))
    expected = differences(backbone, images, TARGETS)
    assert float(expected.abs().min()) > 1e-3
    assert torch.allclose(found, expected, rtol=1e-8)


class Rectified(nn.Module):
    """The sum over the pixels of a ReLU6 of 10 (pixel - 0.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([F.relu6(10 * (self.first(x) - 0.2)).sum(dim=(1, 2, 3))] * 2, dim=1)


def test_a_relu6_by_hand() -> None:
    """From black, -2 at the ReLU6: 0.1 gives 0, 0.5 gives 3; 0.9 and 1 reach 7 and 8, cut to 6."""
    backbone = Backbone(
        Rectified(), name="rectified", mean=[0.0] * 3, std=[1.0] * 3, size=4, classes=2,
        taps=["first"], cam_layer="first",
    )  # fmt: skip
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0, 0] = torch.tensor([0.1, 0.5, 0.9, 1.0])
    found = DeepLIFT(backbone).attribute(image, torch.tensor([1]))
    assert torch.allclose(found[0, 0, 0], torch.tensor([0.0, 3.0, 6.0, 6.0]), atol=1e-6)
    assert float(found[0, 1:].abs().max()) == 0


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.SiLU(), "silu"),
        (nn.AdaptiveMaxPool2d(8), "adaptive_max_pool2d"),
        (nn.Softmax(dim=1), "softmax"),
        (nn.GroupNorm(2, 6), "group_norm"),
    ],
)
def test_what_has_no_rule_is_refused(module: nn.Module, name: str) -> None:
    with pytest.raises(ValueError, match=f"'plain' calls {name}: expected ReLU and ReLU6"):
        DeepLIFT(plain(pooling=module))


def test_the_positive_part_leaves_out_what_speaks_against(pixels: Tensor) -> None:
    backbone = plain(pooling=nn.MaxPool2d(2))
    summed = DeepLIFT(backbone).attribute(pixels, TARGETS).sum(dim=1)
    maps = DeepLIFT(backbone, sign="positive")(pixels, TARGETS)
    assert torch.allclose(maps, normalise(summed.clamp(min=0)), atol=1e-6)
    assert float(maps[summed <= 0].max()) == 0
