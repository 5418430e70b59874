"""Every fill of every explainer that masks, on the same images; what was explained is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import MakeSplit, tiny_cnn

import methods
from benchmark.commands import fills
from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Params
from benchmark.core.store import WORK
from benchmark.data import splits
from benchmark.engine import explaining

ROOT = Path(__file__).parents[3]
NET, IMAGES = "efficientnet_lite0", 8
MASKING = {"rise": {"masks": 4, "cells": 2}, "lime": {"samples": 8, "segments": 4}, "gradcam": {}}

RISE_FILLS = ["mean", "black", "white"]
LIME_FILLS = ["segment", "mean", "black", "white"]


@pytest.fixture
def few(settings: Params) -> Params:
    """Explainers with few passes, on one backbone."""
    known = {
        name: settings.explainers[name].model_copy(update={"settings": own})
        for name, own in MASKING.items()
    }
    spec = settings.backbones[NET].model_copy(update={"skip": (), "explainers": {}})
    update = {"explainers": known, "backbones": {NET: spec}, "ablation": {}}
    return settings.model_copy(update=update)


@pytest.fixture
def stored(
    few: Params, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """The folder of a pipeline with scores of each explainer, a drop of 99 % of every image."""
    split = make_split("evaluation", IMAGES)
    monkeypatch.setattr(methods, "build_backbone", lambda *_, **__: tiny_cnn())
    monkeypatch.setattr(splits, "read_split", lambda *_: split)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    rows = [
        {"image": image, "metric": metric, "level": float(level), "value": value, "weights": "w"}
        for image in split.ids
        for metric, value in (("average_drop", 99.0), ("increase_in_confidence", 0.0))
        for level in few.evaluate.metrics["confidence"].settings["kept"]
    ]
    for name in MASKING:
        results.write_scores(results.scores_path(NET, name), pd.DataFrame(rows), NET, name)
    return few


def test_each_fill_is_explained_once_and_the_first_is_the_stored_one(
    stored: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[tuple[str, str]] = []
    assemble = explaining.assemble

    def assembled(name: str, network: Any, own: dict[str, Any]) -> Any:
        explained.append((name, own["fill"]))
        if len(explained) == 3:
            raise KeyboardInterrupt
        return assemble(name, network, own)

    monkeypatch.setattr(explaining, "assemble", assembled)
    with pytest.raises(KeyboardInterrupt):
        fills.main(stored)
    kept = {path for path in WORK.rglob("*") if path.is_file()}
    assert kept
    fills.main(stored)
    others = [("rise", fill) for fill in RISE_FILLS[1:]]
    others += [("lime", fill) for fill in LIME_FILLS[1:]]
    assert explained == [*others[:3], *others]
    assert not list(WORK.glob("fills*"))
    table = pd.read_csv((fills.FILLS / NET).with_suffix(".csv"))
    assert table["Explainer"].tolist() == ["RISE"] * 3 + ["LIME"] * 4
    own = {"RISE": "mean", "LIME": "segment"}
    assert table["Fill"].tolist() == [
        f"{fill} (in the tables)" if fill == own[label] else fill
        for label, fill in zip(table["Explainer"], [*RISE_FILLS, *LIME_FILLS], strict=True)
    ]
    first = table["Fill"].str.endswith("(in the tables)")
    assert (table.loc[first, "AD 100 % ↓"] == 99).all()
    assert (table.loc[~first, "AD 100 % ↓"] < 99).all()


def test_a_fill_is_compared_on_the_same_images(stored: Params) -> None:
    """The mean by hand, and the mark of the paired test."""
    project = Project(stored)
    known = fills.known_measures(project.catalogue)
    drops = np.arange(10.0, 10 + IMAGES)
    columns = pd.MultiIndex.from_tuples([("average_drop", 100.0)], names=["metric", "level"])
    index = pd.Index([f"i{n}" for n in range(IMAGES)], name="image")
    tables = {
        fill: pd.DataFrame(values[:, None], index, columns)
        for fill, values in (("mean", drops), ("black", drops - 5), ("white", drops + 9))
    }
    rows = fills.compare("RISE", tables, known, stored)
    entries = [row["AD 100 % ↓"] for row in rows]
    assert [row["Fill"] for row in rows] == ["mean (in the tables)", "black", "white"]
    assert [entry.value for entry in entries] == ["13.5", "8.5", "22.5"]
    assert [entry.claim for entry in entries] == ["", "better", "worse"]


def test_explainers_without_a_fill_and_pipelines_without_the_metric(few: Params) -> None:
    project = Project(few)
    assert {cell.explainer: fills.fills_of(cell) for cell in project.cells(NET)} == {
        "rise": RISE_FILLS,
        "lime": LIME_FILLS,
        "gradcam": [],
    }
    road = {"road": few.evaluate.metrics["road"]}
    without = few.model_copy(update={"evaluate": few.evaluate.model_copy(update={"metrics": road})})
    with pytest.raises(ValueError, match=r"evaluate.metrics is road: expected confidence, by"):
        fills.main(without)
