"""Tables: exact means, known intervals, mixtures refused, marks, published values, no torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from benchmark.commands import readme
from benchmark.core import params, results
from benchmark.core.cells import Project
from benchmark.core.params import Tables
from benchmark.core.store import KEYS
from benchmark.report import measures, printed, statistics, summaries
from benchmark.report.measures import Known
from benchmark.report.rendering import Entry

ROOT = Path(__file__).parents[3]
SETTINGS = Tables(resamples=500, confidence=0.95)
LEVELS = {
    "average_drop": (100, 50),
    "increase_in_confidence": (100, 50),
    "road_morf": (10, 90),
    "road_lerf": (10, 90),
}


ROAD = ["road_morf", "road_lerf"]


@pytest.fixture(scope="module")
def known(settings: params.Params) -> Known:
    return measures.known_measures(Project(settings).catalogue)


@pytest.mark.parametrize(
    "of_one, low, high, expected",
    [
        (False, 99.4, 100.0, "99–100"),
        (False, 12.01, 12.99, "12–13"),
        (False, 11.9999999999, 13.0000000001, "12–13"),
        (False, 7.0, 7.0, "7–7"),
        (False, -3.2, -0.3, "-4–0"),
        (True, 0.291, 0.299, "0.29–0.30"),
        (True, 0.29, 0.3, "0.29–0.30"),
    ],
)
def test_intervals_are_rounded_outwards(
    of_one: bool, low: float, high: float, expected: str
) -> None:
    column = printed.Column("m", None, "M", higher_is_better=True, of_one=of_one)
    assert column.interval(low, high) == expected


def scores(explainer: str, values: np.ndarray, weights: str = "abc") -> pd.DataFrame:
    """Per-image scores, the same `values` for every measure and level."""
    rows = [
        {"image": f"i{i:03d}", "metric": metric, "level": level, "value": value}
        for i, value in enumerate(values)
        for metric, levels in LEVELS.items()
        for level in levels
    ]
    table = pd.DataFrame(rows).assign(backbone="net", explainer=explainer, weights=weights)
    return table[results.SCORE_COLUMNS]


NO_SEEDS = pd.DataFrame(columns=[*summaries.SEED_COLUMNS, "against_main"])
"""What there is without a study of the first explainer."""


def test_means_are_exact_and_intervals_are_the_normal_ones() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    settings = Tables(resamples=4000, confidence=0.95)
    table = summaries.summarise([scores("a", values)], settings, 0, ROAD)
    assert np.allclose(table["value"], values.mean())
    half = norm.ppf(0.975) * values.std() / 20
    assert np.allclose(table["low"], values.mean() - half, atol=0.06)
    assert np.allclose(table["high"], values.mean() + half, atol=0.06)
    assert set(table["n"]) == {400}
    assert len(table) == 4 * 2 + 2 * 2


def test_intervals_cover_the_truth_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        table = summaries.summarise([scores("a", rng.normal(0, 1, 60))], SETTINGS, seed=trial)
        hits += bool(table["low"].iloc[0] <= 0 <= table["high"].iloc[0])
    assert 0.88 <= hits / 200 <= 0.99


def test_mean_of_road_is_over_its_levels() -> None:
    one = scores("a", np.zeros(4))
    one.loc[(one["metric"] == "road_morf") & (one["level"] == 10), "value"] = 100
    table = summaries.summarise([one], SETTINGS, 0, ROAD).set_index("metric")
    assert table.loc["road_morf_mean", "value"] == 50
    assert table.loc["road_lerf_mean", "value"] == 0


def test_same_seed_same_interval() -> None:
    one = scores("a", np.random.default_rng(0).random(30))
    first, again = (summaries.summarise([one], SETTINGS, seed=3) for _ in range(2))
    assert first.equals(again)


def test_mixtures_are_refused() -> None:
    a, b = scores("a", np.ones(3)), scores("b", np.ones(3), weights="xyz")
    with pytest.raises(ValueError, match="b on net was scored with weights xyz, a with abc"):
        summaries.summarise([a, b], SETTINGS, seed=0)
    other = scores("b", np.ones(3))
    other["image"] = other["image"].replace("i002", "i003")
    with pytest.raises(ValueError, match="b on net has scores of 3 images, a of 3, and only 2 are"):
        summaries.summarise([a, other], SETTINGS, seed=0)
    table = summaries.summarise([a, scores("b", np.ones(2))], SETTINGS, seed=0)
    assert table.groupby("explainer")["n"].unique().map(list).to_dict() == {"a": [3], "b": [2]}


def settings_of(folder: Path) -> params.Params:
    """The parameters of a folder, with fewer resamples."""
    return params.load(folder / "params.yaml").model_copy(update={"tables": SETTINGS})


def long_form(known: Known, cells: dict[str, np.ndarray]) -> pd.DataFrame:
    """The long form of explainers on the backbone `net`, with marks."""
    return compared([scores(name, values) for name, values in cells.items()], known)


def compared(cells: list[pd.DataFrame], known: Known) -> pd.DataFrame:
    """The long form of cells, with marks."""
    same = summaries.alike(cells)
    apart = summaries.matrices(summaries.distinct(cells, same), measures.averaged(known))
    return summaries.compared(cells, same, apart, known, settings_of(ROOT))


def test_best_and_what_a_test_does_not_tell_from_it(known: Known) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(50, 5, 12)
    cells = {"a": base, "b": base + 10 + rng.normal(0, 0.1, 12), "c": base + rng.normal(0, 5, 12)}
    table = long_form(known, cells)
    drop = table[(table["metric"] == "average_drop") & (table["level"] == 50)]
    best = min(("a", "c"), key=lambda name: cells[name].mean())
    found = drop.set_index("explainer")
    assert found.index[found["best"]].tolist() == [best]
    assert found.index[found["separated"]].tolist() == ["b"]
    gain = table[(table["metric"] == "increase_in_confidence") & (table["level"] == 50)]
    assert gain.set_index("explainer")["best"].to_dict() == {"a": False, "b": True, "c": False}
    assert set(table.columns) == set(summaries.COMPARED_COLUMNS)


def test_printed_best_is_marked_in_the_good_direction(known: Known) -> None:
    table = long_form(known, {"low_one": np.ones(12), "high": np.full(12, 9.0)})
    shown = printed.columns(table, printed.PROTOCOL, known)
    low, high = printed.printed(table, shown, {"low_one": "low one", "high": "H"}).to_dict(
        "records"
    )
    assert low["Explainer"] == "low one"
    for heading in [c.heading for c in shown]:
        down = "↓" in heading
        assert low[heading] == Entry("1.0", "1–1", "best" if down else "")
        claim = "worse" if down else "better"
        assert high[heading] == Entry("9.0", "9–9", "" if down else "best", claim)


def test_a_row_of_fewer_images_says_what_the_first_has_on_these(known: Known) -> None:
    rng = np.random.default_rng(0)
    main = rng.normal(30, 5, 40)
    cells = {"main": main, "worse": main[:20] + 10, "same": main + rng.normal(0, 5, 40)}
    found = [scores(name, values) for name, values in cells.items()]
    good = {name: measures.measure_of(name, known).higher_is_better for name in LEVELS}
    tables = summaries.matrices(found, ())
    pairs = summaries.by_backbone(tables, lambda t: statistics.pairs(t, SETTINGS, 0))
    table = compared(found, known)
    rows = table.set_index(["explainer", "metric", "level"])
    worse = rows.loc["worse", "average_drop", 50]
    assert worse["main_value"] == pytest.approx(main[:20].mean())
    assert worse["against_main"] == "worse"
    assert rows.loc["worse", "increase_in_confidence", 50]["against_main"] == "better"
    assert rows.loc["same", "average_drop", 50]["against_main"] == ""
    assert np.isnan(rows.loc["main", "average_drop", 50]["main_value"])
    area = rows.loc["worse"].loc["road_morf_area"].iloc[0]
    assert area["main_value"] == pytest.approx(main[:20].mean())
    assert area["against_main"] == "worse"
    shown = printed.columns(table, printed.CONFIDENCE, known)
    labels = {"main": "Main", "worse": "W", "same": "S"}
    first, second, third = printed.printed(table, shown, labels).to_dict("records")
    assert [row["n"].value for row in (first, second, third)] == ["40", "20", "40"]
    assert second["AD 50 % ↓"].beside == f"Main {main[:20].mean():.1f}"
    assert (first["AD 50 % ↓"].beside, third["AD 50 % ↓"].beside) == ("", "")
    count = summaries.decided(pairs, good, 0.95).set_index(["metric", "level"])
    drop = count.loc["average_drop", 50]
    assert drop[["pairs", "claims", "better", "worse"]].tolist() == [3, 2, 1, 0]
    assert drop["decided"] == 2  # `worse` is told from both
    text = printed.decided_table(count.reset_index(), known, "Main").iloc[0]
    assert text["Measure"] == "AD 100 % ↓"
    assert text["n"].value == "20–40"
    assert [text[name].value for name in ("Claims: Main better", "Main worse", "not decided")] == [
        "1",
        "0",
        "1",
    ]


def test_columns_go_level_by_level_and_only_as_far_as_scores_go(known: Known) -> None:
    table = summaries.summarise([scores("a", np.ones(3))], SETTINGS, 0, ROAD)
    shown = printed.columns(table, [*printed.PROTOCOL, "average_gain"], known)
    assert [c.heading for c in shown] == [
        "AD 100 % ↓",
        "IC 100 % ↑",
        "AD 50 % ↓",
        "IC 50 % ↑",
        "ROAD MoRF mean ↓",
        "ROAD LeRF mean ↑",
    ]


def test_printed_measures_exist(known: Known) -> None:
    shown = [name for names in (*printed.RANKED, *printed.MORE) for name in names.split("+")]
    columns = [printed.column(name, None, known) for name in shown]
    labels = [measures.measure_of(c.metric, known).label for c in columns]
    assert all(
        c.label.removesuffix(" mean").removesuffix(" area") == label
        for c, label in zip(columns, labels, strict=True)
    )
    assert printed.column("road_morf_area", None, known).label == "ROAD MoRF area"
    with pytest.raises(KeyError):
        printed.column("average_drip", None, known)


def test_shares_of_one_have_three_decimals(known: Known) -> None:
    one, percent = (printed.column(name, None, known) for name in ("gini", "entropy"))
    assert (one.text(0.4567), one.interval(0.4567, 0.4567)) == ("0.457", "0.45–0.46")
    assert (percent.text(45.67), percent.interval(45.67, 45.67)) == ("45.7", "45–46")


def test_road_table_has_levels_and_areas_by_hand(known: Known) -> None:
    """The area under 100 at 10 % and 0 at 90 % is 50, wherever the levels lie."""
    one = scores("a", np.full(4, 100.0))
    one.loc[one["level"] == 90, "value"] = 0
    table = compared([one, one.assign(explainer="b")], known)
    found = printed.road_table(table, known, {"a": "A", "b": "B"})
    assert found[["Explainer", "Order"]].to_numpy().tolist() == [
        ["A", "MoRF ↓"], ["B", "MoRF ↓"], ["A", "LeRF ↑"], ["B", "LeRF ↑"],
    ]  # fmt: skip
    assert list(found.columns[2:]) == ["n", "10 %", "90 %", "area"]
    assert [cell.value for cell in found.iloc[0, 2:]] == ["4", "100.0", "0.0", "50.0"]


def test_explainers_that_agree_to_rounding_share_a_row(known: Known) -> None:
    values = np.linspace(10, 50, 12)
    other = values.copy()
    other[7] *= 1.002
    cells = {"a": values, "b": 1.0005 * values, "other": other, "fewer": values[:9], "c": values}
    found = summaries.alike([scores(name, own) for name, own in cells.items()])
    assert found.to_numpy().tolist() == [["net", "b", "a"], ["net", "c", "a"]]
    elsewhere = scores("d", values).assign(backbone="other net")
    assert summaries.alike([scores("a", values), elsewhere]).empty


def test_what_follows_from_other_scores_does_not_count_twice() -> None:
    """One score of a thousand may differ; SRG, which is made of two others, differs with it."""
    values = np.linspace(10, 50, 126)  # eight scores each
    one, other = scores("a", values), scores("b", values)
    last = other.index[-1]
    other.loc[last, "value"] += 1
    assert len(summaries.alike([one, other])) == 1
    extra = [own.iloc[-8:].assign(metric="srg") for own in (one, other)]
    extra[1]["value"] += 1
    whole = [pd.concat(pair) for pair in zip((one, other), extra, strict=True)]
    assert len(summaries.alike(whole)) == 1
    two = other.copy()
    two.loc[other.index[0], "value"] += 1
    assert summaries.alike([one, two]).empty


def test_scores_at_the_ends_of_their_range_do_not_say_that_maps_are_the_same() -> None:
    """A network that is sure of nothing has no drop under any map."""
    values = np.zeros(6)
    assert summaries.alike([scores("a", values), scores("b", values)]).empty
    values[:4] = 12.5
    assert len(summaries.alike([scores("a", values), scores("b", values)])) == 1
    other = values.copy()
    other[4:] = 100
    assert summaries.alike([scores("a", values), scores("b", other)]).empty


def test_what_another_seed_changes(settings: params.Params) -> None:
    """The median over images; of what is trained, the spread of the study's baseline."""
    rows = [(f"i{i}", "seed_rank", np.nan, value) for i, value in enumerate((0.9, 0.1, 0.7))]
    cell = pd.DataFrame(rows, columns=["image", "metric", "level", "value"])
    cell = cell.assign(backbone="efficientnet_lite0", explainer="rise", weights="abc")
    seeds = pd.DataFrame(
        {
            "backbone": "efficientnet_lite0",
            "explainer": ["baseline"] * 3 + ["no_area"] * 3,
            "seed": [0, 1, 2] * 2,
            "metric": "average_drop",
            "level": 50.0,
            "value": [10.0, 12.0, 14.0, 1.0, 2.0, 3.0],
        }
    )
    same = settings.model_copy(
        update={"ablate": params.Ablate(seeds=3, scored=9, **settings.train.model_dump())}
    )
    table = summaries.stability(Project(same), [cell, cell.iloc[:0]], seeds)
    by_name = table.set_index("explainer")
    assert by_name.loc["rise", ["value", "low", "high", "n"]].tolist() == [0.7, 0.1, 0.9, 3]
    assert by_name["unstable"].to_dict() == {"rise": True, "ttame": False}
    assert by_name.loc["ttame", ["value", "low", "high", "n"]].tolist() == [2, 10, 14, 3]
    other = same.model_copy(update={"ablate": same.ablate.model_copy(update={"max_lr": 0.1})})
    assert set(summaries.stability(Project(other), [cell], seeds)["explainer"]) == {"rise"}
    printed_one = printed.with_seeds(
        pd.DataFrame({"Explainer": ["T-TAME", "RISE", "Grad-CAM"]}),
        table,
        {"ttame": "T-TAME", "rise": "RISE"},
    )
    assert [e.value for e in printed_one["Seeds"]] == ["± 2.0", "0.70 unstable", ""]


