"""Statistics: known answers, scipy and Demsar's figures, and planted differences."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import PermutationMethod, binom, norm, wilcoxon
from statsmodels.stats.multitest import multipletests

from benchmark.core.params import Tables
from benchmark.report import statistics

SETTINGS = Tables(resamples=500, confidence=0.95)


def table(values: np.ndarray, names: list[tuple[str, float]] | None = None) -> pd.DataFrame:
    """A matrix of (images,) or (images, columns)."""
    values = values.reshape(len(values), -1)
    names = names or [("average_drop", 50.0 + i) for i in range(values.shape[1])]
    columns = pd.MultiIndex.from_tuples(names, names=["metric", "level"])
    return pd.DataFrame(values, columns=columns, index=[f"i{i:03d}" for i in range(len(values))])


def test_matrix_has_an_image_a_row_and_a_measure_a_column() -> None:
    scores = pd.DataFrame(
        [
            ("b", "road_morf", 10.0, 100.0),
            ("b", "road_morf", 90.0, 0.0),
            ("b", "gini", np.nan, 0.5),
            ("a", "gini", np.nan, 0.25),
            ("a", "road_morf", 90.0, 100.0),
            ("a", "road_morf", 10.0, 100.0),
        ],
        columns=["image", "metric", "level", "value"],
    )
    found = statistics.matrix(scores, averaged=["road_morf", "road_lerf"])
    assert list(found.index) == ["a", "b"]
    names = [(m, None if np.isnan(level) else level) for m, level in found.columns]
    assert names == [
        ("gini", None),
        ("road_morf", 10),
        ("road_morf", 90),
        ("road_morf_mean", None),
        ("road_morf_area", None),
    ]
    assert found.to_numpy().tolist() == [[0.25, 100, 100, 100, 100], [0.5, 100, 0, 50, 50]]


def test_area_is_not_the_mean_where_levels_are_uneven() -> None:
    """100 at 10 %, 40 at 20 %, 0 at 90 %: (10 * 70 + 70 * 20) / 80."""
    scores = pd.DataFrame(
        [("a", "road_morf", level, value) for level, value in ((10, 100), (20, 40), (90, 0))],
        columns=["image", "metric", "level", "value"],
    )
    found = statistics.matrix(scores, averaged=["road_morf"]).droplevel("level", axis=1)
    assert found["road_morf_mean"].item() == pytest.approx(140 / 3)
    assert found["road_morf_area"].item() == pytest.approx(26.25)


def test_interval_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(50, 10, (400, 3))
    low, high = statistics.interval(values, Tables(resamples=4000, confidence=0.95), seed=0)
    half = norm.ppf(0.975) * values.std(axis=0) / 20
    assert np.allclose(low, values.mean(axis=0) - half, atol=0.08)
    assert np.allclose(high, values.mean(axis=0) + half, atol=0.08)


def test_interval_does_not_depend_on_the_columns_beside_it() -> None:
    values = np.random.default_rng(0).random((30, 5))
    whole = statistics.interval(values, SETTINGS, seed=2)
    alone = statistics.interval(values[:, 3:4], SETTINGS, seed=2)
    assert np.allclose(whole[:, 3:4], alone, rtol=1e-12)


def test_pairs_are_differences_with_their_tests() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, (40, 2))
    cells = {"a": table(base), "b": table(base + 1), "c": table(base + rng.normal(0, 1, (40, 2)))}
    pairs = statistics.pairs(cells, SETTINGS, seed=0)
    assert len(pairs) == 3 * 2
    ab = pairs[(pairs["first"] == "a") & (pairs["second"] == "b")]
    assert np.allclose(ab[["difference", "low", "high"]], -1)
    ac = pairs[(pairs["first"] == "a") & (pairs["second"] == "c")].iloc[1]
    expected = wilcoxon(
        cells["a"].iloc[:, 1], cells["c"].iloc[:, 1], zero_method="zsplit", method="asymptotic"
    )
    assert ac["p"] == pytest.approx(expected.pvalue, rel=1e-4)
    assert (pairs["p_holm"] >= pairs["p"]).all()
    first = pairs[(pairs["level"] == 50) & (pairs["first"] == "a")]
    assert first["p_main"].to_numpy() == pytest.approx(statistics.holm(first["p"].to_numpy()))
    assert pairs.loc[pairs["first"] == "b", "p_main"].isna().all()


def fewer() -> dict[str, pd.DataFrame]:
    """Three explainers, of 30 images, 30 of which the second column has 20, and 12."""
    rng = np.random.default_rng(0)
    cells = {name: table(rng.normal(0, 1, (30, 2))) for name in "abc"}
    cells["b"].iloc[20:, 1] = np.nan
    cells["c"] = cells["c"].iloc[:12]
    return cells


def test_pairs_are_of_the_images_that_both_have() -> None:
    cells = fewer()
    found = statistics.pairs(cells, SETTINGS, seed=0).set_index(["first", "second", "level"])
    assert found["n"].to_dict() == {
        ("a", "b", 50): 30,
        ("a", "b", 51): 20,
        ("a", "c", 50): 12,
        ("a", "c", 51): 12,
        ("b", "c", 50): 12,
        ("b", "c", 51): 12,
    }
    alone = {name: cells[name].iloc[:20, 1:] for name in "ab"}
    expected = statistics.pairs(alone, SETTINGS, seed=0).iloc[0]
    columns = ["difference", "low", "high", "p"]
    assert found.loc["a", "b", 51][columns].tolist() == expected[columns].tolist()


def test_means_over_seeds_are_of_the_images_that_a_measure_has() -> None:
    cells = fewer()
    found = statistics.over_seeds({0: cells["b"], 1: cells["b"] + 1}, 0.95)
    means = cells["b"].iloc[:, 0].mean(), cells["b"].iloc[:20, 1].mean()
    assert found["value"].tolist() == pytest.approx([mean + 0.5 for mean in means])


def test_the_first_is_beside_each_other_on_the_same_images() -> None:
    cells = fewer()
    found = statistics.against_first(cells).set_index(["explainer", "level"])
    assert found["n"].to_dict() == {("b", 50): 30, ("b", 51): 20, ("c", 50): 12, ("c", 51): 12}
    pairs = statistics.pairs(cells, SETTINGS, 0).set_index(["first", "second", "level"])
    for name, level in found.index:
        row = found.loc[name, level]
        assert row["difference"] == pytest.approx(pairs.loc["a", name, level]["difference"])
        assert row["p"] == pytest.approx(pairs.loc["a", name, level]["p_main"])
    assert found.loc["c", 51]["first_value"] == cells["a"].iloc[:12, 1].mean()
    assert statistics.against_first({"a": cells["a"]}).empty


def test_means_are_of_all_images_and_marks_of_those_that_all_have() -> None:
    cells = fewer()
    assert statistics.means(cells["b"], SETTINGS, 0)["n"].tolist() == [30, 20]
    good = {"average_drop": False}
    alone = {name: own.iloc[:12] for name, own in cells.items()}
    for compare in (statistics.against_best, statistics.ranks):
        pd.testing.assert_frame_equal(compare(cells, good, 0.95), compare(alone, good, 0.95))
    assert set(statistics.ranks(cells, good, 0.95)["n"]) == {12}
    apart = {"a": cells["a"].iloc[:5], "b": cells["a"].iloc[5:]}
    with pytest.raises(ValueError, match="average_drop has no image that all explainers have"):
        statistics.ranks(apart, good, 0.95)


@pytest.mark.parametrize("images", [5, 12])
def test_few_images_are_tested_exactly(images: int) -> None:
    """Against scipy's exact distribution."""
    values = np.random.default_rng(images).normal(0.5, 1, (images, 3))
    expected = wilcoxon(np.round(values, 6), method="exact", axis=0).pvalue
    assert statistics.signed_rank(values) == pytest.approx(expected)
    all_better = statistics.signed_rank(np.arange(1.0, images + 1)[:, None])
    assert all_better == pytest.approx([2 / 2**images])


