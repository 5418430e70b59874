"""Every stage, end to end, on a few images: what is written, and what is written again when."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmark import (
    ablate,
    check,
    evaluate,
    explain,
    images,
    page,
    plots,
    randomise,
    runtime,
    tables,
    train,
)
from benchmark.core import params, results
from benchmark.core.cells import Project
from benchmark.core.memory import read_memory
from benchmark.core.store import Shelf
from benchmark.data.splits import read_split
from benchmark.engine import explaining, scoring
from benchmark.engine.explaining import assemble
from benchmark.report import drawing, figures
from methods import TrainableExplainer, build_backbone

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("pipeline")
"""One worker runs the pipeline, once."""

CNN, VIT = "efficientnet_lite0", "vit_sample"
SSE = {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
"""Another machine, played by this one."""

CELLS = {CNN: ("ttame", "gradcam", "rise", "edges"), VIT: ("rollout", "constant")}
STAGES = (train, explain, evaluate, randomise, ablate)
"""Those that run once a backbone."""


def small() -> dict[str, Any]:
    """The sample's parameters with few images, steps and cells."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["images"] |= {"train": 8, "validation": 4, "evaluation": 4}
    for recipe in ("train", "ablate"):
        raw[recipe] |= {"epochs": 1, "batch_size": 4}
    every = {name for names in CELLS.values() for name in names}
    raw["explainers"] = {name: own for name, own in raw["explainers"].items() if name in every}
    for backbone, names in CELLS.items():
        raw["backbones"][backbone] |= {"skip": sorted(every - set(names)), "explainers": {}}
    raw["explainers"]["rise"]["settings"]["masks"] = 4
    raw["ablate"]["seeds"] = 2
    study = raw["ablation"][CNN]
    raw["ablation"] = {CNN: {name: study[name] for name in ("baseline", "one_layer")}}
    raw["runtime"] = {"batch": 2, "rounds": 1, "seconds": 0, "warmup": 1}
    raw["evaluate"] |= {"batch_size": 4, "delta_images": 3}
    raw["explain"]["batch_size"] = 2
    raw["randomise"] = {"images": 2, "layers": [10, 100], "seed_images": 3}
    raw["evaluate"]["metrics"]["deletion_insertion"]["settings"]["steps"] = 2
    raw["evaluate"]["metrics"]["road"]["settings"]["removed"] = [10, 50, 90]
    raw["tables"] |= {"resamples": 50, "short": ["ttame", "gradcam"]}
    raw["plots"]["grid_images"] = 2
    raw["page"]["images"] = 2
    raw["code"] = str(ROOT)
    return raw


def prepare(folder: Path, raw: dict[str, Any]) -> None:
    """A folder with a pipeline of its own."""
    folder.mkdir()
    for name in ("data", "tests", "methods", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    write_params(folder, raw)


def write_params(folder: Path, raw: dict[str, Any]) -> params.Params:
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return params.load(folder / "params.yaml")


def run_all(loaded: params.Params, *, timed: bool = True) -> None:
    """Every stage in the order of the pipeline, in the present folder."""
    check.main(loaded)
    images.main(loaded)
    for stage in STAGES:
        for backbone in loaded.backbones:
            stage.main(loaded, backbone)
    for last in ([runtime] if timed else []) + [tables, plots, page]:
        last.main(loaded)


def work_in_copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a folder with a pipeline, which is the present one for a test."""
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    read_memory.cache_clear()
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_of(folder: Path) -> dict[Path, tuple[int, str]]:
    """Time of change and digest of every result."""
    found = (path for path in (folder / "results").rglob("*") if path.is_file())
    return {p.relative_to(folder): (p.stat().st_mtime_ns, digest(p)) for p in found}


@pytest.fixture(scope="module", autouse=True)
def quick_figures() -> Iterator[None]:
    """Coarse figures whose fonts are not cut to the letters used: half of all drawing."""
    style = drawing.style
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 60)
        patch.setattr(drawing, "style", lambda: style() | {"pdf.fonttype": 3})
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole pipeline ran."""
    folder = tmp_path_factory.mktemp("pipeline") / "first"
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, small())
        patch.chdir(folder)
        read_memory.cache_clear()
        run_all(params.load())
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    return work_in_copy(finished, tmp_path, monkeypatch)