def test_claims_name_who_is_better_worse_and_not_told_apart(known: Known) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(30, 5, 24)
    cells = {"main": values, "worse": values + 9, "same": rng.permutation(values), "b": values - 9}
    table = long_form(known, {**cells, "again": values + 9})
    same = pd.DataFrame({"explainer": ["again"], "same_as": ["worse"]})
    labels = {"main": "Main", "worse": "W", "same": "S", "b": "B", "again": "A"}
    own = {"comparison": table, "alike": same, "seed_claims": NO_SEEDS}
    lines = printed.describe_claims(own, known, labels)
    value = f"{values.mean():.1f} (24 images)"
    said = f"- AD 100 %: Main {value}. Better than Main: B. Worse: W = A. Not told apart: S.\n"
    assert lines["AD 100 %"] == said
    assert lines["AD 50 %"] == said.replace("100 %", "50 %")
    raised = lines["IC 100 %"]
    assert "Better than Main: W = A. Worse: B. " in raised
    assert printed.enumerate_names(list("abcdef")) == "a, b, c, d, e, f"
    assert printed.enumerate_names(list("abcdefg")) == "7 others"
    assert printed.enumerate_names(list("abcdefg"), ["g", "b", "x"]) == "b, g, 5 more"
    assert printed.enumerate_names(list("abcdefg"), list("abcdefg")) == "a, b, c, d, e, f, g"
    assert printed.enumerate_names([]) == "none"