def test_ties_and_zeros_of_few_images_are_tested_exactly() -> None:
    """Against scipy's permutations."""
    rng = np.random.default_rng(0)
    tied = rng.choice([-100.0, 0.0, 100.0, 40.0], size=(7, 3), p=[0.1, 0.3, 0.4, 0.2])
    every = PermutationMethod(n_resamples=np.inf)
    expected = [wilcoxon(c, zero_method="zsplit", method=every).pvalue for c in tied.T]
    assert statistics.signed_rank(tied) == pytest.approx(expected)


def explainers(
    rng: np.random.Generator, effect: float, images: int = 40
) -> dict[str, pd.DataFrame]:
    """Two copies of one explainer up to noise, and a third that is worse by `effect` sigma."""
    base = rng.normal(50, 10, images)
    noisy = {name: base + rng.normal(0, 5, images) for name in ("one", "copy")}
    noisy["worse"] = base + rng.normal(effect * 5, 5, images)
    return {name: table(values) for name, values in noisy.items()}


def test_a_planted_difference_is_found_and_copies_are_not_told_apart() -> None:
    """Over repeated seeds, against the best: power near one, false alarms at the nominal rate."""
    good, tries = {"average_drop": False}, 400
    found = alarms = same = 0
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        marks = statistics.against_best(explainers(rng, 2.0), good, 0.95)
        separated = marks.set_index("explainer")["separated"]
        found += separated["worse"]
        alarms += separated["one"] or separated["copy"]
        equal = {name: t for name, t in explainers(rng, 0.0).items() if name != "worse"}
        same += statistics.against_best(equal, good, 0.95)["separated"].any()
    assert found > 0.99 * tries
    low, high = binom.interval(0.999, tries, 0.05)
    assert alarms <= high
    assert low <= same <= high


