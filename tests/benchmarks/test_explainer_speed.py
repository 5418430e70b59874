"""Explainers against pytorch-grad-cam, the plain formula, or a bare forward pass.

Both sides in turns in one process; run by `make speed`.
"""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.pairing import paired
from benchmarks.peak_memory import LAYER
from benchmarks.rivals import as_given, library_cam, plain_rise
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import methods
from methods import Backbone, build_backbone
from methods._base import normalise

PEAK = "tests/benchmarks/peak_memory.py"
MASKS = 320
ADDED_ROUNDS = 15
BATCH = 32

Photographs = tuple[Tensor, Tensor]


def at_size(maps: Tensor) -> Tensor:
    """Maps (1, h, w) at 224 x 224, min-max normalised."""
    resized = F.interpolate(maps[:, None], size=(224, 224), mode="bilinear", align_corners=False)
    return normalise(resized[:, 0])


def peaks(method: str) -> dict[str, float]:
    """Peak memory of both sides, each in a process of its own."""
    found = {}
    for side in ("ours", "theirs"):
        command = [sys.executable, PEAK, method, side]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[f"peak_{side}"] = float(done.stdout.split()[-1])
    return found


CAMS = [
    ("gradcam", "GradCAM", "bn2"),
    ("scorecam", "ScoreCAM", "blocks.6"),
    ("ablationcam", "AblationCAM", "bn2"),
]

NETWORKS = ["as timm gives it", "as this suite makes it"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "library", "layer"), CAMS)
def test_cam(
    benchmark: BenchmarkFixture,
    lite0: Backbone,
    photographs: Photographs,
    name: str,
    library: str,
    layer: str,
    network: str,
) -> None:
    """One photograph, EfficientNet-Lite0; `bn2` has 1,280 channels, `blocks.6` 320.

    Memory is that of `bn2`.
    """
    other = as_given("efficientnet_lite0") if network == NETWORKS[0] else lite0
    # the library masks what it is given, here raw pixels
    settings = {"layer": layer} | ({"fill": "black"} if name == "scorecam" else {})
    image, explainer = photographs[0][:1], methods.build(methods.load(name), lite0, settings)
    target = lite0.predict(image)

    last: dict[str, Tensor] = {}

    def ours() -> None:
        last["ours"] = explainer(image, target)

    def theirs() -> None:
        last["theirs"] = library_cam(library, other, layer, image, int(target))

    channels = lite0.tapped_channels([layer])[0]
    memory = f", memory: `{LAYER}`" if layer != LAYER else ""
    title = f"{explainer.label}, {channels} channels (`{layer}`{memory}); the library with the "
    paired(benchmark, "explainers", f"{title}network {network}", ours, theirs, 1)
    error = (at_size(last["ours"]) - normalise(last["theirs"])).abs().max()
    benchmark.extra_info["largest_error"] = float(error)
    if other is lite0:
        benchmark.extra_info |= peaks(name)


TINY = {
    "source": "timm",
    "model": "vit_tiny_patch16_224",
    "weights": "none",
    "size": 224,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "taps": ("blocks.11.norm1",),
    "cam_layer": "blocks.11.norm1",
    "prefix_tokens": 1,
}


@pytest.mark.parametrize("network", ["the sample's ViT, 6 blocks", "ViT-Ti, 12 blocks"])
def test_ablation_of_tokens(
    benchmark: BenchmarkFixture, vit_sample: Backbone, photographs: Photographs, network: str
) -> None:
    """A ViT; the library's maps are others there (it subtracts 1e7), so the error is a loop's."""
    backbone = build_backbone("tiny", **TINY) if "12" in network else vit_sample
    image, explainer = photographs[0][:1], methods.load("ablationcam")(backbone)
    target, layer = backbone.predict(image), backbone.cam_layer

    def theirs() -> Tensor:
        return library_cam("AblationCAM", backbone, layer, image, int(target))

    name = f"Ablation-CAM, {network}"
    paired(benchmark, "explainers", name, lambda: explainer(image, target), theirs, 1)
    with torch.no_grad(), backbone.tap([layer]) as outputs:
        whole = backbone(image)[0, target]
    features, weights = outputs[layer].clone(), []
    for channel in range(features.shape[2]):
        changed = features.clone()
        changed[..., channel] = 0
        with torch.no_grad(), backbone.changed(layer, lambda _own, out=changed: out):
            weights.append((whole - backbone(image)[0, target]) / whole)
    loop = torch.einsum("c,bchw->bhw", torch.cat(weights), backbone.grid(features)).relu()
    error = (explainer(image, target) - normalise(loop)).abs().max()
    benchmark.extra_info["largest_error"] = float(error)


@pytest.mark.parametrize("network", NETWORKS)
def test_rise(
    benchmark: BenchmarkFixture, lite0: Backbone, photographs: Photographs, network: str
) -> None:
    """The same masks on both sides; ours makes them on the way."""
    other = as_given("efficientnet_lite0") if network == NETWORKS[0] else lite0
    image = photographs[0][:1]
    explainer = methods.build(methods.load("rise"), lite0, {"masks": MASKS, "fill": "black"})
    target = lite0.predict(image)
    masks = explainer.masks(0, MASKS, image.shape[2:])  # type: ignore[attr-defined]

    last: dict[str, Tensor] = {}

    def ours() -> None:
        last["ours"] = explainer(image, target)

    def theirs() -> None:
        last["theirs"] = plain_rise(other.probabilities, image, masks, int(target))

    name = f"RISE, {MASKS} masks (memory: 4,000); the formula with the network {network}"
    paired(benchmark, "explainers", name, ours, theirs, 1)
    error = (last["ours"] - normalise(last["theirs"][None])).abs().max()
    benchmark.extra_info["largest_error"] = float(error)
    if other is lite0:
        benchmark.extra_info |= peaks("rise")


@pytest.mark.parametrize("name", ["ttame", "tame", "lcam_img", "lcam_fm"])
def test_added_time(
    benchmark: BenchmarkFixture, lite0: Backbone, photographs: Photographs, name: str
) -> None:
    """A trained explainer against the bare forward pass of the same batch; untrained weights do."""
    pixels = photographs[0].repeat(2, 1, 1, 1)[:BATCH]
    explainer = methods.load(name)(lite0)
    explainer.allows_unseen = True
    targets = lite0.predict(pixels)

    def bare() -> Any:
        return lite0.probabilities(pixels)

    def ours() -> Tensor:
        return explainer(pixels, targets)

    paired(benchmark, "added", explainer.label, ours, bare, BATCH, rounds=ADDED_ROUNDS)
    ratios = [1 / ratio for ratio in benchmark.extra_info["ratios"]]
    benchmark.extra_info |= {"ratios": ratios, "ratio": float(np.median(ratios))}
