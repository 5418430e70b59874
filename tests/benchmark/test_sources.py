"""What each stage and explainer is made of, on this repository and on a small one."""

import json
from pathlib import Path

import pytest

from benchmark import params, sources, store

ROOT = Path(__file__).parents[2]


def names(path: Path) -> set[str]:
    return {str(file.relative_to(ROOT)) for file in sources.closure(path)}


def test_what_this_repository_is_made_of() -> None:
    explain = names(ROOT / "benchmark" / "explain.py")
    assert explain >= {"benchmark/explain.py", "benchmark/store.py", "methods/_base.py"}
    assert "metrics/road.py" not in explain
    assert names(ROOT / "benchmark" / "evaluate.py") >= explain | {"metrics/road.py"}
    training = names(ROOT / "benchmark" / "train.py")
    assert {f for f in training if f.startswith("metrics/")} == {
        f"metrics/{name}.py" for name in ("__init__", "_base", "_maps", "confidence")
    }
    gradcam = names(ROOT / "methods" / "gradcam.py")
    assert gradcam == {f"methods/{name}.py" for name in ("__init__", "_base", "_cam", "gradcam")}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which `benchmark.train` imports `helper`, and nobody imports `other`."""
    files = {
        "benchmark/__init__.py": '"""Nothing to run."""',
        "benchmark/train.py": "from benchmark import helper\n",
        "benchmark/helper.py": "from methods._base import Explainer\n",
        "benchmark/other.py": "",
        "methods/__init__.py": "__all__: list[str] = []",
        "methods/_base.py": "class Explainer: ...\n",
        "methods/mine.py": "import methods._base\n",
        "metrics/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "STAGES", ("train",))
    return tmp_path


def listed(folder: Path, settings: params.Params, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written for the stage and the explainer."""
    monkeypatch.chdir(folder)
    sources.closure.cache_clear()
    sources.imported.cache_clear()
    sources.main(settings)
    paths = [store.sources_path("stages", "train"), store.sources_path("explainers", "mine")]
    return [path.read_text() for path in paths]


def only(settings: params.Params, **cell: str) -> params.Params:
    """The sample's parameters with a single cell."""
    entry = params.Cell(backbone="vit_sample", explainer="mine", needs=Path("x"), **cell)
    return settings.model_copy(
        update={"cells": {"vit_sample-mine": entry}, "heads": {}, "ablation": {}}
    )


def test_lists_change_with_what_they_list_and_nothing_else(
    small: Path, settings: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = only(settings)
    stage, mine = listed(small, one, monkeypatch)
    expected = {"benchmark/helper.py", "benchmark/train.py"}
    assert set(json.loads(stage)) == expected | {"methods/__init__.py", "methods/_base.py"}
    assert list(json.loads(mine)) == ["methods/__init__.py", "methods/_base.py", "methods/mine.py"]
    (small / "benchmark" / "other.py").write_text("x = 1\n")
    (small / "benchmark" / "__init__.py").write_text('"""Another text."""')
    assert listed(small, one, monkeypatch) == [stage, mine]
    (small / "methods" / "mine.py").write_text("import methods._base  # changed\n")
    assert listed(small, one, monkeypatch)[0] == stage
    assert listed(small, one, monkeypatch)[1] != mine
    (small / "methods" / "_base.py").write_text("class Explainer: x = 1\n")
    assert listed(small, one, monkeypatch)[0] != stage


def test_an_explainer_of_another_package(
    small: Path,
    settings: params.Params,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "foreign.py").write_text("from methods import Explainer\n")
    monkeypatch.syspath_prepend(elsewhere)
    _, mine = listed(small, only(settings, load="foreign:Mine"), monkeypatch)
    assert list(json.loads(mine)) == ["foreign.py", "methods/__init__.py"]


@pytest.mark.parametrize("load", [{}, {"load": "nowhere.at_all:Mine"}])
def test_a_missing_explainer_is_named(
    small: Path, settings: params.Params, monkeypatch: pytest.MonkeyPatch, load: dict[str, str]
) -> None:
    (small / "methods" / "mine.py").unlink()
    with pytest.raises(ValueError, match=r"explainer 'mine' has no file .*expected methods/mine"):
        listed(small, only(settings, **load), monkeypatch)