def test_every_stage_writes_its_results(finished: Path) -> None:
    check_results(finished / "results")
    assert [p.name for p in (finished / "work").iterdir() if p.is_dir()] == ["page"]


def test_a_state_knows_its_classes_and_a_cell_what_it_never_saw(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    spec = Project(params.load()).spec(CNN)
    explainer = assemble("ttame", build_backbone(CNN, **spec), {}, results.state_path(CNN, "ttame"))
    assert isinstance(explainer, TrainableExplainer)
    assert explainer.class_counts is not None
    assert int(explainer.class_counts.sum()) == 8
    split = read_split(results.SPLITS, "evaluation")
    predicted = explainer.backbone.predict(split.images(slice(4)))
    expected = np.flatnonzero(explainer.unseen(predicted)).tolist()
    cost = results.read_json(results.cost_path(CNN, "ttame"))
    assert cost["unseen"] == expected
    assert "unseen" not in results.read_json(results.cost_path(CNN, "rise"))
    printed = (results.TABLES / CNN / "training.md").read_text()
    assert f"{len(expected)} of 4" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("explainers", "validation"), [(["edges"], 4), (["gradcam", "edges"], 0), (["ttame"], 4)]
)
def test_a_run_may_leave_things_out(
    explainers: list[str],
    validation: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A single explainer, none that is trained, no validation images, no study."""
    raw = small()
    raw["backbones"] = {CNN: raw["backbones"][CNN] | {"skip": []}}
    raw["explainers"] = {name: raw["explainers"][name] for name in explainers}
    raw["images"]["validation"] = validation
    raw["ablation"], raw["tables"]["short"] = {}, []
    prepare(tmp_path / "run", raw)
    monkeypatch.chdir(tmp_path / "run")
    read_memory.cache_clear()
    run_all(params.load(), timed=False)
    said = capsys.readouterr().err
    assert "check: ablation is empty: there is no ablation study" in said
    assert ("no explainer is trained" in said) == ("ttame" not in explainers)
    assert ("has one explainer" in said) == (len(explainers) == 1)
    table = pd.read_csv(results.TABLES / "comparison.csv")
    assert sorted(table["explainer"].unique()) == sorted(explainers)
    assert results.PAGE.is_file()


@pytest.mark.slow
def test_twice_the_same_bytes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    prepare(second, small())
    monkeypatch.chdir(second)
    read_memory.cache_clear()
    shutil.copytree(finished / "results" / "runtime", second / "results" / "runtime")
    run_all(params.load(), timed=False)
    first, again = files_of(finished), files_of(second)
    assert first.keys() == again.keys()
    assert [path for path in first if first[path][1] != again[path][1]] == []


def test_nothing_is_written_twice(copied: Path) -> None:
    before = files_of(copied)
    run_all(params.load())
    assert files_of(copied) == before


def test_results_are_removed_with_their_cell_and_their_figure(copied: Path) -> None:
    raw = small()
    raw["backbones"][CNN]["skip"] += ["rise"]
    del raw["ablation"][CNN]["one_layer"]
    run_all(write_params(copied, raw))
    left = [p for p in files_of(copied) if "rise" in p.name or "one_layer" in p.name]
    assert left == []
    assert not (results.PLOTS / "ablation_layers.png").exists()
    assert "rise" not in set(pd.read_csv(results.TABLES / "comparison.csv")["explainer"])


def test_a_new_metric_scores_that_metric_alone(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = small()
    gini = raw["evaluate"]["metrics"].pop("complexity")
    loaded = write_params(copied, raw)
    evaluate.main(loaded, CNN)
    scores = pd.read_csv(results.scores_path(CNN, "rise"))
    assert not {"gini", "entropy"} & set(scores["metric"])
    asked: list[list[str]] = []
    real = evaluate.score

    def score(project: Project, cell: params.Cell, kept: dict[str, int], *rest: Any) -> Any:
        asked.append([name for name, images in kept.items() if images == 0])
        return real(project, cell, kept, *rest)

    monkeypatch.setattr(evaluate, "score", score)
    raw["evaluate"]["metrics"]["complexity"] = gini
    evaluate.main(write_params(copied, raw), CNN)
    assert asked == [["complexity"]] * len(CELLS[CNN])
    again = pd.read_csv(results.scores_path(CNN, "rise"))
    order = ["image", "metric", "level"]
    old = again[again["metric"].isin(set(scores["metric"]))].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, scores, check_exact=True)
    pd.testing.assert_frame_equal(again, again.sort_values(order, kind="stable"), check_exact=True)


@pytest.mark.slow
def test_more_images_compute_the_new_ones_and_fewer_none(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either way the bytes are those of a run that had so many from the start.

    Scores of a cell with fewer maps are made anew: what they were of is no longer there.
    """
    whole, raw = files_of(copied), small()
    explained: list[int] = []
    scored: list[tuple[list[str], list[str]]] = []
    explain_batch, score = explaining.explain_batch, scoring.score

    def explain_some(explainer: Any, pixels: Any, *rest: Any, **settings: Any) -> Any:
        explained.append(len(pixels))
        return explain_batch(explainer, pixels, *rest, **settings)

    def score_some(
        views: list[scoring.View], network: Any, images: scoring.Predicted, *rest: Any, **s: Any
    ) -> Any:
        modules = [type(metric).__module__ for view in views for metric in view.suite]
        names = [module.rpartition(".")[2] for module in modules]
        scored.append((names, images.split.ids))
        return score(views, network, images, *rest, **s)

    monkeypatch.setattr(explaining, "explain_batch", explain_some)
    monkeypatch.setattr(scoring, "score", score_some)
    raw["explainers"]["rise"]["images"] = 3
    raw["evaluate"]["metrics"]["road"]["images"] = 3
    few = write_params(copied, raw)
    for stage in (explain, evaluate):
        stage.main(few, CNN)
    assert explained == [1]  # the batch that is no longer whole
    assert [ids for _, ids in scored] == [read_split(results.SPLITS, "evaluation").ids[:3]]
    maps = results.read_array(results.maps_path(CNN, "rise"))
    assert len(maps) == 3
    ids = read_split(results.SPLITS, "evaluation").ids
    table = results.read_scores(results.scores_path(CNN, "gradcam"))
    road = table["metric"].str.startswith("road")
    assert set(table[road]["image"]) == set(ids[:3])
    assert set(table[~road]["image"]) == set(ids)
    for last in (tables, plots, page):
        last.main(few)
    printed = [p for p in results.TABLES.rglob("*.md") if "nan" in p.read_text()]
    assert printed == []
    explained.clear()
    scored.clear()
    again = write_params(copied, small())
    for stage in (explain, evaluate):
        stage.main(again, CNN)
    assert explained == [2]
    assert [found for _, found in scored] == [ids[3:]] * len(CELLS[CNN])
    assert [names for names, _ in scored].count(["road"]) == len(CELLS[CNN]) - 1
    for last in (tables, plots, page):
        last.main(again)
    after = files_of(copied)
    assert [path for path in whole if whole[path][1] != after[path][1]] == []


def test_what_a_killed_run_left_is_of_its_images(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at four images, run at three, then at four: pieces of the first are not the last's."""
    raw = small()
    raw["explainers"]["rise"]["settings"]["masks"] = 5
    path, explain_batch, calls = results.maps_path(CNN, "rise"), explaining.explain_batch, [0]

    def killed(*arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return explain_batch(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(explaining, "explain_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            explain.main(write_params(copied, raw), CNN)
    raw["explainers"]["rise"]["images"] = 3
    explain.main(write_params(copied, raw), CNN)
    del raw["explainers"]["rise"]["images"]
    explain.main(write_params(copied, raw), CNN)
    continued = path.read_bytes()
    path.unlink()
    shutil.rmtree(copied / "work")
    explain.main(write_params(copied, raw), CNN)
    assert path.read_bytes() == continued


def test_only_figures_whose_data_changed_are_drawn(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = params.load()
    path = results.TABLES / "randomisation.csv"
    table = pd.read_csv(path)
    table.loc[table["backbone"] == CNN, "value"] *= 0.5
    table.to_csv(path, index=False)
    before = files_of(copied)
    plots.main(loaded)
    after = files_of(copied)
    drawn = {p.stem for p, stamp in after.items() if stamp != before[p] and p.suffix == ".png"}
    assert drawn == {f"{CNN}_randomisation"}


def test_a_damaged_result_is_made_anew(copied: Path) -> None:
    whole = files_of(copied)
    path = results.scores_path(CNN, "gradcam")
    path.write_text(path.read_text()[:-40])
    evaluate.main(params.load(), CNN)
    assert digest(path) == whole[path][1]


@pytest.mark.slow
def test_the_study_keeps_its_rows_in_a_clone_without_states(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until the training itself changes, or somebody asks."""
    shutil.rmtree(results.VARIANTS)
    loaded, path = params.load(), results.ablation_path(CNN, "baseline")
    before = digest(path)
    ablate.main(loaded, CNN)
    assert "older" not in Shelf(results.ABLATION / CNN).records["baseline"]
    raw = small()
    raw["evaluate"]["metrics"]["road"]["settings"]["noise"] = 0.02
    loaded = write_params(copied, raw)
    ablate.main(loaded, CNN)
    assert f"ablate: {CNN} keeps the rows of baseline, one_layer" in capsys.readouterr().out
    assert Shelf(results.ABLATION / CNN).records["baseline"]["older"] == ["parameters"]
    assert digest(path) == before
    evaluate.main(loaded, CNN)
    evaluate.main(loaded, VIT)
    tables.main(loaded)
    label = loaded.ablation[CNN]["baseline"].label
    assert f"{label} †" in (results.TABLES / CNN / "ablation.md").read_text()
    ablate.main(loaded, CNN, anew=True)
    assert "older" not in Shelf(results.ABLATION / CNN).records["baseline"]
    assert digest(path) != before
    assert results.variant_path(CNN, "baseline", 0).is_file()


def test_a_clone_times_what_is_new_and_nothing_else(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[str, ...]] = []

    def measure(*tests: str) -> dict[str, Any]:
        timed.append(tests)
        raw: dict[str, Any] = json.loads((copied / "results/runtime/raw.json").read_text())
        raw["machine_info"]["threads"] = 64  # another machine
        entry = next(e for e in raw["benchmarks"] if e["extra_info"]["explainer"] == "gradcam")
        entry["extra_info"] |= {"explainer": "saliency", "ratio": 3.0}
        return raw | {"benchmarks": [entry]}

    monkeypatch.setattr(runtime.timings, "measure", measure)
    runtime.main(params.load())
    assert timed == []
    raw = small()
    raw["explainers"]["saliency"] = {}
    raw["backbones"][VIT]["skip"] += ["saliency"]
    loaded = write_params(copied, raw)
    runtime.main(loaded)
    name = f"test_runtime.py::test_explainer[{CNN}-saliency"
    assert timed == [(f"{name}-1]", f"{name}-2]")]
    medians = json.loads((results.RUNTIME / "medians.json").read_text())[CNN]
    assert "seconds_2" in medians["gradcam"]
    assert not [key for key in medians["saliency"] if key.startswith(("seconds", "peak"))]
    assert 3.0 in medians["saliency"].values()
    runtime.main(loaded)
    assert len(timed) == 1


def test_what_was_timed_with_other_settings_is_shown_nowhere(copied: Path) -> None:
    loaded = params.load()
    assert Project(loaded).outdated_timings() == []
    assert {"rise", "gradcam"} < set(figures.read_medians(Project(loaded), CNN))
    raw = small()
    raw["explainers"]["rise"]["settings"]["masks"] = 5
    changed = Project(write_params(copied, raw))
    assert changed.outdated_timings() == [(CNN, "rise")]
    shown = set(figures.read_medians(changed, CNN))
    assert "rise" not in shown
    assert "gradcam" in shown


def test_what_a_randomised_network_explains_has_mode_and_seed_in_its_key() -> None:
    """Both were missing once."""
    raw = small()
    keys = set()
    for change in ({}, {"seed": 1}, {"mode": "reference"}):
        project = Project(params.Params.model_validate(raw | change))
        keys.add(project.randomised(project.params.cell(CNN, "rise")).key.parameters)
    assert len(keys) == 3


def test_a_checkpoint_is_taken_instead_of_training(copied: Path) -> None:
    """And taken again when the explainer's settings change."""
    loaded = params.load()
    given = copied / "given.safetensors"
    shutil.copy(results.state_path(CNN, "ttame"), given)
    raw = small()
    raw["explainers"]["ttame"] = {"checkpoint": str(given)}
    loaded = write_params(copied, raw)
    train.main(loaded, CNN)
    curve = pd.read_csv(results.curve_path(CNN, "ttame"))
    assert list(curve["step"]) == [0]
    assert curve["validation_ad"].between(0, 100).all()
    shelf, project = Shelf(results.STATES / CNN), Project(loaded)
    assert shelf.due([project.state(loaded.cell(CNN, "ttame"))]) == {}
    raw["explainers"]["ttame"]["settings"] = {"smoothness": 0.02}
    project = Project(write_params(copied, raw))
    due = shelf.due([project.state(project.params.cell(CNN, "ttame"))])
    assert due == {"ttame": ["parameters"]}


@pytest.mark.slow
def test_the_other_mode(copied: Path) -> None:
    """One parameter switches; the difference of the two modes is the same from either side."""
    path = results.delta_path(CNN, "edges")
    before = pd.read_csv(path)
    loaded = write_params(copied, small() | {"mode": "reference"})
    explain.main(loaded, CNN)
    evaluate.main(loaded, CNN)
    after = pd.read_csv(path)
    assert set(after["metric"]) >= {"average_drop", "road_morf"}
    pd.testing.assert_frame_equal(before, after, check_exact=False, atol=1e-3, rtol=1e-4)
    scores = pd.read_csv(results.scores_path(CNN, "edges"))
    some = scores["image"].isin(read_split(results.SPLITS, "evaluation").ids[:3])
    means = scores[some].groupby(["metric", "level"])["value"].mean()
    rounding = 5e-3  # of values of four digits
    assert means.to_numpy() == pytest.approx(after["reference"].to_numpy(), abs=rounding)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_scores(copied: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    raw = small()
    raw["evaluate"]["metrics"] = {"confidence": {"settings": {"kept": [50]}}}
    raw["backbones"][CNN]["skip"] = ["constant", "gradcam", "rise", "rollout", "ttame"]
    tables = []
    for compiled in (False, True):
        raw["evaluate"]["compile"] = compiled
        evaluate.main(write_params(copied, raw), CNN)
        tables.append(pd.read_csv(results.scores_path(CNN, "edges")))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-3)


def test_nan_maps_stop_evaluation(copied: Path) -> None:
    path = results.maps_path(CNN, "edges")
    results.write_array(path, np.full((4, 8, 8), np.nan, "float32"))
    before = digest(results.scores_path(CNN, "edges"))
    with pytest.raises(ValueError, match="4 of 4 maps hold NaN"):
        evaluate.main(params.load(), CNN)
    assert digest(results.scores_path(CNN, "edges")) == before


def check_results(folder: Path) -> None:
    scores = pd.read_csv(folder / "scores" / "efficientnet_lite0" / "gradcam.csv")
    assert len(scores) == 4 * (3 * 3 + 5 * 3 + 2 + 4 + 2 + 3)
    comparison = pd.read_csv(folder / "tables" / "comparison.csv")
    assert len(comparison) == 6 * (35 + 2 * 5 + 2)
    found = comparison.groupby("backbone")["explainer"].unique()
    assert {backbone: set(own) for backbone, own in found.items()} == {
        backbone: set(own) for backbone, own in CELLS.items()
    }
    similarity = pd.read_csv(folder / "tables" / "randomisation.csv")
    assert len(similarity) == 6 * 2 * 2
    unchanged = similarity.groupby("explainer")["unchanged"].all()
    assert unchanged.to_dict() == {
        "ttame": False,
        "gradcam": False,
        "rise": False,
        "edges": True,
        "rollout": unchanged["rollout"],
        "constant": True,
    }
    gradcam = comparison[comparison["explainer"] == "gradcam"].set_index("metric")
    assert gradcam.loc["images_forward", "value"] == 1
    ad = scores[(scores["metric"] == "average_drop") & (scores["level"] == 50)]["value"].mean()
    drop = gradcam.loc["average_drop"].set_index("level")["value"]
    assert drop[50] == pytest.approx(ad, rel=1e-5)
    ablation = pd.read_csv(folder / "tables" / "ablation.csv")
    assert set(ablation["explainer"]) == {"baseline", "one_layer"}
    assert set(ablation["n"]) == {2}
    seeds = pd.read_csv(folder / "tables" / "ablation_seeds.csv")
    assert not seeds[seeds["seed"] == 0]["value"].equals(seeds[seeds["seed"] == 1]["value"])
    medians = json.loads((folder / "runtime" / "medians.json").read_text())["efficientnet_lite0"]
    assert set(medians) == {*CELLS["efficientnet_lite0"], "forward"}
    assert medians["gradcam"]["seconds_2"] > 0
    assert "node" not in json.loads((folder / "runtime" / "raw.json").read_text())["machine_info"]
    assert (folder / "index.html").stat().st_size < 2_000_000
    pictures = sorted((folder / "plots").glob("*.png"))
    assert len(pictures) == 2 * 9 + 1 + 1
    for picture in pictures:
        with Image.open(picture) as image:
            assert len(image.convert("L").getcolors()) > 20
        assert picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert "Network: " in picture.with_suffix(".md").read_text()


@pytest.mark.slow
def test_a_change_of_the_training_alone_trains_the_study_anew(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = small()
    raw["ablation"][CNN]["one_layer"]["recipe"] = {"max_lr": 0.01}
    before = files_of(copied)
    ablate.main(write_params(copied, raw), CNN)
    after = files_of(copied)
    changed = {path.name for path in after if after[path][1] != before[path][1]}
    assert changed == {
        "keys.json",
        "one_layer.csv",
        "one_layer-0.safetensors",
        "one_layer-1.safetensors",
    }


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=b", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def verify(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The command as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "benchmark", "verify", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_another_machine_reproduces_and_a_changed_result_does_not(copied: Path) -> None:
    raw = small()
    raw["backbones"] = {CNN: raw["backbones"][CNN] | {"skip": ["constant", "edges", "rollout"]}}
    raw["ablation"] = {}
    write_params(copied, raw)
    shutil.rmtree(results.MAPS)
    (copied / ".gitignore").write_text("work/\nresults/maps/\nresults/splits/*.safetensors\n")
    git(copied, "init", "-q")
    git(copied, "add", "-A")
    git(copied, "commit", "-qm", "results")
    done = verify(copied)
    assert done.returncode == 0, done.stderr
    assert "verify: reproduced" in done.stdout
    removed = [line for line in done.stdout.splitlines() if line.endswith(": removed")]
    assert f"{results.SCORES / CNN} edges/confidence: removed" in removed
    last = f"0 outside, {len(removed)} not compared; 0 lines of 0 files in git changed"
    assert f"0 within tolerance, {last}" in done.stdout
    done = verify(copied, "--from-scratch", **SSE)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert "verify: reproduced" in last
    assert " 0 within" not in last  # else it was no other machine
    (elsewhere,) = (copied / "work").glob("verify-*")
    done = verify(copied, str(elsewhere))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(last.partition(";")[0])
    path = results.scores_path(CNN, "gradcam")
    scores = pd.read_csv(path)
    drop = scores["metric"] == "average_drop"
    results.write_csv(path, scores.assign(value=scores["value"].where(~drop, 50.0)))
    done = verify(copied)
    assert done.returncode == 1
    assert f"outside: {CNN}/gradcam average_drop at 100 %" in done.stdout
    assert "NOT reproduced" in done.stdout
    assert verify(copied, "--brief").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["runner_up", "label", 7])
def test_another_class_than_the_predicted_one(
    target: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tables, figures and the page are of it; ROAD, which asks for the prediction, is none."""
    raw = small() | {"target": target, "ablation": {}}
    raw["backbones"] = {CNN: raw["backbones"][CNN] | {"skip": []}}
    raw["explainers"] = {name: raw["explainers"][name] for name in ("gradcam", "edges")}
    raw["tables"]["short"] = []
    folder = tmp_path / "run"
    prepare(folder, raw)
    monkeypatch.chdir(folder)
    read_memory.cache_clear()
    loaded = params.load()
    run_all(loaded)
    split = read_split(results.SPLITS, "evaluation")
    network = build_backbone(CNN, **loaded.backbones[CNN].spec)
    expected = network.targets(split.images(slice(4)), target, split.labels)
    targets = pd.read_csv(results.targets_path(CNN))
    assert targets["class_index"].tolist() == expected.tolist()
    scores = results.read_scores(results.scores_path(CNN, "gradcam"))
    assert "comprehensiveness" in set(scores["metric"])
    assert not set(scores["metric"]) & {"road_morf", "road_lerf"}
    assert "ROAD" not in (results.TABLES / CNN / "comparison.md").read_text()
    assert not (results.PLOTS / f"{CNN}_road.png").exists()
    page_text = results.PAGE.read_text()
    assert "ROAD MoRF" not in page_text
    assert '"removed": []' in page_text
    said = (results.TABLES / CNN / "explained.md").read_text()
    assert said.endswith("ROAD asks for the predicted class and is left out.\n")
