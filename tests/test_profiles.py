"""The profiles: the same pipeline as the sample's, and the paper's networks end to end."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import stand_in
import torch
import yaml
from safetensors.torch import load_file
from test_pipeline import run_all

from benchmark.core import params, results
from benchmark.core.cells import Project
from benchmark.core.memory import read_memory
from benchmark.core.params import Photographs
from benchmark.data.splits import ROOT as IMAGES

ROOT = Path(__file__).parents[1]
PROFILES = ("imagenet", "imagenette")
"""Those of this repository; others are their owners'."""

SHARED = ("dvc.yaml", ".dvcignore", ".dvc/config")
BACKBONES = ("vgg16", "resnet50", "vit_b_16")
CAMS = {"gradcam", "gradcampp", "scorecam", "ablationcam", "rise", "iia", "ttame"}
PAPER = {
    "vgg16": CAMS | {"lcam_img"},
    "resnet50": CAMS | {"lcam_img"},
    "vit_b_16": CAMS | {"tame", "transformer_lrp"},
}
"""The comparison of the paper, by backbone."""
CELLS = {
    "vgg16": ("ttame",),
    "resnet50": ("ttame", "rise", "constant"),
    "vit_b_16": ("ttame", "transformer_lrp"),
}
SIDE = 64
"""Of the images, in pixels: a twelfth of the paper's, and of the time."""

