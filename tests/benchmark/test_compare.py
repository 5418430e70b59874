"""One's own explainer, and maps made elsewhere, among the stored results."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit, tiny_cnn

from benchmark import compare, evaluate, explain, sources, store
from benchmark.images import write_split
from benchmark.params import BackboneSpec, Cell, Params

OWN = """
import torch
from methods import Explainer

class Mine(Explainer):
    label, paper, cost = "My own", "none", "1 forward"

    def __init__(self, backbone, *, shift: float = 0.0):
        super().__init__(backbone)
        self._shift = shift

    def __call__(self, images, targets):
        self.backbone(images)
        return (images.mean(dim=1) + self._shift).clamp(0, 1)
"""


@pytest.fixture
def stored(
    settings: Params, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """Results of three explainers on the tiny CNN, 40 images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compare.backbones, "build", lambda *_: tiny_cnn())
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "mine.py").write_text(OWN)
    cnn = tiny_cnn()
    spec = BackboneSpec(
        source="timm", model="x", weights="none", size=cnn.size, mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5), taps=cnn.taps, cam_layer=cnn.cam_layer,
    )  # fmt: skip
    needs = store.split_table_path("evaluation")
    cells = {
        f"tiny_cnn-{name}": Cell(backbone="tiny_cnn", explainer=name, needs=needs)
        for name in ("gradcam", "layercam", "constant")
    }
    metrics = {"confidence": {"kept": [50]}, "road": {"removed": [20, 50]}}
    changed = {
        "backbones": {"tiny_cnn": spec},
        "cells": cells,
        "heads": {},
        "evaluate": settings.evaluate.model_copy(update={"metrics": metrics}),
        "tables": settings.tables.model_copy(update={"resamples": 200}),
    }
    params = settings.model_copy(update=changed)
    store.write_json(store.measures_path(), sources.described())
    write_split("evaluation", make_split("evaluation", 40))
    for key, cell in cells.items():
        store.write_json(store.sources_path("explainers", cell.explainer), {})
        explain.main(params, key)
        evaluate.main(params, key)
    return params


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the printed table, by the label in front."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines[2:]}


def test_an_explainer_from_outside_is_a_row_among_the_others(stored: Params) -> None:
    before = {p: p.read_bytes() for p in Path("results").rglob("*") if p.is_file()}
    compared = compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {"shift": 0.1})
    text = compare.as_text(compared, stored)
    found = rows(text)
    assert list(found) == ["**My own**", "Grad-CAM", "Layer-CAM", "Constant"]
    assert "Cost of an explanation: 1 images forward, 0 backward" in text
    assert "40 images, 95 % bootstrap intervals" in text
    assert all(path.read_bytes() == content for path, content in before.items())
    scores = store.read_scores(Path("results/compare/tiny_cnn/Mine.csv"))
    drop = scores.loc[scores["metric"] == "average_drop", "value"].mean()
    assert found["**My own**"][0].startswith(f"{drop:.1f} (")
    assert np.load("results/compare/tiny_cnn/Mine.npy").shape == (40, 32, 32)


def test_a_copy_cannot_be_told_apart(stored: Params) -> None:
    copy = Path("copy.npy")
    copy.write_bytes(store.maps_path("tiny_cnn", "gradcam").read_bytes())
    found = rows(compare.as_text(compare.compare(stored, "tiny_cnn", None, copy, {}), stored))
    assert found["**copy**"] == found["Grad-CAM"]
    assert not any(re.search("[▲▼]", cell) for cell in found["Grad-CAM"])
    paths = Path("results/compare/tiny_cnn/copy.csv"), store.scores_path("tiny_cnn", "gradcam")
    own, other = (store.read_scores(path)["value"] for path in paths)
    pd.testing.assert_series_equal(own, other)


