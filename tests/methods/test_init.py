"""Explainers are found by name, and refused in one line."""

import sys
from pathlib import Path

import pytest

import methods
from methods import Backbone, Explainer


def test_names_are_the_files() -> None:
    folder = Path(methods.__file__).parent
    files = {p.stem for p in folder.glob("*.py") if not p.name.startswith("_")}
    assert set(methods.names()) == files
    assert {"ttame", "gradcam", "rise"} <= files


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown explainer 'gradcan'.*gradcam.*ttame"):
        methods.load("gradcan")


def test_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebody.py").write_text(
        "from methods import Explainer\n"
        "class Mine(Explainer):\n"
        "    label, paper = 'Mine', 'unpublished'\n"
        "    def __call__(self, images, targets):\n"
        "        return images.mean(dim=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cls = methods.load("somebody:Mine")
    assert issubclass(cls, Explainer)
    assert cls.label == "Mine"
    sys.modules.pop("somebody")


@pytest.mark.parametrize("path", ["nowhere:Mine", "pathlib:Nothing", "pathlib:Path"])
def test_wrong_dotted_path(path: str) -> None:
    with pytest.raises(ValueError, match=path):
        methods.load(path)


def test_unknown_setting_lists_the_known_ones(cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'mask' of explainer 'rise'.*masks"):
        methods.build(methods.load("rise"), cnn, {"mask": 3})


def test_unsupported_family(cnn: Backbone) -> None:
    class Transformers(methods.load("edges")):  # type: ignore[misc]
        families = frozenset({"transformer"})

    with pytest.raises(ValueError, match="is a cnn, expected transformer"):
        methods.build(Transformers, cnn, {})
