"""ROAD against pytorch-grad-cam, and decoding: both sides in turns; run by `make speed`.

A few photographs, Grad-CAM's maps, 14 imputations an image, the same allocator and threads.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from benchmarks.pairing import paired
from benchmarks.rivals import as_given
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from pytorch_grad_cam.metrics.road import (
    NoisyLinearImputer,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

import methods
from benchmark.data.decoding import Crop, File, decoded
from benchmark.data.splits import Split
from benchmark.engine import scoring
from methods import Backbone
from metrics import Maps
from metrics.imputation import impute
from metrics.road import REMOVED, ROAD

Cams = tuple[Tensor, Tensor]
"""Photographs (IMAGES, 3, 224, 224) and Grad-CAM's maps (IMAGES, 7, 7)."""

IMAGES = 4
"""The other side takes three seconds for each. Batches are as large, so that none is filled up."""


@pytest.fixture(scope="module")
def cams(lite0: Backbone, photographs: tuple[Tensor, Tensor]) -> Cams:
    pixels = photographs[0][:IMAGES]
    return pixels, methods.load("gradcam")(lite0)(pixels, lite0.predict(pixels))


PHOTOGRAPHS = 256


def test_decoding(
    benchmark: BenchmarkFixture, photographs: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """JPEGs of the usual size to random crops: by a process for each CPU, and by this one."""
    files: list[File] = []
    for number in range(PHOTOGRAPHS):
        pixels = photographs[0][number % len(photographs[0])]
        path = tmp_path / f"{number}.JPEG"
        to_pil_image(pixels).resize((500, 375)).save(path, quality=95)
        files.append((path, number))
    batches = [files[i : i + 32] for i in range(0, PHOTOGRAPHS, 32)]

    def ours() -> None:
        assert sum(len(part) for part in decoded(batches, Crop(256, 224))) == PHOTOGRAPHS

    def theirs() -> None:
        crop = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.RandomCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),
            ]
        )
        for path, _ in files:
            with Image.open(path) as image:
                crop(image.convert("RGB"))

    name = f"a photograph, {len(os.sched_getaffinity(0))} processes; torchvision in one"
    paired(benchmark, "decoding", name, ours, theirs, images=PHOTOGRAPHS)


DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_imputation(benchmark: BenchmarkFixture, cams: Cams, device: str) -> None:
    """The imputations alone, without noise; and how far apart the two are."""
    pixels, native = cams
    masks = ROAD().masks(Maps(native, pixels.shape[2:], range(len(native))))
    images, removed = pixels.to(device), masks.to(device)
    reference = NoisyLinearImputer(noise=0)

    last: dict[str, Tensor] = {}

    def ours() -> None:
        last["ours"] = impute(images, removed)

    def theirs() -> None:
        last["theirs"] = torch.stack(
            [
                torch.stack([reference(image, (~mask).float()) for mask in own])
                for image, own in zip(pixels, masks, strict=True)
            ]
        )

    paired(benchmark, "metrics", f"ROAD's imputation, {device}", ours, theirs, len(pixels))
    error = (last["ours"].cpu() - last["theirs"]).abs()
    benchmark.extra_info["largest_error"] = float(error.max())


@pytest.mark.parametrize("network", ["as timm gives it", "as this suite makes it"])
def test_whole_metric(
    benchmark: BenchmarkFixture, lite0: Backbone, cams: Cams, network: str
) -> None:
    """Ranking, imputation, noise and forward passes of both orders at seven levels."""
    pixels, native = cams
    count = len(pixels)
    size = pixels.shape[2:]
    split = Split(
        pd.DataFrame({"id": [f"{i:02d}" for i in range(count)]}),
        (pixels * 255).round().byte(),
        torch.ones(count, *size, dtype=torch.bool),
        torch.zeros(count, dtype=torch.int64),
    )
    theirs_network = as_given("efficientnet_lite0") if network.startswith("as timm") else lite0
    targets = [ClassifierOutputSoftmaxTarget(int(t)) for t in lite0.predict(pixels)]
    resized = Maps(native, size, range(count)).resized.cpu().numpy()

    def ours() -> Any:
        view = scoring.View("corrected", [ROAD()], native.cpu().numpy())
        seeds, blocks = list(range(count)), scoring.blocks(split, [view]).values()
        images = scoring.predict(lite0, split, IMAGES)
        return list(scoring.score_blocks([view], lite0, images, seeds, IMAGES, "predicted", blocks))

    def theirs() -> None:
        for order in (ROADMostRelevantFirst, ROADLeastRelevantFirst):
            for removed in REMOVED:
                metric = order(percentile=100 - removed)
                metric(pixels, resized, targets, theirs_network, return_diff=False)

    name = f"ROAD, whole; pytorch-grad-cam with the network {network}"
    paired(benchmark, "metrics", name, ours, theirs, count)