@pytest.mark.parametrize(("shift", "mark"), [(5.0, "▲"), (-5.0, "▼")])
def test_a_planted_difference_is_marked_where_it_is(
    stored: Params, shift: float, mark: str
) -> None:
    path = store.scores_path("tiny_cnn", "gradcam")
    scores = store.read_scores(path)
    drop = scores["metric"] == "average_drop"
    store.write_csv(path, scores.assign(value=scores["value"] + shift * drop))
    copy = Path("copy.npy")
    copy.write_bytes(store.maps_path("tiny_cnn", "gradcam").read_bytes())
    text = compare.as_text(compare.compare(stored, "tiny_cnn", None, copy, {}), stored)
    first, *others = rows(text)["Grad-CAM"]
    assert first.endswith(mark)
    assert not any(re.search("[▲▼]", cell) for cell in others)


@pytest.mark.parametrize(
    ("explainer", "maps", "message"),
    [
        ("nowhere.at_all:Mine", None, "nowhere"),
        ("gradcan", None, "unknown explainer 'gradcan': expected one of"),
        (
            None,
            np.zeros((3, 4, 4), np.float32),
            r"bad.npy has shape \(3, 4, 4\): expected \(40, h, w",
        ),
        (
            None,
            np.full((40, 4, 4), 2, np.float32),
            r"bad.npy ranges from 2.0 to 2.0: expected \[0, 1",
        ),
        (None, np.full((40, 4, 4), np.nan, np.float32), "bad.npy: 40 of 40 maps hold NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    stored: Params, explainer: str | None, maps: np.ndarray | None, message: str
) -> None:
    path = None if maps is None else Path("bad.npy")
    if maps is not None:
        np.save("bad.npy", maps)
    with pytest.raises(ValueError, match=message):
        compare.compare(stored, "tiny_cnn", explainer, path, {})
    assert not Path("results/compare").exists()


def test_unknown_backbones_and_settings_are_refused(stored: Params) -> None:
    with pytest.raises(ValueError, match="unknown backbone 'tiny': expected one of tiny_cnn"):
        compare.compare(stored, "tiny", "gradcam", None, {})
    with pytest.raises(ValueError, match="shape"):
        compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {"shape": 3})
    for text in ("3", "{a: ", "[1]"):
        with pytest.raises(ValueError, match="--settings is"):
            compare.read_settings(text)
    assert compare.read_settings("{steps: 8}") == {"steps": 8}


def test_the_first_images_alone_are_not_enough(stored: Params) -> None:
    """Stored scores of other weights or images are not compared with."""
    path = store.scores_path("tiny_cnn", "constant")
    scores = store.read_scores(path)
    store.write_csv(path, scores.assign(weights="other"))
    with pytest.raises(ValueError, match="scored with weights other"):
        compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {})


def test_the_page_shows_what_was_compared(stored: Params) -> None:
    info = {"cpu": {}, "machine": "x", "device": "cpu", "cores": 2, "threads": 2, "torch": "2"}
    store.write_json(store.RUNTIME / "raw.json", {"machine_info": info})
    store.write_json(store.RUNTIME / "medians.json", {"tiny_cnn": {"gradcam": {"ratio_1": 2.0}}})
    found = [
        compare.compare(stored, "tiny_cnn", name, None, {})
        for name in ("edges", "own_package.mine:Mine")
    ]
    text = compare.write_page(found[1], stored).read_text()
    (line,) = re.findall(r"^const data = (.*);$", text, re.MULTILINE)
    shown = json.loads(line)["backbones"]["tiny_cnn"]
    assert [cell["label"] for cell in shown.values()] == [
        "My own (compared)", "Edges (compared)", "Grad-CAM", "Layer-CAM", "Constant",
    ]  # fmt: skip
    assert 'data-caption="My own among the others"' in text
    assert not store.PAGE.exists()


def test_torch_is_left_as_it_was(stored: Params) -> None:
    state = torch.get_rng_state()
    compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {})
    assert torch.equal(state, torch.get_rng_state())
