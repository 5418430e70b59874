"""Results are reproduced if they are the commit's, up to what another processor may change."""

import numpy as np
import pandas as pd
import pytest

from benchmark.commands import verify
from benchmark.core import params
from benchmark.core.cells import Project
from benchmark.report.measures import Known, known_measures


@pytest.fixture(scope="module")
def known(settings: params.Params) -> Known:
    return known_measures(Project(settings).catalogue)


def table(values: np.ndarray, measure: str = "average_drop") -> pd.DataFrame:
    """Rows of a cell, an image each."""
    images = [f"i{i:03d}" for i in range(len(values))]
    return pd.DataFrame({"image": images, "metric": measure, "level": 50.0, "value": values})


def compare(
    old: np.ndarray, new: np.ndarray, known: Known, allowed: float | None = None
) -> verify.Compared:
    """How the only measure of two tables compares."""
    tables = table(old), table(new)
    (found,) = verify.compare_rows(*tables, ["average_drop"], "a/b", "untrained", known, allowed)
    return found


def test_equal_values_are_identical(known: Known) -> None:
    values = np.linspace(0, 100, 40)
    assert compare(values, values, known).verdict == "identical"


def test_rounding_and_two_in_forty_images_are_within(known: Known) -> None:
    values = np.linspace(0, 90, 40)
    rounded = compare(values, values + 0.05, known)
    assert (rounded.verdict, rounded.share) == ("within", 0)
    flipped = values.copy()
    flipped[:2] += 10
    found = compare(values, flipped, known)
    assert (found.verdict, found.share, found.images) == ("within", 5, 40)
    assert found.largest == pytest.approx(10)
    flipped[2] += 10
    assert compare(values, flipped, known).verdict == "outside"


def test_of_few_images_one_may_flip(known: Known) -> None:
    values = np.zeros(4)
    assert compare(values, np.array([100.0, 0, 0, 0]), known).verdict == "within"
    assert compare(values, np.array([100.0, 100.0, 0, 0]), known).verdict == "outside"


def test_an_image_that_is_missing_does_not_agree(known: Known) -> None:
    found = compare(np.zeros(4), np.zeros(2), known)
    assert (found.verdict, found.share) == ("outside", 50)


def test_what_is_trained_anew_may_differ_as_seeds_do(known: Known) -> None:
    values = np.linspace(0, 90, 40)
    assert compare(values, values + 4, known, allowed=5.0).verdict == "within"
    assert compare(values, values + 6, known, allowed=5.0).verdict == "outside"
