"""Evaluate: one row an image and value, the same for any batch size; bad maps refused."""

import numpy as np
import pytest
from conftest import MakeSplit

from benchmark import evaluate
from methods import Backbone
from metrics.confidence import Confidence
from metrics.road import ROAD

SUITE = [Confidence([100, 50]), ROAD([10, 90])]


def test_one_row_an_image_and_value(
    cnn: Backbone, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split("evaluation", 5)
    maps = np.random.default_rng(0).random((5, 8, 8), np.float32)
    seeds = [7, 8, 9, 10, 11]
    scores = evaluate.evaluate(SUITE, cnn, split, maps, seeds, 32, "")
    assert len(scores) == 5 * (2 * 2 + 2 * 2)
    assert not scores.duplicated(["image", "metric", "level"]).any()
    assert set(scores["weights"]) == {cnn.digest[:12]}
    monkeypatch.setattr(evaluate, "IMAGES", 2)
    other = evaluate.evaluate(SUITE, cnn, split, maps, seeds, 3, "")
    assert np.allclose(scores["value"], other["value"], atol=1e-3)
    assert list(scores["image"]) == list(other["image"])


def test_scores_are_those_of_the_metric_alone(cnn: Backbone, make_split: MakeSplit) -> None:
    split = make_split("evaluation", 3)
    maps = np.random.default_rng(1).random((3, 8, 8), np.float32)
    scores = evaluate.evaluate(SUITE, cnn, split, maps, [1, 2, 3], 32, "")
    alone = evaluate.evaluate([Confidence([50])], cnn, split, maps, [1, 2, 3], 32, "")
    both = scores[(scores["level"] == 50)]
    assert np.allclose(both["value"], alone["value"], atol=1e-4)


def bad(value: float) -> np.ndarray:
    maps = np.full((3, 4, 4), 0.5, np.float32)
    maps[1, 2, 2] = value
    return maps


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (bad(np.nan), r"maps.npy: 1 of 3 maps hold NaN or infinite values, the first is map 1"),
        (bad(np.inf), "NaN or infinite"),
        (bad(2.0), r"ranges from 0.5 to 2.0: expected \[0, 1\]"),
        (bad(0.1)[:2], r"has shape \(2, 4, 4\): expected \(3, h, w\)"),
    ],
)
def test_bad_maps_are_refused(maps: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate.refuse_bad_maps(maps, 3, "maps.npy")