def test_identical_explainers_are_all_the_best() -> None:
    one = table(np.arange(12.0))
    marks = statistics.against_best({"a": one, "b": one}, {"average_drop": True}, 0.95)
    assert marks["best"].all()
    assert not marks["separated"].any()


def test_holm_by_hand() -> None:
    """Sorted p times 4, 3, 2, 1, never falling, at most 1."""
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert statistics.holm(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    many = np.random.default_rng(0).random(30) ** 4
    assert statistics.holm(many) == pytest.approx(multipletests(many, method="holm")[1])


def test_equal_cells_do_not_differ() -> None:
    values = np.random.default_rng(0).random((20, 2))
    pairs = statistics.pairs({"a": table(values), "b": table(values + 1e-9)}, SETTINGS, seed=0)
    assert pairs["p"].tolist() == [1, 1]
    assert pairs["p_holm"].tolist() == [1, 1]
    assert statistics.pairs({"a": table(values)}, SETTINGS, seed=0).empty


def test_test_has_its_nominal_rate_and_finds_an_effect() -> None:
    rng = np.random.default_rng(3)
    same = statistics.signed_rank(rng.normal(0, 1, (40, 2000)))
    assert (same < 0.05).mean() == pytest.approx(0.05, abs=0.025)  # five standard deviations
    other = statistics.signed_rank(rng.normal(0.6, 1, (40, 2000)))
    assert (other < 0.05).mean() > 0.9


def test_ranks_exactly() -> None:
    cells = {
        "a": table(np.array([1.0, 1, 1, 5])),
        "b": table(np.array([2.0, 2, 1, 4])),
        "c": table(np.array([3.0, 3, 3, 3])),
    }
    low = statistics.ranks(cells, {"average_drop": False}, 0.95)
    assert low["rank"].tolist() == pytest.approx([(1 + 1 + 1.5 + 3) / 4, 7.5 / 4, 10 / 4])
    high = statistics.ranks(cells, {"average_drop": True}, 0.95)
    assert high["rank"].tolist() == pytest.approx([9.5 / 4, 8.5 / 4, 6 / 4])
    assert statistics.ranks({"a": cells["a"]}, {"average_drop": False}, 0.95).empty
    two = statistics.ranks({k: cells[k] for k in "ab"}, {"average_drop": False}, 0.95)
    assert two["p"].isna().all()


def test_means_over_levels_are_ranked_in_their_measures_direction() -> None:
    names = [("road_lerf_mean", np.nan)]
    cells = {n: table(np.full(3, v), names) for n, v in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    found = statistics.ranks(cells, {"road_lerf_mean": True}, 0.95)
    assert found["rank"].tolist() == [3, 2, 1]


def test_critical_difference_is_demsars() -> None:
    """Table 5 of Demsar 2006: q is 2.343 for 3 and 3.102 for 9 classifiers at 0.05."""
    for explainers, q in ((2, 1.960), (3, 2.343), (9, 3.102)):
        expected = q * np.sqrt(explainers * (explainers + 1) / (6 * 64))
        found = statistics.critical_difference(explainers, 64, 0.95)
        assert found == pytest.approx(expected, rel=1e-3)


def test_mean_ranks_of_equals_seldom_differ_by_the_critical_difference() -> None:
    rng, beyond = np.random.default_rng(0), 0
    for _ in range(200):
        cells = {name: table(rng.normal(0, 1, 40)) for name in "abcd"}
        found = statistics.ranks(cells, {"average_drop": False}, 0.95)
        beyond += np.ptp(found["rank"]) > found["critical_difference"].iloc[0]
    assert beyond / 200 <= 0.05 + 5 * np.sqrt(0.05 * 0.95 / 200)
