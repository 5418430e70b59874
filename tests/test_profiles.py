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

import methods
from benchmark import images, params, store
from methods import TrainableExplainer

ROOT = Path(__file__).parents[1]
PROFILES = sorted(p.name for p in (ROOT / "profiles").iterdir())
SHARED = ["dvc.yaml", *(f"pipeline/{s}/dvc.yaml" for s in ("explain", "evaluate", "randomise"))]
FAMILIES = {"vgg16": "cnn", "resnet50": "cnn", "vit_b_16": "transformer"}
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
TWO = "torch.distributed.run --standalone --nproc-per-node=2 -m"


@pytest.mark.parametrize("profile", PROFILES)
def test_the_pipeline_is_the_samples(profile: str) -> None:
    for name in SHARED:
        assert (ROOT / "profiles" / profile / name).read_bytes() == (ROOT / name).read_bytes()
    ignored = ROOT / "profiles" / profile / ".dvcignore"
    assert ignored.read_bytes() == (ROOT / ".dvcignore").read_bytes()
    config = ROOT / "profiles" / profile / ".dvc" / "config"
    assert config.read_bytes() == (ROOT / ".dvc" / "config").read_bytes()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_parameters_are_whole(profile: str) -> None:
    loaded = params.load(ROOT / "profiles" / profile / "params.yaml")
    supported = {
        f"{backbone}-{name}"
        for backbone, family in FAMILIES.items()
        for name in methods.names()
        if family in methods.load(name).families
    }
    assert set(loaded.cells) <= supported
    assert {f"{b}-{name}" for b, names in PAPER.items() for name in names} <= set(loaded.cells)
    for key, cell in loaded.cells.items():
        trainable = issubclass(methods.load(cell.explainer), TrainableExplainer)
        assert (key in loaded.heads) == trainable
        state = store.state_path(cell.backbone, cell.explainer)
        assert cell.needs == (state if trainable else store.split_table_path("evaluation"))
    assert (ROOT / "profiles" / profile / loaded.code).resolve() == ROOT


def test_the_papers_settings() -> None:
    loaded = params.load(ROOT / "profiles" / "imagenet" / "params.yaml")
    assert loaded.photographs is not None
    assert loaded.photographs.images == params.Counts(validation=2000, evaluation=2000)
    recipe = loaded.train
    assert (recipe.epochs, recipe.batch_size, recipe.max_lr) == (8, 32, 1e-3)
    assert (recipe.momentum, recipe.weight_decay, recipe.precision) == (0.9, 5e-4, "float16")
    masks = {b: loaded.cells[f"{b}-rise"].settings["masks"] for b in FAMILIES}
    assert masks == {"vgg16": 4000, "resnet50": 8000, "vit_b_16": 8000}
    assert all("channels" not in loaded.cells[f"{b}-scorecam"].settings for b in FAMILIES)


def small(launch: str) -> dict[str, Any]:
    """The ImageNet profile with random weights, few images, steps and cells."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "profiles/imagenet/params.yaml").read_text())
    raw |= {"launch": launch, "code": str(ROOT)}
    raw["photographs"]["images"] = {"train": 4, "validation": 2, "evaluation": 2}
    raw["photographs"]["lists"] = "seeded"
    for spec in raw["backbones"].values():
        spec["weights"] = "none"
    for recipe in ("train", "ablate"):
        raw[recipe] |= {"epochs": 1, "batch_size": 2, "log_every": 1, "precision": "float32"}
    keys = [f"{backbone}-{name}" for backbone, names in CELLS.items() for name in names]
    raw["cells"] = {key: raw["cells"][key] for key in keys}
    raw["cells"]["resnet50-rise"]["settings"] = {"masks": 4}
    raw["heads"] = {key: raw["heads"][key] for key in keys if key.endswith("-ttame")}
    raw["ablate"]["seeds"] = 2
    variants = ("resnet50-baseline", "resnet50-one_layer")
    raw["ablation"] = {key: raw["ablation"][key] for key in variants}
    raw["explain"]["batch_size"] = 1
    raw["evaluate"] |= {"batch_size": 8, "delta_images": 2}
    raw["evaluate"]["metrics"] = {"confidence": {"kept": [50]}, "road": {"removed": [40]}}
    raw["randomise"] = {"images": 2, "layers": [5]}
    raw["runtime"] = {"batch": 1, "rounds": 1, "seconds": 0, "warmup": 1}
    raw["tables"]["resamples"] = 20
    raw["plots"]["grid_images"] = 2
    raw["page"]["images"] = 2
    return raw


def prepare(folder: Path, launch: str) -> Path:
    """A profile of its own, outside of git, beside a stand-in ImageNet."""
    profile = folder / "profile"
    for name in ("pipeline", ".dvc", "dvc.yaml", ".dvcignore"):
        source = ROOT / "profiles" / "imagenet" / name
        for path in [source] if source.is_file() else source.rglob("*"):
            if path.name in ("dvc.yaml", ".dvcignore", "config"):
                target = profile / path.relative_to(ROOT / "profiles" / "imagenet")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    with (profile / ".dvc" / "config").open("a") as config:
        config.write("    no_scm = true\n")
    (profile / "params.yaml").write_text(yaml.safe_dump(small(launch), sort_keys=False))
    return profile


def execute(profile: Path, imagenet: Path, *command: str) -> None:
    """Run a module as a user does, with the suite of this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), images.ROOT: str(imagenet)}
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
    """The profile after `dvc repro`, and its ImageNet."""
    folder = tmp_path_factory.mktemp("imagenet")
    stand_in.build(folder / "images", "original", train=4, held=4, classes=2)
    profile = prepare(folder, "python -m benchmark.warm")
    execute(profile, folder / "images", "benchmark.index", str(folder / "images"))
    execute(profile, folder / "images", "dvc", "repro", "--quiet")
    return profile, folder / "images"


