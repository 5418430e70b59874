"""Figures: every explainer is named, no label covers another, the same bytes every time."""

import io
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageColor
from skimage.color import rgb2lab

from benchmark import params, plots, store
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
SIMILARITIES = {"randomisation_ssim": [10.0, 100.0], "randomisation_rank": [10.0, 100.0]}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with mpl.rc_context(plots.style()):
        yield


def long_form(levels: dict[str, list[float]], scale: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(metric, level) for metric, at in levels.items() for level in at]
    table = EXPLAINERS.merge(pd.DataFrame(rows, columns=["metric", "level"]), how="cross")
    value = scale * rng.uniform(0.1, 0.9, len(table))
    return table.assign(value=value, low=value - scale / 20, high=value + scale / 20)


def comparison() -> pd.DataFrame:
    return long_form(LEVELS, 100)


def similarities() -> pd.DataFrame:
    return long_form(SIMILARITIES, 1).assign(unchanged=lambda t: t["explainer"] == "none")


def pictures(count: int, explainers: pd.DataFrame = EXPLAINERS, side: int = 32) -> Figure:
    rng = np.random.default_rng(0)
    images = rng.random((count, side, side, 3), np.float32)
    maps = [rng.random((count, 4, 4), np.float32) for _ in range(len(explainers))]
    return plots.heat_maps(explainers, [f"class {i}" for i in range(count)], images, maps)


def texts(figure: Figure) -> list[str]:
    """What can be read in a figure, without line breaks."""
    figure.draw_without_rendering()
    shown = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible()]
    return [text.get_text().replace("\n", " ") for text in shown]


def test_every_kind_has_its_colour_and_marker() -> None:
    assert list(plots.STYLES) == list(get_args(Kind))
    assert len(set(plots.STYLES.values())) == len(plots.STYLES)