pytestmark = pytest.mark.xdist_group("profiles")
TWO = "torch.distributed.run --standalone --nproc-per-node=2 -m"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", SHARED)
def test_the_pipeline_is_the_samples(profile: str, name: str) -> None:
    assert (ROOT / "profiles" / profile / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_papers_comparison_is_in_it(profile: str) -> None:
    project = Project(params.load(ROOT / "profiles" / profile / "params.yaml"))
    for backbone, names in PAPER.items():
        assert names <= {cell.explainer for cell in project.cells(backbone)}
    assert (ROOT / "profiles" / profile / project.params.code).resolve() == ROOT


def test_the_papers_settings() -> None:
    loaded = params.load(ROOT / "profiles" / "imagenet" / "params.yaml")
    images = loaded.images
    assert isinstance(images, Photographs)
    assert (images.train, images.validation, images.evaluation) == (None, 2000, 2000)
    recipe = loaded.train
    assert (recipe.epochs, recipe.batch_size, recipe.max_lr) == (8, 32, 1e-3)
    assert (recipe.momentum, recipe.weight_decay, recipe.precision) == (0.9, 5e-4, "float16")
    masks = {b: loaded.cell(b, "rise").settings["masks"] for b in BACKBONES}
    assert masks == dict.fromkeys(BACKBONES, 8000)
    for name in ("lcam_img", "lcam_fm"):
        assert loaded.cell("vgg16", name).settings["layers"] == ["features.29"]
    assert all("channels" not in loaded.cell(b, "scorecam").settings for b in BACKBONES)


def small(launch: str) -> dict[str, Any]:
    """The ImageNet profile with random weights, and small images, few of them, steps and cells."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "profiles/imagenet/params.yaml").read_text())
    raw |= {"launch": launch, "code": str(ROOT)}
    raw["images"] |= {"train": 4, "validation": 2, "evaluation": 2, "lists": "seeded"}
    raw["images"] |= {"resize": SIDE + 8, "size": SIDE}
    for spec in raw["backbones"].values():
        spec |= {"weights": "none", "size": SIDE}
        spec["trusted"] = [*spec["taps"], spec["cam_layer"]]  # random weights mix places
    raw["backbones"]["vit_b_16"]["arguments"] = {"image_size": SIDE}
    for recipe in ("train", "ablate"):
        raw[recipe] |= {"epochs": 1, "batch_size": 2, "log_every": 1, "precision": "float32"}
    every = {name for names in CELLS.values() for name in names}
    raw["explainers"] = {name: own for name, own in raw["explainers"].items() if name in every}
    raw["explainers"]["rise"]["settings"] = {"masks": 4}
    for backbone, names in CELLS.items():
        raw["backbones"][backbone] |= {"skip": sorted(every - set(names)), "explainers": {}}
    raw["ablate"]["seeds"] = 2
    study = raw["ablation"]["resnet50"]
    raw["ablation"] = {"resnet50": {name: study[name] for name in ("baseline", "one_layer")}}
    raw["explain"]["batch_size"] = 1
    raw["evaluate"] |= {"batch_size": 8, "delta_images": 2}
    chosen = {"confidence": {"kept": [50]}, "road": {"removed": [40]}}
    raw["evaluate"]["metrics"] = {name: {"settings": own} for name, own in chosen.items()}
    raw["randomise"] = {"images": 2, "layers": [5], "seed_images": 2}
    raw["runtime"] = {"batch": 1, "rounds": 1, "seconds": 0, "warmup": 1}
    raw["tables"]["resamples"] = 20
    raw["plots"]["grid_images"] = 2
    raw["page"]["images"] = 2
    return raw


def prepare(folder: Path, launch: str) -> Path:
    """A profile of its own, outside of git, beside a stand-in ImageNet."""
    profile = folder / "profile"
    for name in SHARED:
        (profile / name).parent.mkdir(parents=True, exist_ok=True)
        (profile / name).write_bytes((ROOT / name).read_bytes())
    with (profile / ".dvc" / "config").open("a") as config:
        config.write("    no_scm = true\n")
    (profile / "params.yaml").write_text(yaml.safe_dump(small(launch), sort_keys=False))
    return profile


def execute(profile: Path, imagenet: Path, *command: str) -> None:
    """Run a module as a user does, with the suite of this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), IMAGES: str(imagenet)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=profile,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The profile after every stage, and its ImageNet."""
    folder = tmp_path_factory.mktemp("imagenet")
    stand_in.build(folder / "images", "original", train=4, held=4, classes=2)
    profile = prepare(folder, "python -m")
    execute(profile, folder / "images", "benchmark", "index", str(folder / "images"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(IMAGES, str(folder / "images"))
        patch.chdir(profile)
        read_memory.cache_clear()
        run_all(params.load())
    return profile, folder / "images"


@pytest.mark.slow
def test_the_papers_networks_end_to_end(run: tuple[Path, Path]) -> None:
    folder = run[0] / "results"
    comparison = pd.read_csv(folder / "tables" / "comparison.csv")
    found = comparison.groupby("backbone")["explainer"].unique()
    assert {b: set(own) for b, own in found.items()} == {b: set(own) for b, own in CELLS.items()}
    for backbone in CELLS:
        names = {"comparison", "road", "faithfulness", "delta", "randomisation"}
        names |= {"short", "training"}
        names |= {"ranks", "decided"} if len(CELLS[backbone]) > 1 else set()
        said = {"claims", "headline", "explained"}
        if backbone == "resnet50":
            names, said = names | {"ablation"}, said | {"answers"}
        names |= {"reported"} if backbone != "resnet50" else set()
        for suffix in (".csv", ".md", ".tex"):
            found = (folder / "tables" / backbone).glob(f"*{suffix}")
            written = names | said if suffix == ".md" else names
            assert {path.stem for path in found} == written
        for picture in ("confidence", "road", "heat_maps", "randomisation", "quality_runtime"):
            assert (folder / "plots" / f"{backbone}_{picture}.png").stat().st_size > 10_000
        scores = pd.read_csv(folder / "scores" / backbone / "ttame.csv")
        assert scores["image"].nunique() == 2
        assert scores.loc[scores["metric"] == "average_drop", "value"].between(0, 100).all()
    assert (folder / "runtime" / "medians.json").is_file()
    assert (folder / "index.html").stat().st_size > 50_000
    sheets = {path.stem: path.stat().st_size for path in (folder / "page").glob("*-*.webp")}
    cells = {f"{backbone}-{name}" for backbone, names in CELLS.items() for name in names}
    assert sheets.keys() == cells | {f"photograph-{i}" for i in range(2)}
    assert min(sheets.values()) > 200
    assert [p.name for p in (run[0] / "work").iterdir() if p.is_dir()] == ["page"]


@pytest.mark.slow
def test_dvc_runs_what_is_missing_and_nothing_else(run: tuple[Path, Path]) -> None:
    profile, imagenet = run
    lost = profile / results.scores_path("resnet50", "constant")
    delta = profile / results.delta_path("resnet50", "constant")
    check = profile / results.CHECK
    text = lost.read_bytes()
    before = {p: p.stat().st_mtime_ns for p in (profile / "results").rglob("*") if p.is_file()}
    lost.unlink()
    execute(profile, imagenet, "dvc", "repro", "--quiet")
    assert lost.read_bytes() == text
    after = {p: p.stat().st_mtime_ns for p in (profile / "results").rglob("*") if p.is_file()}
    linked = {p for p in after if "splits" in p.parts or p.name == "index.html"}
    changed = {p for p in after if after[p] != before.get(p)} - linked  # DVC's cache has these
    keys = {path.with_name("keys.json") for path in (lost, delta)}
    assert changed <= {lost, delta, check} | keys
    assert after.keys() == before.keys()
    execute(profile, imagenet, "dvc", "repro", "--quiet")
    assert after == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.slow
def test_two_processes_give_the_same_results(run: tuple[Path, Path], tmp_path: Path) -> None:
    profile, imagenet = run
    two = prepare(tmp_path, f"python -m {TWO}")
    for name in ("data", "results/splits", "results/check.json"):
        (two / name).parent.mkdir(parents=True, exist_ok=True)
        (two / name).symlink_to(profile / name)
    for stage in ("train", "explain", "evaluate"):
        execute(two, imagenet, *TWO.split(), f"benchmark.{stage}", "resnet50")
    states = [load_file(p / results.state_path("resnet50", "ttame")) for p in (profile, two)]
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-5) for name in states[0])
    maps = [np.load(p / results.maps_path("resnet50", "rise")) for p in (profile, two)]
    assert np.allclose(*maps, atol=1e-5)
    tables = [pd.read_csv(p / results.scores_path("resnet50", "rise")) for p in (profile, two)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-3)
    assert not [p for p in (two / "work").iterdir() if p.is_dir()]
