"""Every fill of every explainer that masks, on the same images; what was explained is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import MakeSplit, tiny_cnn, tiny_spec
from stand_in import write_split

import methods
from benchmark import evaluate, explain
from benchmark.commands import fills
from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Explainer, Params, Scored
from benchmark.core.store import WORK
from benchmark.data.splits import read_split
from benchmark.engine import explaining, scoring

IMAGES, FEWER = 6, 4
FILLS = {"RISE": ["black", "mean", "white"], "LIME": ["segment", "mean", "black", "white"]}
"""By label, that of the parameters first."""


@pytest.fixture
def stored(
    settings: Params, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """Scores of three explainers on the tiny CNN twice, under two names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "build_backbone", lambda *_, **__: tiny_cnn())
    spec = tiny_spec()
    explainers = {
        "rise": Explainer(settings={"masks": 4, "cells": 2, "fill": "black"}),
        "gradcam": Explainer(),
        "lime": Explainer(settings={"samples": 8, "segments": 4}, images=FEWER),
    }
    metrics = {"confidence": Scored(settings={"kept": [50]})}
    changed = {
        "images": settings.images.model_copy(update={"evaluation": IMAGES}),
        "backbones": {"one": spec, "two": spec},
        "explainers": explainers,
        "ablation": {},
        "evaluate": settings.evaluate.model_copy(update={"metrics": metrics}),
    }
    params = settings.model_copy(update=changed)
    split = make_split("evaluation", IMAGES)
    write_split("evaluation", split)
    for backbone in params.backbones:
        explain.main(params, backbone)
        evaluate.main(params, backbone)
    return params


def test_each_other_fill_is_explained_once_although_stopped(
    stored: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[tuple[str, int]] = []
    explain_batch = explaining.explain_batch

    def explain_some(explainer: Any, pixels: Any, *rest: Any, **settings: Any) -> Any:
        if len(explained) == 7:  # in the second backbone
            explained.append(("stop", 0))
            raise KeyboardInterrupt
        explained.append((explainer.label, len(pixels)))
        return explain_batch(explainer, pixels, *rest, **settings)

    monkeypatch.setattr(explaining, "explain_batch", explain_some)
    with pytest.raises(KeyboardInterrupt):
        fills.main(stored)
    fills.main(stored)
    assert not list(WORK.glob("fills*"))
    each = [("RISE", IMAGES)] * 2 + [("LIME", FEWER)] * 3
    assert explained == [*each, *each[:2], ("stop", 0), *each[2:]]
    for backbone in stored.backbones:
        table = pd.read_csv((fills.FILLS / backbone).with_suffix(".csv"))
        names = [(label, fill) for label, own in FILLS.items() for fill in own]
        printed = table["Fill"].str.removesuffix(" (in the tables)")
        assert [*zip(table["Explainer"], printed, strict=True)] == names
        assert (table["Fill"] != printed).tolist() == [n in [("RISE", "black"), ("LIME", "segment")]
                                                       for n in names]  # fmt: skip
        assert table["n"].tolist() == [IMAGES] * 3 + [FEWER] * 4


def test_scores_are_those_that_the_stages_give(stored: Params) -> None:
    """Those of another fill are the stored ones once the parameters say so, to the last digit."""
    network = tiny_cnn()
    images = scoring.predict(network, read_split(results.SPLITS, "evaluation"), 4)
    before = fills.score(Project(stored), stored.cell("one", "rise"), network, images, [])
    own = stored.explainers["rise"]
    white = own.model_copy(update={"settings": own.settings | {"fill": "white"}})
    params = stored.model_copy(update={"explainers": stored.explainers | {"rise": white}})
    with pytest.raises(ValueError, match=r"maps of one/rise are due \(parameters\): expected"):
        fills.main(params)
    explain.main(params, "one")
    evaluate.main(params, "one")
    after = fills.score(Project(params), params.cell("one", "rise"), network, images, [])
    assert [*before] == ["black", "mean", "white"]
    assert [*after] == ["white", "mean", "black"]
    for fill in before:
        pd.testing.assert_frame_equal(
            before[fill].reset_index(drop=True), after[fill].reset_index(drop=True),
            check_exact=True,
        )  # fmt: skip
    assert not before["white"]["value"].equals(before["black"]["value"])


def test_a_fill_is_compared_on_the_same_images(settings: Params) -> None:
    """The mean by hand, and the mark of the paired test."""
    known = fills.known_measures(Project(settings).catalogue)
    drops = np.arange(10.0, 18)
    scores = {
        fill: pd.DataFrame(
            {
                "image": [f"i{n}" for n in range(8)],
                "metric": "average_drop",
                "level": 100.0,
                "value": values,
            }
        )
        for fill, values in (("mean", drops), ("black", drops - 5), ("white", drops + 9))
    }
    rows = fills.compare("RISE", scores, known, settings)
    entries = [row["AD 100 % ↓"] for row in rows]
    assert [row["Fill"] for row in rows] == ["mean (in the tables)", "black", "white"]
    assert [row["n"] for row in rows] == ["8"] * 3
    assert [entry.value for entry in entries] == ["13.5", "8.5", "22.5"]
    assert [entry.claim for entry in entries] == ["", "better", "worse"]


def test_which_explainers_have_fills(settings: Params) -> None:
    found = {c.explainer: fills.fills_of(c, "corrected") for c in Project(settings).all_cells()}
    assert {name: own for name, own in found.items() if own} == {
        "rise": ["mean", "black", "white"],
        "scorecam": ["mean", "black", "white"],
        "opticam": ["black", "mean", "white"],
        "occlusion": ["mean", "black", "white"],
        "lime": ["segment", "mean", "black", "white"],
        "kernel_shap": ["white", "segment", "mean", "black"],
    }


def test_a_reference_fill_is_the_first_in_that_mode(settings: Params) -> None:
    cell = settings.cell("efficientnet_lite0", "rise")
    cell = cell.model_copy(update={"reference": {"fill": "white"}})
    assert fills.fills_of(cell, "corrected")[0] == "mean"
    assert fills.fills_of(cell, "reference") == ["white", "mean", "black"]


def test_a_pipeline_without_the_metric_is_refused(settings: Params) -> None:
    road = {"road": settings.evaluate.metrics["road"]}
    evaluate = settings.evaluate.model_copy(update={"metrics": road})
    with pytest.raises(ValueError, match=r"evaluate.metrics is road: expected confidence, by"):
        fills.main(settings.model_copy(update={"evaluate": evaluate}))
