"""Small backbones of both families, built here, and the real one with its packaged weights.

Workers of pytest-xdist have one thread each; numba's functions are compiled before they start.
"""

import copy
import importlib.util
import os
import subprocess
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch and numba are imported
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import foolbox
import pandas as pd
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms.v2.functional import (
    InterpolationMode,
    center_crop,
    pil_to_tensor,
    resize,
)

from benchmark.core import params, stage
from benchmark.data.splits import Split
from methods import Backbone, build_backbone

ROOT = Path(__file__).parents[1]
MakeSplit = Callable[[str, int], Split]
TINY = 32
"""Side of the tiny backbones' images."""


WARM = """
import torch
from metrics.imputation import impute
impute(torch.rand(1, 3, 16, 16), torch.rand(1, 2, 16, 16) > 0.5)
"""


COMPILING = pytest.StashKey[subprocess.Popen[bytes]]()
"""The process that compiles numba's functions."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile numba's functions once, where several workers would all compile them."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        source = ROOT / "metrics" / "imputation" / "cpu.py"
        kept = list((source.parent / "__pycache__").glob("cpu.*.nbi"))
        if not kept or min(p.stat().st_mtime for p in kept) < source.stat().st_mtime:
            config.stash[COMPILING] = subprocess.Popen([sys.executable, "-c", WARM], cwd=ROOT)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Let the workers collect meanwhile; their tests start when all is compiled."""
    if COMPILING in session.config.stash:
        session.config.stash[COMPILING].wait()


@pytest.fixture(scope="session", autouse=True)
def allocator() -> None:
    """The allocator settings of every stage."""
    stage.keep_freed_memory()


def load_script(name: str) -> Any:
    """A script beside the sample, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "data" / "sample" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def tiny_cnn() -> Backbone:
    """Three convolutions with batch norm: grids 16, 8 and 4."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        blocks = [
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in ((3, 4), (4, 6), (6, 8))
        ]
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        network = nn.Sequential(*blocks, head)
    return Backbone(
        network,
        name="tiny_cnn",
        mean=[0.5, 0.4, 0.3],
        std=[0.5, 0.25, 0.2],
        size=TINY,
        classes=5,
        taps=["0", "1", "2"],
        cam_layer="2",
    )


def tiny_spec() -> params.Backbone:
    """What params.yaml would say of the tiny CNN, but for its network."""
    cnn = tiny_cnn()
    return params.Backbone(
        source="timm", model="x", weights="none", size=cnn.size, mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5), taps=cnn.taps, cam_layer=cnn.cam_layer,
    )  # fmt: skip


def tiny_vit() -> Backbone:
    """A timm vision transformer of three blocks: 16 patches and CLS."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = VisionTransformer(
            img_size=TINY, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=5,
            dynamic_img_size=True,
        )  # fmt: skip
    return Backbone(
        network,
        name="tiny_vit",
        mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.5, 0.5],
        size=TINY,
        classes=5,
        taps=["blocks.0.norm1", "blocks.1.norm1", "blocks.2.norm1"],
        cam_layer="blocks.2.norm1",
        prefix_tokens=1,
    )


@cache
def probed(build: Callable[[], Backbone]) -> Backbone:
    """A tiny backbone whose layers were looked at, which takes longer than many a test."""
    backbone = build()
    for layer in backbone.taps:
        backbone.use(layer)
    return backbone


TINY_BACKBONES = {"cnn": tiny_cnn, "vit": tiny_vit}


@pytest.fixture(params=TINY_BACKBONES.values(), ids=TINY_BACKBONES)
def tiny(request: pytest.FixtureRequest) -> Backbone:
    """A tiny backbone of each family."""
    return copy.deepcopy(probed(request.param))


@pytest.fixture
def cnn() -> Backbone:
    """The tiny CNN."""
    return copy.deepcopy(probed(tiny_cnn))


@pytest.fixture
def vit() -> Backbone:
    """The tiny vision transformer."""
    return copy.deepcopy(probed(tiny_vit))


@pytest.fixture
def pixels() -> Tensor:
    """Three tiny images in [0, 1]."""
    return torch.rand(3, 3, TINY, TINY, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def settings() -> params.Params:
    """The parameters of the sample."""
    return params.load(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def lite0(settings: params.Params) -> Backbone:
    """EfficientNet-Lite0 with its packaged weights."""
    return build_backbone("efficientnet_lite0", **settings.backbones["efficientnet_lite0"].spec)


@pytest.fixture(scope="session")
def vit_sample(settings: params.Params) -> Backbone:
    """The sample's vision transformer with its shipped weights."""
    spec = settings.backbones["vit_sample"].spec
    spec |= {"weights": str(ROOT / spec["weights"])}
    return build_backbone("vit_sample", **spec)


@pytest.fixture(scope="session")
def photographs() -> tuple[Tensor, Tensor]:
    """The 20 ImageNet photographs that foolbox ships, (20, 3, 224, 224), and their labels."""
    files = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*.jpg"))
    images = [
        center_crop(
            resize(
                pil_to_tensor(Image.open(f).convert("RGB")),
                [256],
                InterpolationMode.BICUBIC,
                antialias=True,
            ),
            [224, 224],
        )
        for f in files
    ]
    labels = torch.tensor([int(f.stem.split("_")[2]) for f in files])
    return torch.stack(images).float() / 255, labels


@pytest.fixture
def make_split() -> MakeSplit:
    """Makes a split of tiny random images: (name, count)."""

    def make(name: str, count: int) -> Split:
        generator = torch.Generator().manual_seed(count)
        shape = (count, 3, TINY, TINY)
        return Split(
            table=pd.DataFrame({"id": [f"{name}-{i}" for i in range(count)]}),
            pixels=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
            objects=torch.zeros(count, TINY, TINY, dtype=torch.bool),
            labels=torch.zeros(count, dtype=torch.int64),
        )

    return make
