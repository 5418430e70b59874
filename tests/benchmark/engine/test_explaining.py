"""Explaining: costs in images, going on after a kill, and bad maps refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

from benchmark import explain as stage
from benchmark.core.params import Params
from benchmark.core.store import Key, Unfinished
from benchmark.data.splits import Split
from benchmark.engine import explaining
from methods import Backbone, Explainer
from methods.gradcam import GradCAM
from methods.rise import RISE
from methods.ttame import TTAME


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def explain(
    explainer: Explainer, split: Split, size: int, key: str, *, count_nan: bool = False
) -> tuple[np.ndarray, dict[str, Any]]:
    """The maps of a split, kept under a key, and their cost."""
    work = Unfinished("explain", Key(key, ""))
    targets = explaining.choose(explainer.backbone, split, size, "predicted")[0]
    pieces = explaining.explain(
        explainer, split, targets, work, batch_size=size, count_nan=count_nan
    )
    return explaining.joined_maps(pieces), explaining.cost_of(explainer, pieces)


def test_costs_are_images_an_explanation(cnn: Backbone, make_split: MakeSplit) -> None:
    split = make_split("evaluation", 7)
    maps, cost = explain(RISE(cnn, masks=10), split, 3, "rise")
    assert maps.shape == (7, 32, 32)
    assert (cost["images_forward"], cost["images_backward"]) == (10, 0)
    _, cost = explain(GradCAM(cnn), split, 3, "gradcam")
    assert cost == {
        "label": "Grad-CAM",
        "kind": "CAM",
        "images": 7,
        "images_forward": 1,
        "images_backward": 1,
    }


def test_classes_that_training_never_saw_are_refused_or_counted(
    cnn: Backbone, make_split: MakeSplit
) -> None:
    """Which images they are is kept with the pieces, over a kill and over the batches."""
    split, explainer = make_split("evaluation", 7), TTAME(cnn)
    targets = torch.tensor([0, 1, 2, 1, 1, 0, 2])
    settings: dict[str, Any] = {"batch_size": 3, "count_nan": False}
    work = Unfinished("explain", Key("unknown", ""))
    pieces = explaining.explain(explainer, split, targets, work, count_unseen=True, **settings)
    assert explaining.unseen_images(explainer, pieces) == {"unseen": None}
    explainer.class_counts = torch.tensor([4, 0, 1, 0, 0])
    work = Unfinished("explain", Key("known", ""))
    for _ in range(2):
        pieces = explaining.explain(explainer, split, targets, work, count_unseen=True, **settings)
        assert explaining.unseen_images(explainer, pieces) == {"unseen": [1, 3, 4]}
    assert explaining.unseen_images(GradCAM(cnn), []) == {}
    work = Unfinished("explain", Key("refused", ""))
    with pytest.raises(ValueError, match=r"was of class 1, .* one of the 2 classes that it saw"):
        explaining.explain(explainer, split, targets, work, **settings)


@pytest.mark.parametrize(
    ("own", "before", "kept", "expected"),
    [
        ({}, {}, 0, {}),
        ({"unseen": None}, {"unseen": None}, 4, {"unseen": None}),
        ({"unseen": [0, 2]}, {}, 0, {"unseen": [0, 2]}),
        ({"unseen": [0, 2]}, {"unseen": [1, 3, 5]}, 4, {"unseen": [1, 3, 4, 6]}),
        ({"unseen": []}, {"unseen": [1, 5]}, 4, {"unseen": [1]}),
    ],
)
def test_unseen_images_of_a_cell_that_grows(
    own: dict[str, Any], before: dict[str, Any], kept: int, expected: dict[str, Any]
) -> None:
    assert stage.shifted(own, before, kept) == expected


def test_goes_on_after_a_kill(
    cnn: Backbone, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, explainer = make_split("evaluation", 7), GradCAM(cnn)
    whole, _ = explain(explainer, split, 2, "whole")
    calls, real = [0], explaining.explain_batch

    def batch(*args: object, **settings: object) -> object:
        if calls[0] == 2:
            raise KeyboardInterrupt
        calls[0] += 1
        return real(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(explaining, "explain_batch", batch)
    with pytest.raises(KeyboardInterrupt):
        explain(explainer, split, 2, "killed")
    calls[0] = -10
    again, cost = explain(explainer, split, 2, "killed")
    assert calls[0] == -8
    assert np.array_equal(again, whole)
    assert cost["images_forward"] == 1


@pytest.mark.parametrize(("value", "message"), [(torch.nan, "NaN"), (1.5, r"expected \[0, 1\]")])
def test_bad_maps_are_refused(
    cnn: Backbone, make_split: MakeSplit, value: float, message: str
) -> None:
    class Broken(Explainer):
        label, paper = "Broken", "none"

        def explain(self, images: Tensor, targets: Tensor) -> Tensor:
            return torch.full((len(images), 4, 4), value)

    with pytest.raises(ValueError, match=message):
        explain(Broken(cnn), make_split("evaluation", 2), 2, "")
    assert not list(Path("work").glob("*/*"))


def test_nan_maps_can_be_counted(cnn: Backbone, make_split: MakeSplit) -> None:
    class Broken(Explainer):
        label, paper = "Broken", "none"

        def explain(self, images: Tensor, targets: Tensor) -> Tensor:
            return torch.full((len(images), 4, 4), torch.nan)

    maps, _ = explain(Broken(cnn), make_split("evaluation", 2), 2, "", count_nan=True)
    assert np.isnan(maps).all()


OWN = """
from methods import Explainer

class Mine(Explainer):
    label, paper, cost = "Mine", "none", "1 forward"

    def explain(self, images, targets):
        self.backbone.network.register_forward_hook(lambda m, i, o: o.flip(1))
        return images[:, 0] * (targets + 1)[:, None, None] / 5
"""


def test_somebodys_explainer_alters_a_copy_alone(
    cnn: Backbone, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And explains the classes that the network named before."""
    (tmp_path / "altering.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    split = make_split("evaluation", 5)
    before = cnn.predict(split.images(slice(5)))
    explainer = explaining.assemble("altering:Mine", cnn, {})
    maps, _ = explain(explainer, split, 2, "own")
    expected = split.images(slice(5))[:, 0] * (before + 1)[:, None, None] / 5
    assert np.array_equal(maps, expected.numpy())
    assert torch.equal(cnn.predict(split.images(slice(5))), before)
    assert explaining.assemble("gradcam", cnn, {}).backbone is cnn
    sys.modules.pop("altering")


@pytest.mark.parametrize(("mode", "scores"), [("corrected", None), ("reference", "logits")])
def test_mode_decides_the_settings(settings: Params, mode: str, scores: str | None) -> None:
    cell = settings.cell("efficientnet_lite0", "rise")
    assert cell.settings_in(mode).get("scores") == scores
    assert cell.settings_in(mode)["masks"] == cell.settings["masks"]
