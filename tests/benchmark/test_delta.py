"""Delta: the two modes side by side."""

import numpy as np
import pandas as pd
import pytest
from conftest import MakeSplit

from benchmark import delta, evaluate
from methods import Backbone
from metrics.confidence import Confidence
from metrics.road import ROAD


def rows(values: list[float], metric: str = "average_drop") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"i{i}" for i in range(len(values))],
            "metric": metric,
            "level": 50.0,
            "value": values,
        }
    )


def test_reference_minus_corrected() -> None:
    corrected, reference = rows([10, 20, 30, 40]), rows([10, 0, 30, 80])
    for stored, scores, mode, other in (
        (corrected, reference, "corrected", "reference"),
        (reference, corrected, "reference", "corrected"),
    ):
        table = delta.difference(stored, scores, mode, other)
        (row,) = table.to_dict("records")
        assert row == {
            "metric": "average_drop",
            "level": 50,
            "corrected": 25,
            "reference": 30,
            "delta": 5,
            "changed": 50,
            "n": 4,
        }


def test_measures_of_one_mode_only_are_left_out() -> None:
    stored = pd.concat([rows([1, 2]), rows([1, 2], "gini")])
    table = delta.difference(stored, rows([1, 2]), "corrected", "reference")
    assert table["metric"].tolist() == ["average_drop"]


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"average_drop at 50.0 of image i2 has a score in one"):
        delta.difference(rows([1, 2, 3]), rows([1, 2]), "corrected", "reference")


@pytest.mark.parametrize("ties", [False, True])
def test_tied_maps_are_what_changes(cnn: Backbone, make_split: MakeSplit, ties: bool) -> None:
    split, rng = make_split("evaluation", 4), np.random.default_rng(0)
    native = np.stack([rng.permutation(1024).reshape(32, 32) for _ in range(4)]) / 1023.0
    native = native.astype(np.float32)
    if ties:
        native[native < 0.6] = 0
    suite = [Confidence([50]), ROAD([25, 75])]
    scores = {
        mode: evaluate.evaluate(suite, cnn, split, native, [1, 2, 3, 4], mode, 32, "")
        for mode in ("corrected", "reference")
    }
    table = delta.difference(scores["corrected"], scores["reference"], "corrected", "reference")
    changed = table.set_index(["metric", "level"])["changed"]
    assert (changed["comprehensiveness", 75] > 0) == ties
    assert (changed["sufficiency", 75] > 0) == ties
    assert changed["comprehensiveness", 25] == 0
    assert changed["average_drop", 50] == 0
