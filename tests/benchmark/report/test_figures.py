"""Figures: every explainer is named, no label covers another, the same bytes every time."""

import io
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageColor
from skimage.color import rgb2lab

from benchmark.core import params, results
from benchmark.core.catalogue import Catalogue, ExplainerFacts
from benchmark.core.cells import Project
from benchmark.report import drawing, figures, heat_maps, measures
from benchmark.report.measures import Known
from methods import Kind

KINDS = ["trained", "CAM", "CAM", "baseline"]
EXPLAINERS = pd.DataFrame(
    {
        "explainer": ["own", "first", "second", "none"],
        "label": ["Own", "First map", "Second map", "None at all"],
        "kind": KINDS,
    }
)
LABELS = set(EXPLAINERS["label"])
SECONDS = pd.Series({"own": 0.01, "first": 0.02, "second": 0.02, "none": 1e-4, "forward": 0.008})
LEVELS = {
    "average_drop": [100.0, 50.0, 15.0],
    "increase_in_confidence": [100.0, 50.0, 15.0],
    "road_morf": [10.0, 50.0, 90.0],
    "road_lerf": [10.0, 50.0, 90.0],
    "road_morf_mean": [np.nan],
    "road_lerf_mean": [np.nan],
}
WITHOUT_LEVELS = {n: [np.nan] for n in ("gini", "pointing_game", "iou_best", "tied_pixels")}
FAMILY = ("cnn", "transformer")
SIMILARITIES = {"randomisation_ssim": [10.0, 100.0], "randomisation_rank": [10.0, 100.0]}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with mpl.rc_context(drawing.style()):
        yield


@pytest.fixture(scope="module")
def known(settings: params.Params) -> Known:
    return measures.known_measures(Project(settings).catalogue)


def long_form(levels: dict[str, list[float]], scale: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(metric, level) for metric, at in levels.items() for level in at]
    table = EXPLAINERS.merge(pd.DataFrame(rows, columns=["metric", "level"]), how="cross")
    value = scale * rng.uniform(0.1, 0.9, len(table))
    return table.assign(value=value, low=value - scale / 20, high=value + scale / 20, n=24)


def comparison() -> pd.DataFrame:
    return long_form(LEVELS, 100)


def similarities() -> pd.DataFrame:
    return long_form(SIMILARITIES, 1).assign(unchanged=lambda t: t["explainer"] == "none")


def pictures(count: int, explainers: pd.DataFrame = EXPLAINERS, side: int = 32) -> Figure:
    rng = np.random.default_rng(0)
    images = rng.random((count, side, side, 3), np.float32)
    maps = [rng.random((count, 4, 4), np.float32) for _ in range(len(explainers))]
    return heat_maps.heat_maps(explainers, [f"class {i}" for i in range(count)], images, maps)


def texts(figure: Figure) -> list[str]:
    """What can be read in a figure, without line breaks."""
    figure.draw_without_rendering()
    shown = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible()]
    return [text.get_text().replace("\n", " ") for text in shown]


def test_every_kind_has_its_colour_and_marker() -> None:
    assert list(drawing.STYLES) == list(get_args(Kind))
    assert len(set(drawing.STYLES.values())) == len(drawing.STYLES)


