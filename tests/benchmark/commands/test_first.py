"""Cheap explainers come first, and the stages find what they made."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_pipeline import CNN, small, work_in_copy, write_params

from benchmark import check
from benchmark.commands import first
from benchmark.core import params, results
from benchmark.core.cells import CHEAP, Project
from benchmark.core.memory import read_memory
from benchmark.core.store import Shelf

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.xdist_group("first")
"""One worker checks the clone, once."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone."""
    folder = tmp_path_factory.mktemp("first") / "clone"
    folder.mkdir()
    (folder / "data").symlink_to(ROOT / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        read_memory.cache_clear()
        check.main(write_params(folder, small()))
    return folder


@pytest.fixture
def project(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Of a copy of it to work in."""
    work_in_copy(clone, tmp_path, monkeypatch)
    return Project(params.load())


def test_cheap_is_what_takes_few_passes_and_is_not_to_be_trained(project: Project) -> None:
    def cheap() -> set[str]:
        return {cell.explainer for cell in project.cells(CNN) if project.is_cheap(cell)}

    assert CHEAP >= 2
    assert cheap() == {"gradcam", "edges"}
    results.write_text(results.state_path(CNN, "ttame"), "x")
    assert cheap() == {"gradcam", "edges", "ttame"}


def test_both_stages_run_where_something_cheap_is_due(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def note(command: str, **_: Any) -> "subprocess.CompletedProcess[str]":
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    first.main(project.params)
    launch = project.params.launch
    assert ran == [
        f"{launch} benchmark.{stage} {backbone} --cheap"
        for backbone in project.params.backbones
        for stage in first.STAGES
    ]
    for cell in project.all_cells():
        name = cell.backbone, cell.explainer
        for path in (results.maps_path, results.scores_path, results.delta_path, results.cost_path):
            results.write_text(path(*name), "x")
    for cell in project.all_cells():
        Shelf(results.MAPS / cell.backbone).record([project.maps(cell)])
        made = [project.scores(cell, metric) for metric in project.scored_metrics()]
        Shelf(results.SCORES / cell.backbone).record(made)
    ran.clear()
    first.main(project.params)
    assert ran == []


def test_a_stage_that_fails_stops_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fail(command: str, **_: Any) -> "subprocess.CompletedProcess[str]":
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SystemExit) as raised:
        first.main(project.params)
    assert raised.value.code == 3
    assert len(ran) == 1
