"""Explain: costs in images, going on after a kill, and bad maps refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

from benchmark import explain, store
from methods import Backbone, Explainer
from methods.gradcam import GradCAM
from methods.rise import RISE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_costs_are_images_an_explanation(cnn: Backbone, make_split: MakeSplit) -> None:
    split, work = make_split("evaluation", 7), store.Work("explain", [], [])
    maps, cost = explain.explain(RISE(cnn, masks=10), split, 3, work, "")
    assert maps.shape == (7, 32, 32)
    assert (cost["images_forward"], cost["images_backward"]) == (10, 0)
    _, cost = explain.explain(GradCAM(cnn), split, 3, store.Work("explain", [1], []), "")
    assert (cost["images_forward"], cost["images_backward"]) == (1, 1)
    assert cost["label"] == "Grad-CAM"
    assert cost["images"] == 7
    assert cost["seconds"] > 0


def test_goes_on_after_a_kill(
    cnn: Backbone, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, explainer = make_split("evaluation", 7), GradCAM(cnn)
    whole, _ = explain.explain(explainer, split, 2, store.Work("explain", ["whole"], []), "")
    calls, real = [0], explain.explain_batch

    def batch(*args: object) -> object:
        if calls[0] == 2:
            raise KeyboardInterrupt
        calls[0] += 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(explain, "explain_batch", batch)
    with pytest.raises(KeyboardInterrupt):
        explain.explain(explainer, split, 2, store.Work("explain", ["killed"], []), "")
    calls[0] = -10
    again, cost = explain.explain(explainer, split, 2, store.Work("explain", ["killed"], []), "")
    assert calls[0] == -8
    assert np.array_equal(again, whole)
    assert cost["images_forward"] == 1


@pytest.mark.parametrize(("value", "message"), [(torch.nan, "NaN"), (1.5, r"expected \[0, 1\]")])
def test_bad_maps_are_refused(
    cnn: Backbone, make_split: MakeSplit, value: float, message: str
) -> None:
    class Broken(Explainer):
        label, paper = "Broken", "none"

        def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
            return torch.full((len(images), 4, 4), value)

    work = store.Work("explain", [], [])
    with pytest.raises(ValueError, match=message):
        explain.explain(Broken(cnn), make_split("evaluation", 2), 2, work, "")
    assert not work.folder.exists()