def test_the_training_table_has_an_epoch_a_column() -> None:
    rows = [("net", name, epoch, 40.0 - 10 * epoch) for name in ("a", "b") for epoch in (0, 1, 2)]
    table = pd.DataFrame(rows[:5], columns=["backbone", "explainer", "epoch", "value"])
    table = table.assign(unseen=[3.0] * 3 + [np.nan] * 2, n=48)
    found = printed.training_table(table, {"a": "A", "b": "B"})
    assert list(found.columns) == ["Explainer", "Unseen", "0", "1", "2"]
    assert [cell.value for cell in found.iloc[0, 1:]] == ["3 of 48", "40.0", "30.0", "20.0"]
    assert found.iloc[1, 1].value == "not counted"
    assert found.iloc[1, 4] == ""


def test_delta_table_has_means_over_the_levels_of_road(known: Known) -> None:
    table = pd.DataFrame(
        [
            ("net", "a", "average_drop", 100.0, 1.5),
            ("net", "a", "increase_in_confidence", 100.0, -0.01),
            ("net", "a", "road_morf", 10.0, 2.0),
            ("net", "a", "road_morf", 90.0, -6.0),
            ("net", "a", "road_lerf", 10.0, 0.0),
        ],
        columns=["backbone", "explainer", "metric", "level", "delta"],
    ).assign(n=2)
    (row,) = printed.delta_table(table, known, {"a": "A"}).to_dict("records")
    assert row.pop("Explainer") == "A"
    assert {heading: entry.value for heading, entry in row.items()} == {
        "n": "2",
        "AD 100 %": "+1.5",
        "IC 100 %": "+0.0",
        "ROAD MoRF mean": "-2.0",
        "ROAD LeRF mean": "+0.0",
    }


