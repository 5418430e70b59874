"""Every explainer keeps every promise, on small and on real backbones of both families.

A broken one fails with the name of the promise.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import TINY_BACKBONES
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import methods
from benchmark.engine.promises import (
    PROMISES,
    BrokenPromiseError,
    Case,
    alone_as_in_a_batch,
    borrowed_state_goes_back,
    building_leaves_no_trace,
    maps_are_maps,
)
from methods import Backbone, Explainer
from methods._cam import GradientCAM

FAST: dict[str, dict[str, Any]] = {
    "rise": {"masks": 20, "batch_size": 8},
    "integrated_gradients": {"steps": 4},
    "smoothgrad": {"samples": 4},
    "gradient_shap": {"samples": 4},
    "iia": {"image_steps": 2, "layer_steps": 2},
    "scorecam": {"channels": 6},
    "occlusion": {"window": 16, "stride": 16},
    "kernel_shap": {"samples": 12, "segments": 6},
    "lime": {"samples": 12, "segments": 6},
    "opticam": {"steps": 3},
}
"""Settings that keep the test short; other explainers run with their defaults."""

REAL = FAST | {"occlusion": {"window": 56, "stride": 56}, "rise": {"masks": 8}}
"""The same for networks that are not tiny."""

SUPPORTED = [(n, family) for n in methods.names() for family in sorted(methods.load(n).families)]


def case(name: str, backbone: Backbone, pixels: Tensor) -> Case:
    targets = torch.tensor([0, 3, 3])[: len(pixels)]
    settings = FAST if backbone.size < 100 else REAL
    return Case(methods.load(name), backbone, pixels, targets, settings.get(name, {}))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize(("name", "family"), SUPPORTED)
def test_promise(
    name: str,
    family: str,
    promise: Callable[[Case], None],
    request: pytest.FixtureRequest,
    pixels: Tensor,
) -> None:
    tiny = {"cnn": "cnn", "transformer": "vit"}[family]
    unprobed = promise is building_leaves_no_trace  # which would see a trace of the probing
    backbone = TINY_BACKBONES[tiny]() if unprobed else request.getfixturevalue(tiny)
    promise(case(name, backbone, pixels))


@pytest.mark.parametrize(("name", "family"), SUPPORTED)
def test_promises_on_a_real_network(
    name: str, family: str, request: pytest.FixtureRequest, photographs: tuple[Tensor, Tensor]
) -> None:
    real = {"cnn": "lite0", "transformer": "vit_sample"}[family]
    own = case(name, request.getfixturevalue(real), photographs[0][:2])
    for promise in (maps_are_maps, alone_as_in_a_batch, borrowed_state_goes_back):
        promise(own)


class Broken(Explainer):
    """Grad-CAM with a fault; a subclass has the fault."""

    label = "Broken"
    paper = "test"
    cost = "1 forward, 1 backward"

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        return methods.load("gradcam")(self.backbone)(images, targets)


class WrongShape(Broken):
    """Maps with an axis for the channel."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().explain(images, targets)[:, None]


class OutOfRange(Broken):
    """Maps beyond 1."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        return 2 * super().explain(images, targets)


class HookLeft(Broken):
    """A hook stays behind."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        self.backbone.network.register_forward_hook(lambda *_: None)
        return super().explain(images, targets)


class HookLeftByAnException(Broken):
    """A hook stays behind if the network fails."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        handle = self.backbone.network.register_forward_hook(lambda *_: None)
        maps = super().explain(images, targets)
        handle.remove()
        return maps


class Unseeded(Broken):
    """Noise from the global generator."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        maps = super().explain(images, targets)
        return (maps + 0.1 * torch.rand_like(maps)).clamp(0, 1)


class BatchDependent(Broken):
    """Normalised over the batch."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        maps = super().explain(images, targets)
        return maps * torch.linspace(0.5, 1, len(maps))[:, None, None]


class TrainMode(Broken):
    """The network stays in train mode."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        maps = super().explain(images, targets)
        self.backbone.network.train()
        return maps


class ChangesImages(Broken):
    """The caller's images are changed."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        images.mul_(0.5)
        return super().explain(images, targets)


class Dearer(Broken):
    """It needs another forward pass than it says."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        self.backbone.predict(images)
        return super().explain(images, targets)


class HidesNaN(Broken):
    """A network that gives NaN has maps of zeros."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().explain(images, targets).nan_to_num(0.0)


class HalfPrecision(Broken):
    """Maps are of the type that the network computes in."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        maps = super().explain(images, targets)
        return maps.bfloat16() if torch.is_autocast_enabled("cpu") else maps


class SquareMaps(Broken):
    """Maps are square, whatever the images are."""

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        maps = super().explain(images, targets)
        return maps[:, :, : maps.shape[1]]


