"""Explain: costs in images, going on after a kill, and bad maps refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

from benchmark import explain, store
from benchmark.params import Explain, Params
from methods import Backbone, Explainer
from methods.gradcam import GradCAM
from methods.rise import RISE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def batches(size: int, nan_maps: str = "refuse") -> Explain:
    return Explain(batch_size=size, nan_maps=nan_maps)  # type: ignore[arg-type]


def test_costs_are_images_an_explanation(cnn: Backbone, make_split: MakeSplit) -> None:
    split, work = make_split("evaluation", 7), store.Work("explain", [], [])
    maps, cost = explain.explain(RISE(cnn, masks=10), split, batches(3), work, "")
    assert maps.shape == (7, 32, 32)
    assert (cost["images_forward"], cost["images_backward"]) == (10, 0)
    _, cost = explain.explain(GradCAM(cnn), split, batches(3), store.Work("explain", [1], []), "")
    assert (cost["images_forward"], cost["images_backward"]) == (1, 1)
    assert cost["label"] == "Grad-CAM"
    assert cost["images"] == 7
    assert cost["seconds"] > 0


def test_goes_on_after_a_kill(
    cnn: Backbone, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, explainer = make_split("evaluation", 7), GradCAM(cnn)
    two, work = batches(2), store.Work("explain", ["killed"], [])
    whole, _ = explain.explain(explainer, split, two, store.Work("explain", ["whole"], []), "")
    calls, real = [0], explain.explain_batch

    def batch(*args: object, **settings: object) -> object:
        if calls[0] == 2:
            raise KeyboardInterrupt
        calls[0] += 1
        return real(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(explain, "explain_batch", batch)
    with pytest.raises(KeyboardInterrupt):
        explain.explain(explainer, split, two, work, "")
    calls[0] = -10
    again, cost = explain.explain(explainer, split, two, work, "")
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
        explain.explain(Broken(cnn), make_split("evaluation", 2), batches(2), work, "")
    assert not work.folder.exists()


def test_nan_maps_can_be_counted(cnn: Backbone, make_split: MakeSplit) -> None:
    class Broken(Explainer):
        label, paper = "Broken", "none"

        def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
            return torch.full((len(images), 4, 4), torch.nan)

    split, work = make_split("evaluation", 2), store.Work("explain", [], [])
    maps, _ = explain.explain(Broken(cnn), split, batches(2, "count"), work, "")
    assert np.isnan(maps).all()


@pytest.mark.parametrize(("mode", "scores"), [("corrected", None), ("reference", "logits")])
def test_mode_decides_the_settings(settings: Params, mode: str, scores: str | None) -> None:
    built: list[dict[str, object]] = []
    real = explain.methods.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain.methods, "build", lambda c, b, s: (built.append(s), real(c, b, s))[1])
        explain.build(settings, settings.cells["efficientnet_lite0-rise"], mode)
    assert built[0].get("scores") == scores
