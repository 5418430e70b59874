"""Tables: exact means, known intervals, mixtures refused, valid Markdown and LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from benchmark import readme, store, tables
from benchmark.params import Tables

SETTINGS = Tables(resamples=500, confidence=0.95)
LEVELS = {
    "average_drop": (100, 50),
    "increase_in_confidence": (100, 50),
    "road_morf": (10, 90),
    "road_lerf": (10, 90),
}


def scores(explainer: str, values: np.ndarray, weights: str = "abc") -> pd.DataFrame:
    """Per-image scores, the same `values` for every measure and level."""
    rows = [
        {"image": f"i{i:03d}", "metric": metric, "level": level, "value": value}
        for i, value in enumerate(values)
        for metric, levels in LEVELS.items()
        for level in levels
    ]
    table = pd.DataFrame(rows).assign(backbone="net", explainer=explainer, weights=weights)
    return table[store.SCORE_COLUMNS]


def test_means_are_exact_and_intervals_are_the_normal_ones() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    settings = Tables(resamples=4000, confidence=0.95)
    table = tables.summarise([scores("a", values)], settings, seed=0)
    assert np.allclose(table["value"], values.mean())
    half = norm.ppf(0.975) * values.std() / 20
    assert np.allclose(table["low"], values.mean() - half, atol=0.06)
    assert np.allclose(table["high"], values.mean() + half, atol=0.06)
    assert set(table["n"]) == {400}
    assert len(table) == 4 * 2 + 2


def test_intervals_cover_the_truth_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        table = tables.summarise([scores("a", rng.normal(0, 1, 60))], SETTINGS, seed=trial)
        hits += bool(table["low"].iloc[0] <= 0 <= table["high"].iloc[0])
    assert 0.88 <= hits / 200 <= 0.99


def test_mean_of_road_is_over_its_levels() -> None:
    one = scores("a", np.zeros(4))
    one.loc[(one["metric"] == "road_morf") & (one["level"] == 10), "value"] = 100
    table = tables.summarise([one], SETTINGS, seed=0).set_index("metric")
    assert table.loc["road_morf_mean", "value"] == 50
    assert table.loc["road_lerf_mean", "value"] == 0


def test_same_seed_same_interval() -> None:
    one = scores("a", np.random.default_rng(0).random(30))
    first, again = (tables.summarise([one], SETTINGS, seed=3) for _ in range(2))
    assert first.equals(again)


def test_mixtures_are_refused() -> None:
    a, b = scores("a", np.ones(3)), scores("b", np.ones(3), weights="xyz")
    with pytest.raises(ValueError, match="b on net was scored with weights xyz, a with abc"):
        tables.summarise([a, b], SETTINGS, seed=0)
    with pytest.raises(ValueError, match="b on net has scores of 2 images, a of 3"):
        tables.summarise([a, scores("b", np.ones(2))], SETTINGS, seed=0)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = tables.summarise(
        [scores("low_one", np.ones(5)), scores("high", np.full(5, 9.0))], SETTINGS, 0
    )
    tables.write_long("comparison", table)
    tables.write_printed("comparison", table, tables.PROTOCOL, lambda name: name.replace("_", " "))
    return tmp_path / store.TABLES


def test_best_is_bold_in_the_good_direction(written: Path) -> None:
    header, _, low, high = (written / "comparison.md").read_text().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in (header, low, high)]
    for heading, first, second in list(zip(*cells, strict=True))[2:]:
        assert first.startswith("**1.0**") == ("↓" in heading)
        assert second.startswith("**9.0**") == ("↑" in heading)
    assert cells[1][1] == "low one"


def test_nothing_is_best_where_all_are_alike() -> None:
    column = tables.column("average_drop", 50)
    rows = pd.DataFrame({"value": [0.01, 0.02]})
    assert tables.best_value(rows, column) == ""
    assert tables.best_value(rows.assign(value=[0.01, 0.2]), column) == "0.0"
    assert tables.best_value(rows.iloc[:1], column) == "0.0"


def test_latex_is_booktabs_and_balanced(written: Path) -> None:
    text = (written / "comparison.tex").read_text()
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"AD 100 \% $\downarrow$" in text
    assert text.count("{") == text.count("}")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in lines}) == 1
    assert "_" not in text.replace("low_one", "")


def test_columns_go_level_by_level_and_only_as_far_as_scores_go() -> None:
    table = tables.summarise([scores("a", np.ones(3))], SETTINGS, 0)
    found = [c.heading for c in tables.columns(table, [*tables.PROTOCOL, "average_gain"])]
    assert found == [
        "AD 100 % ↓",
        "IC 100 % ↑",
        "AD 50 % ↓",
        "IC 50 % ↑",
        "ROAD MoRF ↓",
        "ROAD LeRF ↑",
    ]


def test_printed_tables_show_measures_that_exist() -> None:
    shown = [*tables.RANKED, *(name for names in tables.PRINTED.values() for name in names)]
    columns = [tables.column(n, None) for names in shown for n in names.split("+")]
    assert len({c.label for c in columns}) == len({c.metric for c in columns})
    assert tables.column("deletion_mean", None).label == "Deletion (mean)"


def test_shares_of_one_have_three_decimals() -> None:
    one, percent = tables.column("gini", None), tables.column("entropy", None)
    assert (one.text(0.4567), one.end(0.4567)) == ("0.457", "0.46")
    assert (percent.text(45.67), percent.end(45.67)) == ("45.7", "46")


def test_delta_table_has_means_over_the_levels_of_road() -> None:
    table = pd.DataFrame(
        [
            ("net", "a", "average_drop", 100.0, 1.5),
            ("net", "a", "increase_in_confidence", 100.0, -0.01),
            ("net", "a", "road_morf", 10.0, 2.0),
            ("net", "a", "road_morf", 90.0, -6.0),
            ("net", "a", "road_lerf", 10.0, 0.0),
        ],
        columns=["backbone", "explainer", "metric", "level", "delta"],
    )
    (row,) = tables.delta_table(table, {"a": "A"}).to_dict("records")
    assert row == {
        "Backbone": "net",
        "Explainer": "A",
        "AD 100 %": "+1.5",
        "IC 100 %": "+0.0",
        "ROAD MoRF": "-2.0",
        "ROAD LeRF": "+0.0",
    }


def test_rank_table_closes_with_the_critical_difference() -> None:
    table = pd.DataFrame(
        {
            "backbone": "net",
            "explainer": ["a", "b"],
            "metric": "average_drop",
            "level": 50.0,
            "rank": [1.25, 1.75],
            "critical_difference": 0.345,
        }
    )
    found = tables.rank_table(table, {"a": "A", "b": "B"})
    assert found["Explainer"].tolist() == ["A", "B", "critical difference"]
    assert found["AD 50 %"].tolist() == ["1.25", "1.75", "0.34"]


def test_long_form_has_its_columns(written: Path) -> None:
    table = pd.read_csv(written / "comparison.csv")
    assert list(table.columns) == tables.LONG_COLUMNS


def test_readme_block_is_filled(written: Path) -> None:
    text = "before\n<!-- results/tables/comparison.md -->\nold\n<!-- end -->\nafter\n"
    filled = readme.filled(text)
    assert filled == text.replace("old\n", (written / "comparison.md").read_text())
    assert readme.filled(filled) == filled
    with pytest.raises(ValueError, match="has no block"):
        readme.filled("nothing here")


def test_committed_readme_shows_the_committed_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    text = Path("README.md").read_text()
    assert readme.filled(text) == text


def similarities(explainer: str, ssim: float, rank: float) -> pd.DataFrame:
    """Per-image similarities that are 0.5 where little is randomised, and as given where all is."""
    rows = [
        {
            "image": f"i{i}",
            "metric": metric,
            "level": level,
            "value": value if level == 100 else 0.5,
        }
        for i in range(3)
        for metric, value in (("randomisation_ssim", ssim), ("randomisation_rank", rank))
        for level in (10, 100)
    ]
    table = pd.DataFrame(rows).assign(backbone="net", explainer=explainer, weights="abc")
    return table[store.SCORE_COLUMNS]


def test_an_explainer_that_does_not_change_is_marked() -> None:
    cells = [
        similarities("fixed", 1.0, 1.0),
        similarities("nearly", 0.91, 0.95),
        similarities("ordered", 0.6, 0.95),
        similarities("changing", 0.3, 0.1),
    ]
    table = tables.marked(tables.summarise(cells, SETTINGS, seed=0))
    found = table.groupby("explainer", sort=False)["unchanged"].agg(["all", "any"])
    assert found["all"].to_dict() == found["any"].to_dict()
    assert found["any"].to_dict() == {
        "fixed": True,
        "nearly": True,
        "ordered": False,
        "changing": False,
    }
    printed = tables.randomisation_table(table, {name: name for name in found.index})
    assert printed["Changes"].tolist() == ["**no**", "**no**", "yes", "yes"]
    assert printed["SSIM, 100 %"].tolist() == ["1.00", "0.91", "0.60", "0.30"]
    assert printed["Rank, 10 %"].tolist() == ["0.50"] * 4