def test_rank_table_closes_with_the_critical_difference(known: Known) -> None:
    table = pd.DataFrame(
        {
            "backbone": "net",
            "explainer": ["a", "b", "c"],
            "metric": "average_drop",
            "level": 50.0,
            "rank": [1.25, 1.5, 1.75],
            "n": 24,
            "critical_difference": 0.345,
        }
    )
    found = printed.rank_table(table, known, {"a": "A", "b": "B", "c": "C"})
    assert found["Explainer"].tolist() == ["A", "B", "C", "images", "critical difference"]
    assert [cell.value for cell in found["AD 50 %"]] == ["1.25", "1.50", "1.75", "24", "0.34"]
    assert [cell.mark for cell in found["AD 50 %"]] == ["best", "tied", "", "", ""]


def test_a_single_explainer_has_no_pairs_and_claims_nothing(known: Known) -> None:
    cells = [scores("a", np.ones(12))]
    tables = summaries.matrices(cells, ())
    pairs = summaries.by_backbone(tables, lambda t: statistics.pairs(t, SETTINGS, 0))
    count = summaries.decided(pairs, {}, 0.95)
    assert printed.decided_table(count, known, "A").empty
    long = {"comparison": compared(cells, known), "alike": summaries.alike(cells)}
    long["seed_claims"] = NO_SEEDS
    text = "".join(printed.describe_claims(long, known, {"a": "A"}).values())
    assert "Better than A: none. Worse: none. Not told apart: none." in text