def test_colours_differ_to_the_colour_blind() -> None:
    simulated = [  # Machado et al. 2009, severity 1: protanopia, deuteranopia, tritanopia
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ]
    colours = np.array([to_rgb(colour) for colour, _ in plots.STYLES.values()])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in [np.eye(3), *np.array(simulated)]:
        seen = (linear @ matrix.T).clip(0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = rgb2lab(seen[None])[0]
        assert all(np.linalg.norm(a - b) >= 25 for a, b in combinations(lab, 2))


def test_explainers_of_a_kind_stand_together_in_the_order_of_the_cells(
    settings: plots.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = settings.entry("cells", "vit_sample-gradcam")
    written = {"b": "baseline", "a": "CAM", "c": "trained", "d": "CAM", "e": None}
    for name, kind in written.items():
        cost = {"label": name.upper()} | ({"kind": kind} if kind else {})
        store.write_json(store.cost_path("net", name), cost)
    own = {n: cell.model_copy(update={"backbone": "net", "explainer": n}) for n in written}
    params = settings.model_copy(update={"cells": {"other": cell, **own}})
    found = plots.described(params, "net")
    assert found["label"].tolist() == ["C", "A", "D", "B", "E"]
    assert found["kind"].tolist() == ["trained", "CAM", "CAM", "baseline", "other"]
    table = pd.DataFrame({"backbone": ["net", "net", "far"], "explainer": ["b", "c", "c"]})
    assert plots.ordered(table, "net", found)["explainer"].tolist() == ["c", "b"]


@pytest.mark.parametrize(
    "figure, axes",
    [
        (lambda: plots.confidence(comparison()), 6),
        (lambda: plots.road(comparison()), 2 * 3),
        (lambda: plots.quality_runtime(comparison(), SECONDS), 2),
        (lambda: plots.randomisation(similarities()), 2),
        (lambda: pictures(3), 2),
    ],
    ids=["confidence", "road", "quality_runtime", "randomisation", "heat_maps"],
)
def test_a_figure_has_its_panels_and_names_every_explainer_and_kind(
    figure: Callable[[], Figure], axes: int
) -> None:
    drawn = figure()
    assert len(drawn.axes) == axes
    shown = texts(drawn)
    for name in [*LABELS, *KINDS]:
        assert any(text.removesuffix(f" {plots.UNCHANGED}") == name for text in shown), name


def test_rows_have_the_same_order_under_the_headings_of_their_kinds() -> None:
    expected = ["trained", "Own", "CAM", "First map", "Second map", "baseline", "None at all"]
    assert [row.text for row in plots.rows_of(comparison())] == expected
    for figure in (plots.confidence(comparison()), plots.randomisation(similarities())):
        labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert [label.removesuffix(f" {plots.UNCHANGED}") for label in labels] == expected
        low, high = figure.axes[0].get_ylim()
        assert low > high


def test_points_and_intervals_stand_in_the_row_of_their_explainer() -> None:
    table = comparison()
    panel = plots.confidence(table).axes[1]
    found = {tuple(p) for line in panel.lines for p in np.atleast_2d(line.get_xydata())}
    for place, label in zip((1, 3, 4, 6), EXPLAINERS["label"], strict=True):
        own = table[(table["label"] == label) & (table["metric"] == "average_drop")]
        assert (own.loc[own["level"] == 50, "value"].item(), place) in found


def test_first_explainer_is_in_every_panel_of_road() -> None:
    for axis in plots.road(comparison()).axes:
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert [line.get_label() for line in dashed] == ["Own"]
        assert sum(line.get_label() == "Own" for line in axis.lines) == 1


def test_pareto_front() -> None:
    cost = np.array([3.0, 1.0, 2.0, 1.0, 4.0, 5.0, 2.0])
    value = np.array([5.0, 9.0, 6.0, 8.0, 5.0, 1.0, 7.0])
    assert plots.pareto(cost, value) == [3, 2, 0, 5]
    corners = [[1, 8], [2, 8], [2, 6], [3, 6], [3, 5], [5, 5], [5, 1]]
    assert plots.staircase(cost, value).tolist() == corners


def test_boxes_and_lines() -> None:
    box = plots.boxes(np.array([[5.0, 5.0]]), 4.0)
    assert box.tolist() == [[3, 3, 7, 7]]
    assert plots.common(box, np.array([[6.0, 0, 9, 5], [7, 7, 8, 8]])).tolist() == [[2, 0]]
    lines = np.array([[[0, 0], [9, 9]], [[0, 0], [2, 2]], [[0, 5], [9, 5]], [[0, 8], [9, 8.0]]])
    assert plots.meet(lines, box)[:, 0].tolist() == [True, False, True, False]
    assert plots.cross(lines[:1], lines[2:]).tolist() == [[True, True]]
    assert plots.cross(lines[2:3], lines[1:]).tolist() == [[False, False, False]]


def overlaps(boxes: np.ndarray) -> bool:
    shared = plots.common(boxes, boxes)
    return bool((shared[~np.eye(len(boxes), dtype=bool)] > 1e-9).any())


def test_labels_of_a_crowd_do_not_overlap() -> None:
    points = 200 + 30 * np.random.default_rng(0).standard_normal((30, 2))
    sizes = np.array([(30.0 + 3 * (i % 10), 12.0) for i in range(30)])
    bounds, walls = np.array([0.0, 0.0, 400.0, 400.0]), np.array([[[200.0, 0.0], [200.0, 400.0]]])
    centres = plots.Labels(points, sizes, bounds, walls).place()
    found = plots.boxes(centres, sizes)
    assert overlaps(plots.boxes(points, sizes))
    assert not overlaps(found)
    assert (plots.common(found, plots.boxes(points, plots.MARKER)) == 0).all()
    assert ((found[:, :2] >= 0) & (found[:, 2:] <= 400)).all()
    assert np.array_equal(centres, plots.Labels(points, sizes, bounds, walls).place())


def test_labels_of_a_figure_do_not_overlap_either() -> None:
    table = pd.concat(
        comparison().assign(
            explainer=lambda t, i=i: t["explainer"] + str(i),
            label=lambda t, i=i: t["label"] + str(i),
            value=lambda t, i=i: t["value"] + i,
        )
        for i in range(7)
    ).sort_values("kind", key=lambda k: k.map(list(plots.STYLES).index), kind="stable")
    seconds = {
        f"{e}{i}": SECONDS[e] * (1 + i / 20) for e in EXPLAINERS["explainer"] for i in range(7)
    }
    figure = plots.quality_runtime(table, pd.Series(seconds | {"forward": 0.008}))
    figure.draw_without_rendering()
    for axis in figure.axes:
        extents = [Text.get_window_extent(text).extents for text in axis.texts]
        assert len(extents) == 28
        assert not overlaps(np.array(extents))


def test_who_does_not_change_is_marked() -> None:
    shown = texts(plots.randomisation(similarities()))
    assert f"None at all {plots.UNCHANGED}" in shown
    assert sum(plots.UNCHANGED in text for text in shown) == 2  # and the note
    quiet = plots.randomisation(similarities().assign(unchanged=False))
    assert not any(plots.UNCHANGED in text for text in texts(quiet))


def test_cells_show_their_values() -> None:
    table = similarities()
    values = {f"{value:.2f}" for value in table["value"]}
    assert values <= set(texts(plots.randomisation(table)))


def test_heat_maps_of_thirty_fit_a_page() -> None:
    many = pd.concat([EXPLAINERS] * 8).iloc[:29]
    for count in (4, 6):
        width, height = pictures(count, many).get_size_inches()
        assert width <= plots.PORTRAIT
        assert height <= 17


def test_heat_maps_of_one_explainer() -> None:
    assert len(pictures(2, EXPLAINERS.iloc[:1]).axes) == 1


def test_mosaic_has_gaps_and_empty_rows() -> None:
    row = np.zeros((2, 5, 5, 3), np.uint8)
    whole = plots.mosaic([row, row], 3)
    assert whole.shape == (3 * 5 + 2 * plots.GAP, 2 * 5 + plots.GAP, 3)
    assert (whole == 0).all(axis=2).sum() == 4 * 25


def test_same_bytes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        plots.save(plots.quality_runtime(comparison(), SECONDS), f"{name}_points")
    monkeypatch.setattr(plots, "LARGE", 1000)
    for name in ("first", "second"):
        plots.save(pictures(2), f"{name}_pictures")
    written = sorted(path.name for path in store.PLOTS.iterdir())
    assert len(written) == 8
    for name in written[:4]:
        again = store.PLOTS / name.replace("first", "second")
        assert (store.PLOTS / name).read_bytes() == again.read_bytes()


def test_large_figures_have_few_colours_and_photographs_are_jpeg(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = plots.png(pictures(3, side=96))
    monkeypatch.setattr(plots, "LARGE", 1000)
    small = plots.png(pictures(3, side=96))
    assert len(small) < 0.6 * len(full)
    with Image.open(io.BytesIO(small)) as image, Image.open(io.BytesIO(full)) as before:
        assert image.size == before.size
        assert image.mode == "P"
        exact = set(zip(*[iter(image.getpalette() or [])] * 3, strict=True))
        assert exact >= {ImageColor.getrgb(colour) for colour, _ in plots.STYLES.values()}
    drawn = plots.svg(pictures(3)).decode()
    assert drawn.count("data:image/jpeg;base64,") == 2
    assert "image/png" not in drawn
    ElementTree.fromstring(drawn)


def test_training_shows_the_terms_a_curve_has() -> None:
    curve = pd.DataFrame({"step": [0, 1, 2], "epoch": 0.0, "validation_ad": [50.0, np.nan, 40.0]})
    curve = curve.assign(learning_rate=0.1, loss=[np.nan, 2, 1], own_term=[np.nan, 2, 1])
    figure = plots.training(curve)
    assert len(figure.axes) == 3
    assert "own term (max 2)" in texts(figure)


def variants() -> params.Params:
    spec = {"explainer": "ttame", "needs": "x"}
    own = {
        "net-baseline": params.Variant(backbone="net", label="T-TAME", **spec),
        "net-one": params.Variant(backbone="net", label="one layer", question="layers", **spec),
        "net-sgd": params.Variant(backbone="net", label="SGD", question="optimiser", **spec),
        "other-baseline": params.Variant(backbone="other", label="T-TAME", **spec),
        "other-two": params.Variant(backbone="other", label="two", question="layers", **spec),
    }
    loaded = params.load(Path(__file__).parents[2] / "params.yaml")
    return loaded.model_copy(update={"ablation": own})


def test_a_question_has_its_variants_below_the_baseline_of_their_backbone() -> None:
    found = plots.questions(variants())
    assert list(found) == ["layers", "optimiser"]
    assert found["optimiser"][["backbone", "label"]].to_numpy().tolist() == [
        ["net", "T-TAME"],
        ["net", "SGD"],
    ]
    assert found["layers"]["label"].tolist() == ["T-TAME", "one layer", "T-TAME", "two"]


def test_ablation_shows_every_seed() -> None:
    own = plots.questions(variants())["layers"]
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
    figure = plots.ablation(own, mean.assign(low=mean["value"] - 2, high=mean["value"] + 2), seeds)
    assert len(figure.axes) == 4
    assert {"one layer", "two", "net", "other"} <= set(texts(figure))
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert sorted(dots.get_xdata()) == [
        10 * place + seed for place in range(4) for seed in range(3)
    ]
    assert [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