def test_the_papers_networks_end_to_end(run: tuple[Path, Path]) -> None:
    results = run[0] / "results"
    comparison = pd.read_csv(results / "tables" / "comparison.csv")
    found = comparison.groupby("backbone")["explainer"].unique()
    assert {b: set(own) for b, own in found.items()} == {b: set(own) for b, own in CELLS.items()}
    for backbone in CELLS:
        names = {"comparison", "road", "faithfulness", "maps", "delta", "randomisation"}
        names |= {"ranks"} if len(CELLS[backbone]) > 1 else set()
        names |= {"ablation"} if backbone == "resnet50" else set()
        names |= {"reported"} if backbone == "vit_b_16" else set()
        for suffix in (".csv", ".md", ".tex"):
            found = (results / "tables" / backbone).glob(f"*{suffix}")
            assert {path.stem for path in found} == names
        for picture in ("confidence", "road", "heat_maps", "randomisation", "quality_runtime"):
            assert (results / "plots" / f"{backbone}_{picture}.png").stat().st_size > 10_000
        scores = pd.read_csv(results / "scores" / backbone / "ttame.csv")
        assert scores["image"].nunique() == 2
        assert scores.loc[scores["metric"] == "average_drop", "value"].between(0, 100).all()
    assert (results / "runtime" / "medians.json").is_file()
    assert (results / "index.html").stat().st_size > 100_000
    assert not [p for p in (run[0] / "work").iterdir() if p.is_dir()]


def test_nothing_runs_again(run: tuple[Path, Path]) -> None:
    profile, imagenet = run
    before = {p: p.stat().st_mtime_ns for p in (profile / "results").rglob("*") if p.is_file()}
    execute(profile, imagenet, "dvc", "repro", "--quiet")
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_two_processes_give_the_same_results(run: tuple[Path, Path], tmp_path: Path) -> None:
    profile, imagenet = run
    two = prepare(tmp_path, f"python -m {TWO}")
    for name in ("data", "results/splits", "results/sources", "results/maps/resnet50"):
        (two / name).parent.mkdir(parents=True, exist_ok=True)
        (two / name).symlink_to(profile / name)
    stages = [("train", "resnet50-ttame"), ("explain", "vit_b_16-transformer_lrp")]
    stages += [("evaluate", "resnet50-rise")]
    for stage, key in stages:
        execute(two, imagenet, *TWO.split(), f"benchmark.{stage}", key)
    states = [load_file(p / store.state_path("resnet50", "ttame")) for p in (profile, two)]
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-5) for name in states[0])
    maps = [np.load(p / store.maps_path("vit_b_16", "transformer_lrp")) for p in (profile, two)]
    assert np.allclose(*maps, atol=1e-5)
    tables = [pd.read_csv(p / store.scores_path("resnet50", "rise")) for p in (profile, two)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-3)
    assert not [p for p in (two / "work").iterdir() if p.is_dir()]
