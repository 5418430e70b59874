"""The matrix of cells says what is fresh, stale and why, missing, and not supported."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_pipeline import CNN, VIT, small, work_in_copy, write_params

from benchmark import check, images
from benchmark.commands import status
from benchmark.core import params, results
from benchmark.core.cells import Project
from benchmark.core.memory import read_memory
from benchmark.core.store import Result, Shelf

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.xdist_group("status")
"""One worker makes the folder, once."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of which the images and some made-up maps and scores are there."""
    folder = tmp_path_factory.mktemp("status") / "made"
    folder.mkdir()
    (folder / "data").symlink_to(ROOT / "data")
    raw = small()
    raw["images"] |= {"train": 1, "validation": 1, "evaluation": 1}
    for recipe in ("train", "ablate"):
        raw[recipe]["batch_size"] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        read_memory.cache_clear()
        loaded = write_params(folder, raw)
        check.main(loaded)
        images.main(loaded)
        project = Project(loaded)
        for cell in project.cells(CNN):
            record(results.MAPS, cell.name, [project.maps(cell)])
            scores = [project.scores(cell, metric) for metric in project.scored_metrics()]
            record(results.SCORES, cell.name, scores)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    return work_in_copy(made, tmp_path, monkeypatch)


def record(folder: Path, text: str, made: list[Result]) -> None:
    """Write made-up files of results of the CNN, and their keys."""
    for file in made[0].files:
        results.write_text(file, text)
    Shelf(folder / CNN).record(made)


def row(text: str, name: str) -> list[str]:
    """The cells of a row of the first printed table that has it."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_fresh_stale_missing_and_not_supported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load((folder / "params.yaml").read_text())
    raw["explainers"]["gradcam"]["settings"] = {"layer": "blocks.6"}
    raw["evaluate"]["metrics"]["road"]["settings"]["noise"] = 0.02
    raw["backbones"][CNN]["skip"].remove("constant")
    loaded = write_params(folder, raw)
    status.main(loaded)
    text = capsys.readouterr().out
    head = row(text, "explainer")
    assert head == ["explainer", "state", "maps", "scores", "randomisation", "timing"]
    road = "stale (parameters): 1 of 6"
    assert row(text, "edges") == ["edges", "", "fresh", road, "missing", "missing"]
    assert row(text, "gradcam")[2] == "stale (parameters)"
    assert row(text, "constant")[1:] == ["", *["missing"] * 4]
    assert row(text, "ttame")[1] == "missing"
    assert row(text, "rollout")[1:] == ["not supported"] * 5
    assert row(text, "baseline") == ["baseline", "missing", "missing"]
    assert row(text[text.index(VIT) :], "gradcam")[1:] == ["skipped"] * 5
    assert "images fresh, tables missing" in text


def test_a_check_of_what_is_in_git(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Maps are not; what was computed from them is as it was."""
    loaded = write_params(folder, yaml.safe_load((folder / "params.yaml").read_text()))
    shutil.rmtree(results.MAPS)
    with pytest.raises(SystemExit, match=r"results are not fresh, the first: .* missing"):
        status.main(loaded, check=True)
    text = capsys.readouterr().out
    assert row(text, "edges")[2:4] == ["missing", "fresh"]


def test_what_the_check_says_is_there_without_it(folder: Path) -> None:
    """Refusals, what is left out, and networks whose explainers are to be built anew."""
    raw = small()
    assert status.told_by_check(Project(write_params(folder, raw))) == []
    raw["images"]["validation"] = 0
    raw["ablation"] = {}
    raw["tables"]["short"] = []
    raw["explainers"] = {"ttame": raw["explainers"]["ttame"]}
    raw["backbones"] = {CNN: raw["backbones"][CNN] | {"skip": []}}
    refused, *others = status.told_by_check(Project(write_params(folder, raw)))
    assert refused.startswith(f"refused: images.validation is 0 and {CNN}/ttame is trained")
    assert others == [
        "ablation is empty: there is no ablation study",
        f"{CNN} has one explainer: it is compared with none, and there are no ranks",
        f"{CNN}: `dvc repro` builds its explainers first, parameters or code have changed",
    ]


def scores_of(folder: Path, project: Project, name: str, values: list[float]) -> None:
    """Write made-up scores of a cell of the CNN, and their keys."""
    rows = [
        (CNN, name, f"evaluation-{i}", metric, level, value, "x")
        for i, value in enumerate(values)
        for metric, level in (("average_drop", 50), ("road_morf", 20), ("road_morf", 40))
    ]
    path = results.scores_path(CNN, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=results.SCORE_COLUMNS).to_csv(path, index=False)
    made = [project.scores(project.params.cell(CNN, name), m) for m in project.scored_metrics()]
    Shelf(results.SCORES / CNN).record(made)


def test_what_is_scored_is_compared_while_the_rest_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = params.load()
    project = Project(loaded)
    shutil.rmtree(results.SCORES)
    scores_of(folder, project, "gradcam", [10.0, 40.0])
    status.main(loaded)
    text = capsys.readouterr().out
    assert f"{CNN}, 1 of " in text
    assert f"{VIT}: nothing is scored yet" in text
    line = next(own for own in text.splitlines() if own.startswith("| Grad-CAM "))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "Grad-CAM",
        "2",
        "25.0",
        "25.0",
    ]
    heading = next(
        own for own in text.splitlines() if own.startswith("| explainer") and "images" in own
    )
    assert "AD 50 %" in heading
    assert "ROAD MoRF mean" in heading


def test_nothing_is_compared_once_all_is_scored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status.main(params.load())
    assert f"{CNN}, " not in capsys.readouterr().out
