"""Which cells there are, and what makes which of their results due: one edit at a time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import catalogue, params
from benchmark.core.cells import Project

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("every_result.py")
CNN, VIT = "efficientnet_lite0", "vit_sample"

LEFT_OUT = {(CNN, "tame"): "on a CNN it is the same network as T-TAME"}


def test_cells_are_every_explainer_on_every_backbone_of_its_families(
    settings: params.Params,
) -> None:
    import methods

    project = Project(settings)
    for backbone, entry in settings.backbones.items():
        cells = [cell.explainer for cell in project.cells(backbone)]
        supported = [n for n in settings.explainers if entry.family in methods.load(n).families]
        assert cells == [n for n in supported if (backbone, n) not in LEFT_OUT]
        matrix = project.matrix(backbone)
        assert {n for n, why in matrix.items() if why.startswith("not supported")} == (
            set(settings.explainers) - set(supported)
        )
    assert set(settings.explainers) == set(methods.names())


def test_what_a_backbone_says_wins(settings: params.Params) -> None:
    assert settings.cell(CNN, "ttame").settings == {"gain": 0.1}
    assert settings.cell(VIT, "ttame").settings == {"gain": 1.0}
    variant = settings.variant(CNN, "one_layer")
    assert variant.settings == {"gain": 0.1, "layers": ["blocks.6"]}
    assert variant.recipe.images == settings.ablate.images
    recipe = settings.variant(CNN, "full").recipe
    assert (recipe.epochs, recipe.images) == (6, None)
    assert recipe.batch_size == settings.ablate.batch_size


def test_a_recipe_of_what_is_not_trained_is_refused(settings: params.Params) -> None:
    entry = settings.explainers["gradcam"].model_copy(update={"recipe": {"epochs": 2}})
    changed = settings.model_copy(update={"explainers": {"gradcam": entry}})
    with pytest.raises(ValueError, match=r"explainers.gradcam has a recipe .*nothing to train"):
        Project(changed).cells(CNN)


@pytest.mark.parametrize("load", [None, "nowhere.at_all:Mine"])
def test_a_missing_explainer_is_named(load: str | None) -> None:
    with pytest.raises(ValueError, match=r"explainer 'mine' has no module .*expected methods/mine"):
        catalogue.explainer_module("mine", load)


pytestmark = pytest.mark.xdist_group("cells")
"""One worker copies the suite, once."""

# What follows runs on a copy of the suite with few cells, whose results are made up.

EXPLAINERS = ("ttame", "gradcam", "gradcampp", "rise", "rollout")
METRICS = ("confidence", "road", "complexity")
ON_CNN, ON_VIT = ("ttame", "gradcam", "gradcampp", "rise"), ("ttame", "gradcam", "rise", "rollout")
CELLS = {CNN: ON_CNN, VIT: ON_VIT}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline all of whose results are there."""
    folder = tmp_path_factory.mktemp("recorded")
    for package in ("benchmark", "methods", "metrics"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
    (folder / "mine.py").write_text(
        "from methods.gradcam import GradCAM\n\n\nclass Mine(GradCAM):\n    label = 'Mine'\n"
    )
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["explainers"] = {n: raw["explainers"].get(n, {}) for n in EXPLAINERS}
    raw["explainers"]["mine"] = {"load": "mine:Mine"}
    raw["tables"]["short"] = []
    raw["backbones"][CNN]["skip"] = ["mine"]
    raw["backbones"][VIT]["skip"] = ["gradcampp", "mine"]
    raw["backbones"][VIT]["weights"] = "data/sample/vit_sample.safetensors"
    raw["evaluate"]["metrics"] = {n: raw["evaluate"]["metrics"][n] for n in METRICS}
    study = raw["ablation"][CNN]
    raw["ablation"] = {CNN: {name: study[name] for name in ("baseline", "no_area")}}
    raw["ablate"]["seeds"] = 2
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    assert run(folder, "record") == {}
    return folder


def run(folder: Path, *arguments: str) -> dict[str, dict[str, list[str]]]:
    """What is due, by stage and backbone; and why."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def stages(stage: str, cells: dict[str, tuple[str, ...]], why: str) -> dict[str, Any]:
    """A stage's results on both backbones, all due for one reason."""
    return {f"{stage} {b}": {n: [why] for n in names} for b, names in cells.items() if names}


def scores(cells: dict[str, tuple[str, ...]], metrics: tuple[str, ...], why: str) -> dict[str, Any]:
    """The results of evaluate."""
    units = {b: tuple(f"{n}/{m}" for n in names for m in metrics) for b, names in cells.items()}
    return stages("evaluate", units, why)


STUDY = {CNN: ("baseline", "no_area")}
STATES = {CNN: tuple(f"{name}-{seed}" for name in STUDY[CNN] for seed in (0, 1))}
TTAME = {CNN: ("ttame",), VIT: ("ttame",)}
ALONE = {CNN: ("rise",), VIT: ("rise",)}
OTHER = "rise (reference)"
WITH_OTHER = {backbone: (*names, OTHER) for backbone, names in CELLS.items()}


def explained(cells: dict[str, tuple[str, ...]], why: str) -> dict[str, Any]:
    """Maps and randomisation of cells."""
    alone = {b: tuple(n for n in names if n != OTHER) for b, names in cells.items()}
    return stages("explain", cells, why) | stages("randomise", alone, why)


def replace(path: str, old: str, new: str) -> Any:
    """An edit: text in a file."""

    def edit(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text, (path, old)
        (folder / path).write_text(text.replace(old, new, 1))

    return edit


def append(path: str, text: str) -> Any:
    """An edit: text at the end of a file."""

    def edit(folder: Path) -> None:
        with (folder / path).open("a") as file:
            file.write(text)

    return edit


def parameter(*place: Any) -> Any:
    """An edit: a value in params.yaml."""
    *path, key, value = place

    def edit(folder: Path) -> None:
        raw = yaml.safe_load((folder / "params.yaml").read_text())
        section = raw
        for part in path:
            section = section[part]
        section[key] = value
        (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    return edit


LINE = "\n\nA_NEW_LINE = 1\n"
CAMS = {CNN: ("gradcam", "gradcampp"), VIT: ("gradcam",)}
GRADCAM = {CNN: ("gradcam",), VIT: ("gradcam",)}
RISE = {CNN: ("rise", OTHER), VIT: ("rise", OTHER)}
LEARNED = ("benchmark/engine/training.py", "training", stages("train", TTAME, "code"))

EDITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "an explainer": (append("methods/gradcam.py", LINE), explained(GRADCAM, "code")),
    "its base": (append("methods/_cam.py", LINE), explained(CAMS, "code")),
    "a metric": (append("metrics/road.py", LINE), scores(CELLS, ("road",), "code")
        | stages("ablate", STUDY, "code")),
    "a metric the paper has not": (append("metrics/complexity.py", LINE),
        scores(CELLS, ("complexity",), "code")),
    "a solver of a metric": (append("metrics/imputation/cpu.py", LINE),
        scores(CELLS, ("road",), "code") | stages("ablate", STUDY, "code")),
    "the scoring loop": (append("benchmark/engine/scoring.py", LINE),
        scores(CELLS, METRICS, "code") | stages("ablate", STUDY, "code")),
    "the loop of explaining": (append("benchmark/engine/explaining.py", LINE),
        stages("explain", WITH_OTHER, "code") | stages("ablate", STUDY, "code")),
    "the loop of training": (append("benchmark/engine/training.py", LINE),
        stages("train", TTAME, "code") | stages("variants", STATES, "code")),
    "a comment": (append("methods/gradcam.py", "\n# This is Grad-CAM.\n"), {}),
    "a docstring": (replace("metrics/road.py", '"""ROAD:', '"""This is ROAD:'), {}),
    "a stage": (append("benchmark/evaluate.py", LINE), {}),
    "the store": (append("benchmark/core/store.py", LINE), {}),
    "the list of held-out images": (append("data/sample/recognised.csv", "evaluation,9,224,1\n"),
        {"images": {"splits": ["data"]}}),
    "a new section of the parameters": (append("benchmark/core/params.py", LINE), {}),
    "a table": (append("benchmark/report/printed.py", LINE), {}),
    "a setting of one explainer": (parameter("explainers", "rise", "settings", "masks", 33),
        explained(RISE, "parameters")),
    "a setting on one backbone": (
        parameter("backbones", CNN, "explainers", {"rise": {"settings": {"masks": 33}}}),
        explained({CNN: RISE[CNN]}, "parameters")),
    "the reference settings": (parameter("explainers", "rise", "reference", {"cells": 6}),
        stages("explain", {CNN: (OTHER,), VIT: (OTHER,)}, "parameters")),
    "a parameter of one metric": (
        parameter("evaluate", "metrics", "road", "settings", "noise", 0.02),
        scores(CELLS, ("road",), "parameters") | stages("ablate", STUDY, "parameters")),
    "more images of an explainer": (parameter("explainers", "rise", "images", 24),
        stages("explain", ALONE, "images") | scores(ALONE, METRICS, "images")),
    "more images of a metric": (parameter("evaluate", "metrics", "road", "images", 64),
        scores({b: tuple(n for n in own if n != "rise") for b, own in CELLS.items()}, ("road",),
            "images") | stages("ablate", STUDY, "parameters")),
    "a new metric": (parameter("evaluate", "metrics", "degeneracy", {}),
        scores(CELLS, ("degeneracy",), "missing")),
    "a recipe": (parameter("train", "epochs", 2), stages("train", TTAME, "parameters")),
    "the study's recipe": (parameter("ablate", "epochs", 2),
        stages("variants", STATES, "parameters") | stages("ablate", STUDY, "parameters")),
    "a checkpoint's settings": (parameter("explainers", "ttame", "settings", {"gain": 0.2}),
        stages("train", {CNN: ("ttame",)}, "parameters")
        | explained({CNN: ("ttame",)}, "parameters")
        | stages("variants", STATES, "parameters") | stages("ablate", STUDY, "parameters")),
    "the bootstrap": (parameter("tables", "resamples", 3), {}),
    "the seed": (parameter("seed", 1), {
        "images": {"splits": ["parameters"]}}
        | stages("train", TTAME, "parameters")
        | scores(CELLS, METRICS, "parameters") | stages("randomise", CELLS, "parameters")
        | stages("variants", {CNN: ("baseline-2", "no_area-2")}, "missing")
        | {f"ablate {CNN}": {n: ["parameters", "data"] for n in STUDY[CNN]}}),
    "what randomise does": (parameter("randomise", "layers", [20]),
        stages("randomise", CELLS, "parameters")),
    "a new explainer": (parameter("backbones", CNN, "skip", []),
        explained({CNN: ("mine",)}, "missing") | scores({CNN: ("mine",)}, METRICS, "missing")),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_makes_due_what_it_changes_and_nothing_else(
    recorded: Path, tmp_path: Path, what: str
) -> None:
    edit, expected = EDITS[what]
    folder = tmp_path / "copy"
    shutil.copytree(recorded, folder, symlinks=True)
    edit(folder)
    due = run(folder)
    if what == "the seed":  # seeds 0 and 1 become 1 and 2: of the second there is nothing yet
        for name in ("baseline-1", "no_area-1"):
            due[f"variants {CNN}"].pop(name, None)
    assert due == expected


@pytest.mark.parametrize("backbone", [CNN, VIT])
def test_a_parameter_of_one_backbone_is_that_backbones(
    recorded: Path, tmp_path: Path, backbone: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(recorded, folder)
    parameter("backbones", backbone, "std", [0.4, 0.4, 0.4])(folder)
    due = run(folder)
    study = {f"variants {CNN}", f"ablate {CNN}"} if backbone == CNN else set()
    own = {f"{s} {backbone}" for s in ("train", "explain", "evaluate", "randomise")}
    assert due.keys() == own | study
    reasons = {tuple(why) for found in due.values() for why in found.values()}
    assert reasons == {("parameters",)}


def test_other_weights_and_other_images(recorded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(recorded, folder)
    with (folder / "data/sample/vit_sample.safetensors").open("ab") as file:
        file.write(b"0")
    due = run(folder)
    assert due.keys() == {f"{s} {VIT}" for s in ("train", "explain", "evaluate", "randomise")}
    assert {tuple(why) for found in due.values() for why in found.values()} == {("weights",)}
    folder = tmp_path / "split"
    shutil.copytree(recorded, folder)
    append("results/splits/evaluation.csv", "another\n")(folder)
    due = run(folder)
    assert due.pop("images") == {"splits": ["damaged"]}
    each = [f"{s} {b}" for s in ("explain", "evaluate", "randomise") for b in (CNN, VIT)]
    assert due.keys() == {*each, f"ablate {CNN}"}
    assert {tuple(why) for found in due.values() for why in found.values()} == {("data",)}


def test_another_version_of_a_library(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States are not trained anew; what is computed by the library is computed anew."""
    folder = tmp_path / "copy"
    shutil.copytree(recorded, folder)
    patch = folder / "sitecustomize.py"
    patch.write_text(
        "from importlib import metadata\n"
        "real = metadata.version\n"
        "metadata.version = lambda name: '9' if name == 'scikit-image' else real(name)\n"
    )
    due = run(folder)
    assert due == stages("randomise", CELLS, "versions")
    patch.write_text(patch.read_text().replace("scikit-image", "torch"))
    due = run(folder)
    assert not [stage for stage in due if stage.startswith(("train", "variants"))]
    assert f"explain {CNN}" in due
    assert {tuple(why) for found in due.values() for why in found.values()} == {("versions",)}


@pytest.fixture(scope="module")
def others(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an explainer and a network of somebody else."""
    folder = tmp_path_factory.mktemp("others") / "copy"
    shutil.copytree(recorded, folder)
    (folder / "net.py").write_text(
        "import timm\n\n\ndef build():\n    return timm.create_model('tf_efficientnet_lite0')\n"
    )
    raw = yaml.safe_load((folder / "params.yaml").read_text())
    entry = raw["backbones"][CNN]
    for key in ("source", "model", "arguments"):
        entry.pop(key, None)
    entry |= {
        "load": "net:build",
        "weights": "none",
        "trusted": [*entry["taps"], entry["cam_layer"]],
        "skip": [],
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    assert run(folder, "record") == {}
    return folder


@pytest.mark.slow
def test_a_module_of_somebody_else(others: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(others, folder)
    append("mine.py", LINE)(folder)
    assert run(folder) == explained({CNN: ("mine",)}, "code")


@pytest.mark.slow
def test_a_network_of_somebody_else(others: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(others, folder)
    append("net.py", LINE)(folder)
    due = run(folder)
    own = {
        f"{s} {CNN}" for s in ("train", "explain", "evaluate", "randomise", "variants", "ablate")
    }
    assert due.keys() == own
    assert {tuple(why) for found in due.values() for why in found.values()} == {("code",)}
