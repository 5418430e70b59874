"""Results are reproduced if they are the commit's, up to what another processor may change."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.commands import verify
from benchmark.core import params, results
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
    old: np.ndarray, new: np.ndarray, known: Known, spread: verify.Spread | None = None
) -> verify.Compared:
    """How the only measure of two tables compares."""
    (found,) = verify.compare_rows(table(old), table(new), "a/b", "untrained", known, spread)
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


def test_what_is_trained_anew_may_differ_by_three_deviations_over_seeds(known: Known) -> None:
    values = np.linspace(0, 90, 40)
    spread = {("average_drop", 50.0): 1.5}
    assert compare(values, values + 4, known, spread).verdict == "within"
    assert compare(values, values + 5, known, spread).verdict == "outside"
    unknown = {("gini", 0.0): 1.5}
    tables = table(values), table(values + 4)
    assert verify.compare_rows(*tables, "a/b", "trained", known, unknown) == []


def test_training_anew_asks_for_the_spread_first(
    settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seeds = [
        ("vit_sample", "baseline", seed, "average_drop", 50.0, 3.0 * seed) for seed in range(3)
    ]
    columns = ["backbone", "explainer", "seed", "metric", "level", "value"]
    results.write_csv(results.TABLES / "ablation_seeds.csv", pd.DataFrame(seeds, columns=columns))
    study = {"vit_sample": {"baseline": settings.ablation["vit_sample"]["baseline"]}}
    with pytest.raises(ValueError, match=r"how much seeds change .* is not known"):
        verify.seed_spreads(Project(settings.model_copy(update={"ablation": study})))
    recipe = settings.train.model_dump()
    spec = settings.backbones["vit_sample"]
    spec = spec.model_copy(update={"skip": ("ttame_untrained",)})
    same = settings.model_copy(
        update={
            "ablate": params.Ablate(seeds=3, scored=9, **recipe),
            "ablation": study,
            "backbones": {"vit_sample": spec},
        }
    )
    found = verify.seed_spreads(Project(same))
    spread = {("average_drop", 50.0): 3.0}
    assert found == {("vit_sample", "ttame"): spread, ("vit_sample", "tame"): spread}


def test_a_folder_of_another_machine(tmp_path: Path) -> None:
    """It is named by itself or by its results/."""
    (tmp_path / results.SCORES).mkdir(parents=True)
    assert verify.folder_of(None, anew=True) == Path()
    assert verify.folder_of(tmp_path, anew=False) == tmp_path
    assert verify.folder_of(tmp_path / "results", anew=False) == tmp_path
    with pytest.raises(ValueError, match="has no results/scores: expected the results of another"):
        verify.folder_of(tmp_path / "results" / "scores", anew=False)
    with pytest.raises(ValueError, match="beside --from-scratch or --train: expected one of them"):
        verify.folder_of(tmp_path, anew=True)


def test_results_of_other_images_are_not_compared() -> None:
    record = {"key": {"data": {"maps": "a", "evaluation": "b", "evaluation table": "c"}}}
    assert verify.images_of(record) == {"evaluation": "b", "evaluation table": "c"}