def test_a_single_explainer_has_no_rank_table(known: Known) -> None:
    one = statistics.ranks({"a": pd.DataFrame()}, {}, 0.95).assign(backbone="net")
    assert printed.rank_table(one, known, {"a": "A"}).empty


REPORTED = "backbone,explainer,metric,level,value,like_for_like,source\n"


def published(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "paper.csv").write_text(text)
    return folder


def test_published_values_stand_beside_ours_with_their_source(known: Known, tmp_path: Path) -> None:
    rows = "net,a,average_drop,50,30.5,true,Table 2\nnet,a,average_drop,50,20,false,DeiT\n"
    folder = published(tmp_path / "reported", REPORTED + rows)
    table = long_form(known, {"a": np.full(12, 33.0), "b": np.full(12, 40.0)})
    beside = summaries.beside_reported(table, summaries.read_reported(folder, known))
    assert set(zip(beside["explainer"], beside["level"], strict=True)) == {("a", 50)}
    assert beside["difference"].fillna(0).tolist() == [2.5, 0]
    lines = printed.reported_table(beside, known, {"a": "A"}).to_dict("records")
    shown = [
        (line["Here"].value, line["Reported"].value, line["Difference"].value, line["Source"])
        for line in lines
    ]
    assert shown == [("33.0", "30.5", "+2.5", "Table 2"), ("33.0", "20.0", "", "DeiT")]
    empty = summaries.beside_reported(table, summaries.read_reported(tmp_path, known))
    assert printed.reported_table(empty, known, {}).empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone,value\nnet,1\n", "has the columns backbone, value: expected backbone, expl"),
        (
            f"{REPORTED}net,a,drop,50,1,true,x\n",
            "has the metric 'drop': expected one of .*average_drop",
        ),
        (
            f"{REPORTED}net,a,average_drop,50,1,true,\n",
            "a value without a source",
        ),
        (
            f"{REPORTED}net,a,average_drop,50,1,maybe,x\n",
            "has like_for_like 'maybe': expected true or false",
        ),
        (
            REPORTED + 2 * "net,a,average_drop,50,1,true,x\n",
            "has average_drop at 50 of a twice from one source",
        ),
    ],
)
def test_wrong_published_values_are_refused(
    known: Known, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        summaries.read_reported(published(tmp_path, text), known)


def test_shipped_published_values_are_read(known: Known) -> None:
    table = summaries.read_reported(ROOT / "results" / "reported", known)
    tame = table[(table["explainer"] == "tame") & (table["metric"] == "road_morf")]
    assert tame.set_index("level")["value"].to_dict()[50] == 25
    assert not table.duplicated([*summaries.KEY, "source"]).any()
    alike = table[table["like_for_like"]]
    assert set(zip(alike["backbone"], alike["explainer"], strict=True)) == {
        ("vit_b_16", "tame"),
        ("vgg16", "ttame"),
    }


@pytest.mark.slow
def test_tables_are_rebuilt_without_torch(tmp_path: Path) -> None:
    """From the committed scores alone: the same bytes as the committed tables."""
    folders = ("scores", "cost", "targets", "delta", "randomisation", "ablation", "curves")
    for name in (*folders, "reported"):
        shutil.copytree(ROOT / "results" / name, tmp_path / "results" / name)
    shutil.copy(ROOT / results.CHECK, tmp_path / results.CHECK)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    code = """
import sys

class Without:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "torchvision", "timm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
from benchmark import tables
from benchmark.core import params
tables.main(params.load())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    every = [p for p in (ROOT / "results" / "tables").rglob("*") if p.is_file()]
    committed = [p for p in every if p.name != KEYS]
    assert committed
    for path in committed:
        assert (tmp_path / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path.name


def test_readme_block_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "results" / "tables" / "net" / "road.md"
    table.parent.mkdir(parents=True)
    table.write_text("| a |\n")
    text = "before\n<!-- results/tables/net/road.md -->\nold\n<!-- end -->\nafter\n"
    page = tmp_path / "page.md"
    page.write_text(text)
    assert readme.filled(page) == text.replace("old\n", "| a |\n")
    page.write_text(readme.filled(page))
    assert readme.filled(page) == page.read_text()
    table.unlink()
    assert "-->\nNot measured.\n<!-- end -->" in readme.filled(page)
    page.write_text("nothing here")
    assert readme.filled(page) == "nothing here"
    readme.README.write_text("nothing here")
    with pytest.raises(ValueError, match=r"README.md has no block"):
        readme.filled(readme.README)


def test_committed_readme_shows_the_committed_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for page in (readme.README, *readme.DOCS.glob("*.md")):
        assert readme.filled(page) == page.read_text(), page
        assert readme.NONE not in page.read_text(), page


def variant(name: str, seed: int, values: np.ndarray) -> pd.DataFrame:
    """Per-image scores of a variant that was trained with a seed."""
    return scores(name, values).assign(seed=seed)


def test_ablation_is_over_seeds(
    settings: params.Params, known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variants = {
        "baseline": params.Variant(label="T-TAME"),
        "other": params.Variant(label="other", question="layers"),
    }
    project = Project(settings.model_copy(update={"ablation": {"net": variants}}))
    values = np.linspace(40, 60, 12)
    for name, shift in (("baseline", 0.0), ("other", 20.0)):
        parts = [variant(name, seed, values + shift + 3 * seed) for seed in range(3)]
        results.write_csv(results.ablation_path("net", name), pd.concat(parts))
    study = summaries.read_study(project)
    by_seed = summaries.each_seed(study, measures.averaged(known))
    long, seeds = summaries.ablated(by_seed, known, 0.95)
    row = long[(long["metric"] == "average_drop") & (long["level"] == 50)].set_index("explainer")
    assert row["value"].to_dict() == pytest.approx({"baseline": 53, "other": 73})
    half = 4.30265 * 3 / 3**0.5  # Student's t of two degrees of freedom, standard deviation 3
    assert row["high"]["baseline"] == pytest.approx(53 + half, rel=1e-4)
    assert row["n"].tolist() == [3, 3]
    assert row["separated"].to_dict() == {"baseline": False, "other": True}
    own = seeds[(seeds["metric"] == "average_drop") & (seeds["level"] == 50)]
    assert own[own["explainer"] == "baseline"]["value"].tolist() == pytest.approx([50, 53, 56])


def test_a_study_of_other_weights_or_images_is_refused(known: Known) -> None:
    values = np.linspace(40, 60, 6)
    own = {("net", "baseline"): variant("baseline", 0, values)}
    names = measures.averaged(known)
    other = variant("other", 0, values).assign(weights="others")
    with pytest.raises(ValueError, match="other on net was scored with weights others, baseline"):
        summaries.each_seed(own | {("net", "other"): other}, names)
    other = variant("other", 0, values)
    other["image"] = "x" + other["image"]
    with pytest.raises(ValueError, match="other on net has scores of 6 images, baseline of 6, and"):
        summaries.each_seed(own | {("net", "other"): other}, names)


def test_answers_are_differences_from_the_baseline_seed_by_seed(
    settings: params.Params, known: Known
) -> None:
    """The interval is of the differences: what both have of a seed does not widen it.

    Seeds that agree to the last digit tell nothing of a change of one image.
    """
    variants = {
        "worse": params.Variant(label="Worse", question="layers"),
        "baseline": params.Variant(label="T-TAME"),
        "same": params.Variant(label="Same", question="loss"),
        "one_image": params.Variant(label="One image", question="loss"),
    }
    project = Project(settings.model_copy(update={"ablation": {"net": variants}}))
    values = np.linspace(40, 60, 12)
    one = np.eye(12)[0] * 12
    shifts = {"baseline": (0, 10, 20), "worse": (4, 15, 26), "same": (-1, 10, 21)}
    shifts["one_image"] = (one, 10 + one, 20 + one)
    seeds = {
        ("net", name): {
            seed: summaries.matrix(scores(name, values + shift)) for seed, shift in enumerate(own)
        }
        for name, own in shifts.items()
    }
    good = {"average_drop": False, "increase_in_confidence": True}
    table = summaries.answers(project, seeds, dict.fromkeys(LEVELS, False) | good, 0.95)
    row = table[(table["metric"] == "average_drop") & (table["level"] == 50)].set_index("explainer")
    half = 4.30265 * 1 / 3**0.5  # Student's t of two degrees of freedom, standard deviation 1
    assert row.loc["worse", ["value", "low", "high", "n"]].tolist() == pytest.approx(
        [5, 5 - half, 5 + half, 3], rel=1e-4
    )
    assert row.loc["same", ["value", "low", "high"]].tolist() == pytest.approx(
        [0, -half, half], rel=1e-4, abs=1e-9
    )
    assert row.loc["one_image", ["value", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert row["told"].to_dict() == {"worse": printed.WORSE, "same": "", "one_image": ""}
    lines = printed.describe_answers(table, known, variants).splitlines()
    assert [line.split(". ")[0] for line in lines] == [
        "- layers: Worse, 3 seeds",
        "- loss: Same, 3 seeds",
        "- loss: One image, 3 seeds",
    ]
    told, others = lines[0].split(" Not told apart: ")
    assert "Worse: AD 100 % (+5.0, +2.5 to +7.5), AD 50 % (+5.0, +2.5 to +7.5)" in told
    assert "Better: IC 100 % (+5.0, +2.5 to +7.5), IC 50 % (+5.0, +2.5 to +7.5)." in told
    assert others == "nothing."
    undecided = "Better: nothing. Worse: nothing. Not told apart: AD 100 % (+0.0, -2.5 to +2.5)"
    assert undecided in lines[1]


def test_claims_of_seeds_are_those_of_the_first_explainer_trained_anew(
    settings: params.Params, known: Known
) -> None:
    """A variant of another recipe than the explainer's own claims nothing."""
    own = params.Ablate(seeds=2, scored=9, **settings.train.model_dump())
    same = settings.model_copy(update={"ablate": own})
    rng = np.random.default_rng(0)
    values = rng.normal(30, 5, 24)
    cells = {"ttame": values, "worse": values + 9, "once": values - 2}
    apart = {"efficientnet_lite0": {n: summaries.matrix(scores(n, v)) for n, v in cells.items()}}
    trained = {0: values, 1: values - 4}
    seeds = {
        ("efficientnet_lite0", "baseline"): {
            seed: summaries.matrix(scores("baseline", v)) for seed, v in trained.items()
        }
    }
    good = {"average_drop": False, "increase_in_confidence": True}
    table = summaries.claims_of_seeds(Project(same), seeds, apart, good, 0.95)
    drops = table[(table["metric"] == "average_drop") & (table["level"] == 50)]
    found = drops.set_index(["explainer", "seed"])["against_main"].to_dict()
    better, worse = printed.BETTER, printed.WORSE
    assert found == {
        ("worse", 0): worse, ("worse", 1): worse, ("once", 0): better, ("once", 1): worse,
    }  # fmt: skip
    values_of = drops.drop_duplicates("seed").set_index("seed")["value"]
    assert values_of.to_dict() == pytest.approx({0: values.mean(), 1: values.mean() - 4})
    labels = {"ttame": "T-TAME", "worse": "W", "once": "O"}
    (column, *_) = printed.columns(table, ["average_drop"], known)[1:]
    said = printed.describe_seeds(column, column.of(table), labels)
    ends = f"({values.mean() - 4:.1f} to {values.mean():.1f})"
    assert said == (
        f" Over 2 training seeds {ends}: better with all: none; better with some: O (1); "
        "worse with all: W; worse with some: O (1)."
    )
    other = same.model_copy(update={"ablate": own.model_copy(update={"max_lr": 0.1})})
    assert summaries.claims_of_seeds(Project(other), seeds, apart, good, 0.95).empty
    assert printed.describe_seeds(column, column.of(table).iloc[:0], labels) == ""


def test_without_a_study_its_tables_are_empty(settings: params.Params, known: Known) -> None:
    project = Project(settings.model_copy(update={"ablation": {}}))
    assert summaries.read_study(project) == {}
    long, seeds = summaries.ablated({}, known, 0.95)
    assert summaries.answers(project, {}, {}, 0.95).empty
    assert summaries.claims_of_seeds(project, {}, {}, {}, 0.95).empty
    assert (len(long), len(seeds)) == (0, 0)
    assert {"backbone", "explainer", "metric", "level", "value"} <= {*long.columns} & {
        *seeds.columns
    }
    assert printed.ablation_table(long, known, {}).empty


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
    return table[results.SCORE_COLUMNS]


def test_an_explainer_that_does_not_change_is_marked() -> None:
    cells = [
        similarities("fixed", 1.0, 1.0),
        similarities("nearly", 0.91, 0.95),
        similarities("ordered", 0.6, 0.95),
        similarities("changing", 0.3, 0.1),
    ]
    table = summaries.marked(summaries.summarise(cells, SETTINGS, seed=0))
    found = table.groupby("explainer", sort=False)["unchanged"].agg(["all", "any"])
    assert found["all"].to_dict() == found["any"].to_dict()
    assert found["any"].to_dict() == {
        "fixed": True,
        "nearly": True,
        "ordered": False,
        "changing": False,
    }
    shown = printed.randomisation_table(table, {name: name for name in found.index})
    assert shown["Changes"].tolist() == ["≡ no", "≡ no", "yes", "yes"]
    assert [cell.value for cell in shown["SSIM, 100 %"]] == ["1.00", "0.91", "0.60", "0.30"]
    assert [cell.value for cell in shown["Rank, 10 %"]] == ["0.50"] * 4


@pytest.mark.parametrize(
    ("start", "names"),
    [
        (("average_drop", "increase"), {"short", "ablation", "delta", "ranks", "decided"}),
        (("road",), {"short", "road", "ablation", "delta", "ranks", "decided"}),
        (("pointing_game",), {"short", "maps"}),
        (("deletion",), {"faithfulness", "ranks", "decided"}),
        ((), set()),
    ],
)
def test_tables_of_some_of_the_metrics(
    start: tuple[str, ...], names: set[str], known: Known, settings: params.Params
) -> None:
    """What was not measured has no column, and a table without columns is none."""
    project = Project(settings)
    own = {}
    for path in (ROOT / results.TABLES).glob("*.csv"):
        table = results.read_table(path).replace({"against_main": {np.nan: ""}})
        own[path.stem] = table[table["backbone"] == "vit_sample"]
        if path.stem not in ("alike", "stability", "training", "randomisation"):
            own[path.stem] = own[path.stem][
                own[path.stem]["metric"].str.startswith((*start, *printed.COSTS))
            ]
    labels = {cell.explainer: project.facts(cell.explainer).label for cell in project.all_cells()}
    found = printed.printed_tables(own, known, labels, project.marked_variants("vit_sample"))
    always = {"comparison", "training", "randomisation"}
    assert {name for name, table in found.items() if len(table)} == names | always


def test_trusted_layers_are_said_beside_the_claims() -> None:
    assert printed.describe_trusted({}) == []
    (line,) = printed.describe_trusted({"a.b": 0.456, "c": 0.8})
    assert line.startswith("- Trusted layers: a.b (0.46), c (0.80). Explainers read them because")
    assert line.endswith("\n")