class Anonymous(Broken):
    """Without a paper."""

    paper = ""


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongShape, r"maps \(B, h, w\), float32 in \[0, 1\]: maps have shape \(3, 1, 4, 4\)"),
        (OutOfRange, r"maps \(B, h, w\), float32 in \[0, 1\]: maps range from 0 to 2"),
        (HookLeft, "it gives back what it borrows: forward hooks"),
        (HookLeftByAnException, "it gives back after an exception: forward hooks"),
        (Unseeded, "seeded: the same call gives the same maps again"),
        (BatchDependent, "batch-independent: alone, maps differ by"),
        (TrainMode, "it gives back what it borrows: training mode"),
        (ChangesImages, "images stay as they are"),
        (Dearer, r"cost 1 forward, 1 backward: \[6, 3\] images, expected \[3, 3\]"),
        (HidesNaN, "a network that gives NaN gives no finite maps"),
        (HalfPrecision, r"maps in bfloat16: maps are torch.bfloat16"),
        (SquareMaps, "maps have the shape of the images"),
        (Anonymous, "it has a paper"),
    ],
)
def test_a_broken_explainer_is_told_which_promise(
    broken: type[Explainer], message: str, cnn: Backbone, pixels: Tensor
) -> None:
    failures = []
    for promise in PROMISES:
        cnn.eval()
        try:
            promise(Case(broken, cnn, pixels.clone(), torch.tensor([0, 3, 3])))
        except BrokenPromiseError as error:
            failures.append(str(error))
    expected = f"{broken.__name__} on tiny_cnn breaks a promise: "
    assert [f for f in failures if f.startswith(expected)] == failures
    assert [f for f in failures if re.search(message, f)], failures


def test_a_sound_explainer_breaks_none(cnn: Backbone, pixels: Tensor) -> None:
    for promise in PROMISES:
        promise(Case(Broken, cnn, pixels, torch.tensor([0, 3, 3])))


class Reused(nn.Module):
    """One activation runs twice, and the last convolution is overwritten by another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 4, 1)
        self.twice, self.over = nn.ReLU(), nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.twice(self.twice(self.first(images) - 0.1)))
        logits: Tensor = self.head(self.over(hidden).mean(dim=(2, 3)))
        return logits


def reused(layer: str) -> Backbone:
    """A network of which `layer` is tapped."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Reused()
    half = [0.5] * 3
    return Backbone(
        network, name="reused", mean=half, std=half, size=32, classes=5, taps=[layer],
        cam_layer=layer,
    )  # fmt: skip


def without_cls() -> Backbone:
    """A transformer whose head reads the mean of the patches."""
    network = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=5,
        class_token=False, global_pool="avg",
    )  # fmt: skip
    half, layer = [0.5] * 3, "blocks.1.norm1"
    return Backbone(
        network, name="means", mean=half, std=half, size=32, classes=5, taps=[layer],
        cam_layer=layer, prefix_tokens=0,
    )  # fmt: skip


@pytest.mark.parametrize("odd", ["twice", "second", "means"])
@pytest.mark.parametrize("name", methods.names())
def test_an_odd_network_is_explained_or_refused_in_one_line(
    name: str, odd: str, pixels: Tensor
) -> None:
    """Whoever reads the odd layer, or a CLS token where there is none, refuses when it is built."""
    backbone = without_cls() if odd == "means" else reused(odd)
    cls = methods.load(name)
    if backbone.family not in cls.families:
        pytest.skip(f"it does not explain a {backbone.family}")
    derived = odd != "means" and issubclass(cls, GradientCAM)
    own = case(name, backbone, pixels)
    if derived or name in (READS_CLS if odd == "means" else READS_LAYERS):
        with pytest.raises(ValueError, match=REASONS[odd]) as refused:
            own.build()
        assert "\n" not in str(refused.value)
    else:
        maps_are_maps(own)


READS_LAYERS = {
    *("ttame", "tame", "lcam_img", "lcam_fm", "ttame_untrained", "gradcam", "gradcampp"),
    *("xgradcam", "layercam", "hirescam", "finercam", "eigencam", "scorecam", "ablationcam", "iia"),
    *("shapleycam", "refinecam", "opticam"),
}
"""With them whatever is derived from GradientCAM."""

READS_CLS = {
    *("ttame", "ttame_untrained", "rollout", "generic_attention", "transformer_lrp", "iia"),
    *("raw_attention", "legrad", "attnlrp"),
}
REASONS = {
    "twice": "it runs 2 times a forward pass",
    "second": "what follows works in place and overwrites it",
    "means": "expected 'drop'|expected one Linear on the CLS token",
}