def test_colours_differ_to_the_colour_blind() -> None:
    simulated = [  # Machado et al. 2009, severity 1: protanopia, deuteranopia, tritanopia
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ]
    colours = np.array([to_rgb(colour) for colour, _ in drawing.STYLES.values()])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in [np.eye(3), *np.array(simulated)]:
        seen = (linear @ matrix.T).clip(0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = rgb2lab(seen[None])[0]
        assert all(np.linalg.norm(a - b) >= 25 for a, b in combinations(lab, 2))


def project_of(settings: params.Params, kinds: dict[str, str], but: str = "") -> Project:
    """A project of explainers with labels in capitals, on `net`; `but` is for another family."""
    facts = {
        name: ExplainerFacts(
            "x", name.upper(), kind, (FAMILY[name == but],), trained=False, seeded=False, passes=1
        )
        for name, kind in kinds.items()
    }
    net = settings.backbones["efficientnet_lite0"].model_copy(update={"skip": ()})
    changed = {
        "explainers": dict.fromkeys(kinds, params.Explainer()),
        "backbones": {"net": net},
        "ablation": {},
    }
    return Project(settings.model_copy(update=changed), Catalogue(facts, {}))


def test_labels_say_where_a_measure_is_of_fewer_images() -> None:
    table = comparison()
    first = table["explainer"].iloc[0]
    few = table.assign(n=np.where(table["explainer"] == first, 9, 24))
    counted, images = figures.with_counts(few, "average_drop")
    assert images == "24 images, or the number in brackets"
    labels = counted.groupby("explainer")["label"].first()
    before = table.groupby("explainer")["label"].first()
    assert labels[first] == f"{before[first]} (9)"
    assert (labels.drop(first) == before.drop(first)).all()
    assert figures.with_counts(table, "average_drop")[1] == "24 images"
    assert figures.with_counts(table, "gini")[1] == "no images"


def test_explainers_of_a_kind_stand_together_in_the_order_of_the_parameters(
    settings: params.Params,
) -> None:
    kinds = {"b": "baseline", "a": "CAM", "c": "trained", "d": "CAM", "e": "other", "f": "CAM"}
    project = project_of(settings, kinds, but="f")
    found = figures.describe_explainers(project, "net")
    assert found["label"].tolist() == ["C", "A", "D", "B", "E"]
    assert found["kind"].tolist() == ["trained", "CAM", "CAM", "baseline", "other"]
    table = pd.DataFrame({"backbone": ["net", "net", "far"], "explainer": ["b", "c", "c"]})
    assert figures.ordered(table, "net", found)["explainer"].tolist() == ["c", "b"]


@pytest.mark.parametrize(
    "figure, axes",
    [
        (lambda known: figures.points(comparison(), known, figures.CONFIDENCE), 6),
        (lambda known: figures.road(comparison(), known), 2 * 3),
        (lambda known: figures.quality_runtime(comparison(), SECONDS, known), 2),
        (lambda known: figures.randomisation(similarities(), known), 2),
        (lambda _: pictures(3), 2),
    ],
    ids=["confidence", "road", "quality_runtime", "randomisation", "heat_maps"],
)
def test_a_figure_has_its_panels_and_names_every_explainer_and_kind(
    known: Known, figure: Callable[[Known], Figure], axes: int
) -> None:
    drawn = figure(known)
    assert len(drawn.axes) == axes
    shown = texts(drawn)
    for name in [*LABELS, *KINDS]:
        assert any(text.removesuffix(f" {figures.UNCHANGED}") == name for text in shown), name


def test_rows_have_the_same_order_under_the_headings_of_their_kinds(known: Known) -> None:
    expected = ["trained", "Own", "CAM", "First map", "Second map", "baseline", "None at all"]
    assert [row.text for row in figures.rows_of(comparison())] == expected
    for figure in (
        figures.points(comparison(), known, figures.CONFIDENCE),
        figures.randomisation(similarities(), known),
    ):
        labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert [label.removesuffix(f" {figures.UNCHANGED}") for label in labels] == expected
        low, high = figure.axes[0].get_ylim()
        assert low > high


def test_points_and_intervals_stand_in_the_row_of_their_explainer(known: Known) -> None:
    table = comparison()
    panel = figures.points(table, known, figures.CONFIDENCE).axes[1]
    found = {tuple(p) for line in panel.lines for p in np.atleast_2d(line.get_xydata())}
    for place, label in zip((1, 3, 4, 6), EXPLAINERS["label"], strict=True):
        own = table[(table["label"] == label) & (table["metric"] == "average_drop")]
        assert (own.loc[own["level"] == 50, "value"].item(), place) in found


def test_measures_without_levels_have_a_panel_each(known: Known) -> None:
    table = long_form(WITHOUT_LEVELS, 0.5)
    figure = figures.points(table, known, ["iou_best", "gini"])
    assert [axis.get_title() for axis in figure.axes] == [
        "IoU, best\nthreshold ↑",
        "Gini sparseness ↑",
    ]
    assert [axis.get_xlabel() for axis in figure.axes] == ["%", "0 to 1"]
    assert figure.axes[0].get_xlim()[1] == pytest.approx(1.05 * 5)
    assert figure.axes[1].get_xlim()[1] == pytest.approx(1.05)
    found = {tuple(p) for line in figure.axes[1].lines for p in np.atleast_2d(line.get_xydata())}
    gini = table[table["metric"] == "gini"]["value"]
    assert found >= set(zip(gini, (1, 3, 4, 6), strict=True))


def test_first_explainer_is_in_every_panel_of_road(known: Known) -> None:
    for axis in figures.road(comparison(), known).axes:
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert [line.get_label() for line in dashed] == ["Own"]
        assert sum(line.get_label() == "Own" for line in axis.lines) == 1


def test_curves_that_are_the_same_in_both_orders_are_one(known: Known) -> None:
    table = comparison()
    own = table[table["explainer"] == "second"]
    twin = own.assign(explainer="twin", label="Twin")
    half = own.assign(explainer="half", label="Half")
    half.loc[half["metric"] == "road_lerf", "value"] += 1
    merged = figures.merge_same(pd.concat([table, twin, half]))
    assert set(merged["explainer"]) == {*table["explainer"], "half"}
    label = own["label"].iloc[0]
    assert set(merged.loc[merged["explainer"] == "second", "label"]) == {f"{label} =\nTwin"}
    assert "Half" in set(merged["label"])
    figure = figures.road(pd.concat([table, twin, half]), known)
    assert any(label in text and "= Twin" in text for text in texts(figure))


def test_pareto_front() -> None:
    cost = np.array([3.0, 1.0, 2.0, 1.0, 4.0, 5.0, 2.0])
    value = np.array([5.0, 9.0, 6.0, 8.0, 5.0, 1.0, 7.0])
    assert figures.pareto(cost, value) == [3, 2, 0, 5]
    corners = [[1, 8], [2, 8], [2, 6], [3, 6], [3, 5], [5, 5], [5, 1]]
    assert figures.staircase(cost, value).tolist() == corners


MEDIANS: dict[str, dict[str, float]] = {
    "own": {"seconds_1": 0.1, "seconds_8": 0.4, "ratio_8": 3.0},
    "first": {"ratio_1": 4.0, "ratio_8": 3.5, "images_forward": 1.0},
    "forward": {"seconds_1": 0.03, "seconds_8": 0.16},
}
"""`first` was timed on another machine than the rest."""


def test_seconds_are_an_image_of_the_largest_batch_where_there_are_any(
    settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = project_of(settings, {"own": "CAM"})
    assert figures.read_runtime(project, "net").to_dict() == {}
    results.write_json(results.RUNTIME / "medians.json", {"net": MEDIANS})
    assert figures.read_runtime(project, "net").to_dict() == {"own": 0.05, "forward": 0.02}
    assert figures.read_runtime(project, "other").to_dict() == {}


@pytest.mark.parametrize(
    ("medians", "drawn"),
    [
        (None, False),
        ({}, False),
        ({"net": {name: {"ratio_8": 3.0} for name in MEDIANS}}, False),
        ({"net": {"own": MEDIANS["own"]}}, False),
        ({"net": {"forward": MEDIANS["forward"], "own": {"ratio_8": 3.0}}}, False),
        ({"other": MEDIANS}, False),
        ({"net": MEDIANS}, True),
    ],
    ids=["none", "empty", "elsewhere", "no forward", "forward alone", "other backbone", "measured"],
)
def test_no_figure_shows_seconds_where_there_are_none(
    settings: params.Params,
    known: Known,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    medians: dict[str, Any] | None,
    drawn: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    project = project_of(settings, dict(zip(EXPLAINERS["explainer"], KINDS, strict=True)))
    tables = {"comparison": comparison(), "randomisation": similarities()}
    for name, table in tables.items():
        written = table.drop(columns=["label", "kind"]).assign(backbone="net")
        results.write_csv(results.TABLES / f"{name}.csv", written)
    for name in ("ablation", "ablation_seeds"):
        results.write_csv(results.TABLES / f"{name}.csv", pd.DataFrame(columns=["backbone"]))
    if medians is not None:
        results.write_json(results.RUNTIME / "medians.json", medians)
    every = {one.name: one for one in figures.drawings(project, known)}
    others = {f"net_{name}" for name in ("confidence", "road", "randomisation", "heat_maps")}
    assert set(every) == others | ({"net_quality_runtime"} if drawn else set())
    for name in others - {"net_heat_maps"}:
        assert not any("seconds" in text for text in texts(every[name].draw())), name


@pytest.mark.parametrize(
    ("metrics", "drawn"),
    [
        (("average_drop", "increase_in_confidence"), {"confidence", "quality_runtime"}),
        (("road_morf", "road_lerf"), {"road"}),
        (("road_morf", "road_lerf", "road_morf_mean"), {"road", "quality_runtime"}),
        (("average_gain",), set()),
        (("gini",), {"complexity"}),
        (("pointing_game", "iou_best", "tied_pixels"), {"localisation", "degeneracy"}),
    ],
)
def test_what_was_not_measured_is_not_drawn(
    settings: params.Params,
    known: Known,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metrics: tuple[str, ...],
    drawn: set[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    project = project_of(settings, dict(zip(EXPLAINERS["explainer"], KINDS, strict=True)))
    table = pd.concat([comparison(), long_form(WITHOUT_LEVELS, 1)])
    table = table[table["metric"].isin(metrics)]
    for name, own in (("comparison", table), ("randomisation", similarities())):
        written = own.drop(columns=["label", "kind"]).assign(backbone="net")
        results.write_csv(results.TABLES / f"{name}.csv", written)
    for name in ("ablation", "ablation_seeds"):
        results.write_csv(results.TABLES / f"{name}.csv", pd.DataFrame(columns=["backbone"]))
    results.write_json(results.RUNTIME / "medians.json", {"net": MEDIANS})
    every = {one.name: one for one in figures.drawings(project, known)}
    assert set(every) == {f"net_{name}" for name in drawn | {"randomisation", "heat_maps"}}
    if "quality_runtime" in drawn:
        assert len(every["net_quality_runtime"].draw().axes) == 1


def test_explainers_without_seconds_have_no_point(known: Known) -> None:
    seconds = SECONDS.drop("first")
    figure = figures.quality_runtime(comparison(), seconds, known)
    shown = texts(figure)
    assert "First map" not in shown
    for axis in figure.axes:
        assert len(axis.texts) == 3
        assert all(np.isfinite(line.get_xydata()).all() for line in axis.lines)
    alone = comparison().query("explainer != 'first'")
    points = [[line.get_xydata().tolist() for line in axis.lines] for axis in figure.axes]
    same = figures.quality_runtime(alone, seconds, known)
    assert points == [[line.get_xydata().tolist() for line in axis.lines] for axis in same.axes]


def test_baselines_stand_at_the_left_edge(known: Known) -> None:
    """Whatever their time, and no explainer moves."""
    table = comparison()
    table["kind"] = np.where(table["explainer"] == "first", "baseline", "CAM")
    drawn = []
    for time in (1e-6, 10.0):
        figure = figures.quality_runtime(table, pd.Series(dict(SECONDS) | {"first": time}), known)
        lines = [[line.get_xydata().tolist() for line in axis.lines] for axis in figure.axes]
        drawn.append([[point for line in own for point in line] for own in lines])
    assert drawn[0] == drawn[1]
    edge = SECONDS["forward"] / figures.EDGE
    assert all(edge in [point[0] for point in points] for points in drawn[0])


def test_boxes_and_lines() -> None:
    box = figures.boxes(np.array([[5.0, 5.0]]), 4.0)
    assert box.tolist() == [[3, 3, 7, 7]]
    assert figures.common(box, np.array([[6.0, 0, 9, 5], [7, 7, 8, 8]])).tolist() == [[2, 0]]
    lines = np.array([[[0, 0], [9, 9]], [[0, 0], [2, 2]], [[0, 5], [9, 5]], [[0, 8], [9, 8.0]]])
    assert figures.meet(lines, box)[:, 0].tolist() == [True, False, True, False]
    assert figures.cross(lines[:1], lines[2:]).tolist() == [[True, True]]
    assert figures.cross(lines[2:3], lines[1:]).tolist() == [[False, False, False]]


def overlaps(boxes: np.ndarray) -> bool:
    shared = figures.common(boxes, boxes)
    return bool((shared[~np.eye(len(boxes), dtype=bool)] > 1e-9).any())


def test_labels_of_a_crowd_do_not_overlap() -> None:
    points = 200 + 30 * np.random.default_rng(0).standard_normal((30, 2))
    sizes = np.array([(30.0 + 3 * (i % 10), 12.0) for i in range(30)])
    bounds, walls = np.array([0.0, 0.0, 400.0, 400.0]), np.array([[[200.0, 0.0], [200.0, 400.0]]])
    centres = figures.Labels(points, sizes, bounds, walls).place()
    found = figures.boxes(centres, sizes)
    assert overlaps(figures.boxes(points, sizes))
    assert not overlaps(found)
    assert (figures.common(found, figures.boxes(points, figures.MARKER)) == 0).all()
    assert ((found[:, :2] >= 0) & (found[:, 2:] <= 400)).all()
    assert np.array_equal(centres, figures.Labels(points, sizes, bounds, walls).place())


def test_labels_of_a_figure_do_not_overlap_either(known: Known) -> None:
    table = pd.concat(
        comparison().assign(
            explainer=lambda t, i=i: t["explainer"] + str(i),
            label=lambda t, i=i: t["label"] + str(i),
            value=lambda t, i=i: t["value"] + i,
        )
        for i in range(7)
    ).sort_values("kind", key=lambda k: k.map(list(drawing.STYLES).index), kind="stable")
    seconds = {
        f"{e}{i}": SECONDS[e] * (1 + i / 20) for e in EXPLAINERS["explainer"] for i in range(7)
    }
    figure = figures.quality_runtime(table, pd.Series(seconds | {"forward": 0.008}), known)
    figure.draw_without_rendering()
    for axis in figure.axes:
        extents = [Text.get_window_extent(text).extents for text in axis.texts]
        assert len(extents) == 28
        assert not overlaps(np.array(extents))


def test_who_does_not_change_is_marked(known: Known) -> None:
    shown = texts(figures.randomisation(similarities(), known))
    assert f"None at all {figures.UNCHANGED}" in shown
    assert sum(figures.UNCHANGED in text for text in shown) == 2  # and the note
    quiet = figures.randomisation(similarities().assign(unchanged=False), known)
    assert not any(figures.UNCHANGED in text for text in texts(quiet))


def test_cells_show_their_values(known: Known) -> None:
    table = similarities()
    values = {f"{value:.2f}" for value in table["value"]}
    assert values <= set(texts(figures.randomisation(table, known)))


def test_heat_maps_of_thirty_fit_a_page() -> None:
    many = pd.concat([EXPLAINERS] * 8).iloc[:29]
    for count in (4, 6):
        width, height = pictures(count, many).get_size_inches()
        assert width <= drawing.PORTRAIT
        assert height <= 17


def test_heat_maps_of_one_explainer() -> None:
    assert len(pictures(2, EXPLAINERS.iloc[:1]).axes) == 1


def test_mosaic_has_gaps_and_empty_rows() -> None:
    row = np.zeros((2, 5, 5, 3), np.uint8)
    whole = heat_maps.mosaic([row, row], 3)
    assert whole.shape == (3 * 5 + 2 * heat_maps.GAP, 2 * 5 + heat_maps.GAP, 3)
    assert (whole == 0).all(axis=2).sum() == 4 * 25


def test_same_bytes_twice(known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        drawn = figures.quality_runtime(comparison(), SECONDS, known)
        drawing.write(results.PLOTS / f"{name}_points", drawn, "Points.")
    monkeypatch.setattr(drawing, "LARGE", 1000)
    for name in ("first", "second"):
        drawing.write(results.PLOTS / f"{name}_pictures", pictures(2), "Pictures.")
    written = sorted(path.name for path in results.PLOTS.iterdir())
    assert len(written) == 12
    for name in written[:6]:
        again = results.PLOTS / name.replace("first", "second")
        assert (results.PLOTS / name).read_bytes() == again.read_bytes()


def test_large_figures_have_few_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "LARGE", 10**9)
    full = drawing.png(pictures(3, side=96))
    monkeypatch.setattr(drawing, "LARGE", 1000)
    small = drawing.png(pictures(3, side=96))
    assert len(small) < 0.6 * len(full)
    with Image.open(io.BytesIO(small)) as image, Image.open(io.BytesIO(full)) as before:
        assert image.size == before.size
        assert image.mode == "P"
        exact = set(zip(*[iter(image.getpalette() or [])] * 3, strict=True))
        assert exact >= {ImageColor.getrgb(colour) for colour, _ in drawing.STYLES.values()}


def test_text_of_a_pdf_stays_text(known: Known) -> None:
    """Fonts are embedded as TrueType, which editors and readers of papers can search."""
    drawn = drawing.pdf(figures.points(comparison(), known, figures.CONFIDENCE))
    assert drawn.startswith(b"%PDF")
    assert b"/FontFile2" in drawn
    assert b"CreationDate" not in drawn


def test_a_figure_is_wide_enough_for_200_dots_an_inch(known: Known) -> None:
    with Image.open(
        io.BytesIO(drawing.png(figures.points(comparison(), known, figures.CONFIDENCE)))
    ) as image:
        assert drawing.DPI >= 200
        assert image.width >= drawing.DPI * 8


def test_training_shows_the_terms_a_curve_has() -> None:
    curve = pd.DataFrame({"step": [0, 1, 2], "epoch": 0.0, "validation_ad": [50.0, np.nan, 40.0]})
    curve = curve.assign(learning_rate=0.1, loss=[np.nan, 2, 1], own_term=[np.nan, 2, 1])
    figure = figures.training(curve)
    assert len(figure.axes) == 3
    assert "own term (1 is 2)" in texts(figure)


@pytest.fixture
def study(settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An ablation study on two backbones."""
    monkeypatch.chdir(tmp_path)
    own = {
        "net": {
            "baseline": params.Variant(label="T-TAME"),
            "one": params.Variant(label="one layer", question="layers"),
            "sgd": params.Variant(label="SGD", question="optimiser"),
        },
        "other": {
            "baseline": params.Variant(label="T-TAME"),
            "two": params.Variant(label="two", question="layers"),
        },
    }
    return Project(settings.model_copy(update={"ablation": own}))


def test_a_question_has_its_variants_below_the_baseline_of_their_backbone(study: Project) -> None:
    found = figures.questions(study)
    assert list(found) == ["layers", "optimiser"]
    assert found["optimiser"][["backbone", "label"]].to_numpy().tolist() == [
        ["net", "T-TAME"],
        ["net", "SGD"],
    ]
    assert found["layers"]["label"].tolist() == ["T-TAME", "one layer", "T-TAME", "two"]


def test_ablation_shows_every_seed(study: Project, known: Known) -> None:
    own = figures.questions(study)["layers"]
    levels = [("average_drop", 50.0), ("increase_in_confidence", 50.0)]
    levels += [("road_morf_mean", np.nan), ("road_lerf_mean", np.nan)]
    rows = [
        (backbone, explainer, seed, metric, level, 10.0 * place + seed)
        for place, (backbone, explainer) in enumerate(
            own[["backbone", "explainer"]].itertuples(index=False)
        )
        for metric, level in levels
        for seed in range(3)
    ]
    key = ["backbone", "explainer", "metric", "level"]
    seeds = pd.DataFrame(
        rows, columns=["backbone", "explainer", "seed", "metric", "level", "value"]
    )
    mean = seeds.groupby(key, dropna=False)["value"].mean().reset_index()
    whole = mean.assign(low=mean["value"] - 2, high=mean["value"] + 2, n=3)
    figure = figures.ablation(own, whole, seeds, known)
    assert len(figure.axes) == 4
    assert {"one layer", "two", "net", "other"} <= set(texts(figure))
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert sorted(dots.get_xdata()) == [
        10 * place + seed for place in range(4) for seed in range(3)
    ]
    assert [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
