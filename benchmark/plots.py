"""Every figure under results/plots/, as PNG and SVG with stable bytes.

A table here has one row an explainer and value: explainer, label and kind, in the order of the
figures, and metric, level, value, low and high as in results/tables/.
"""

import base64
import io
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.rcsetup import cycler
from numpy.typing import NDArray
from PIL import Image, ImageColor

import metrics
from benchmark import store
from benchmark.images import read_split
from benchmark.params import Params
from benchmark.stage import run
from metrics import Maps

Floats = NDArray[np.floating[Any]]

WIDTH = 9.0
"""Inches: readable at half size, that is in one column of a paper."""

PAGE = 13.5
"""Inches: the width of a slide."""

PORTRAIT = 10.5
"""Inches: the width of what stands on a page alone."""

ROW = 0.27
"""Inches: the height of a row of an explainer."""

ARROWS = {True: "↑", False: "↓"}
"""The good direction of a measure, by `higher_is_better`."""

DPI = 110

LARGE = 600_000
"""Bytes of a PNG from which on it has few colours."""

THUMBNAIL = 96
"""Side of the pictures in the grid of heat maps, at most, in pixels of the figure."""

GAP = 4
"""Pixels between these."""

STYLES = {
    "trained": ("#ec5b17", "o"),
    "CAM": ("#1c48bf", "s"),
    "gradient": ("#088c54", "^"),
    "perturbation": ("#883500", "D"),
    "attention": ("#8e3a8e", "v"),
    "baseline": ("#48474a", "X"),
    "other": ("#00bbff", "P"),
}
"""Colour and marker of the kinds of explainers, in the order in which they stand everywhere.

However one sees colours, any two differ by 25 or more in CIELAB (Machado et al. 2009).
"""

LINES = [
    "#332288", "#cc6677", "#117733", "#88ccee", "#999933", "#882255", "#44aa99", "#aa4499",
    "#ddcc77", "#666666",
]  # fmt: skip
"""Colours of the explainers of one kind: the palette "muted" of Tol (2021)."""

MARKERS = "osD^vP*X<>hdp8"
"""Their markers."""

UNCHANGED = "≡"
"""Marks explainers whose maps hardly change with the network's weights."""

MARKER = 8.0
"""Size of the points of a scatter plot."""

NAME = 11
"""Font size of the labels in it."""

CONFIDENCE = ("average_drop", "increase_in_confidence")
"""The measures under masking that the figures show."""

QUALITY = {"average_drop": 50.0, "road_morf_mean": None}
"""Measures shown against the runtime, and their level; lower is better."""


def main(params: Params) -> None:
    """Write every figure."""
    with mpl.rc_context(style()):
        comparison = store.read_table(store.TABLES / "comparison.csv")
        similarity = store.read_table(store.TABLES / "randomisation.csv")
        for backbone in dict.fromkeys(cell.backbone for cell in params.cells.values()):
            explainers = described(params, backbone)
            table = ordered(comparison, backbone, explainers)
            save(confidence(table), f"{backbone}_confidence")
            save(road(table), f"{backbone}_road")
            save(quality_runtime(table, read_runtime(backbone)), f"{backbone}_quality_runtime")
            shuffled = ordered(similarity, backbone, explainers)
            save(randomisation(shuffled), f"{backbone}_randomisation")
            examples = read_examples(backbone, explainers, params.plots.grid_images)
            save(heat_maps(explainers, *examples), f"{backbone}_heat_maps")
        variants = store.read_table(store.TABLES / "ablation.csv")
        seeds = store.read_table(store.TABLES / "ablation_seeds.csv")
        for question, own in questions(params).items():
            save(ablation(own, variants, seeds), f"ablation_{question}")
        for head in (head for head in params.heads.values() if head.checkpoint is None):
            curve = store.read_table(store.curve_path(head.backbone, head.explainer))
            save(training(curve), f"{head.backbone}_{head.explainer}_training")


def style() -> Any:
    """Matplotlib's settings for every figure: the font ships with it, SVG has stable names."""
    return {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook"),
        "axes.prop_cycle": cycler(color=sns.color_palette("colorblind")),
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
        "svg.hashsalt": "benchmark",
        "svg.fonttype": "none",
        "figure.dpi": DPI,
    }


def described(params: Params, backbone: str) -> pd.DataFrame:
    """Explainer, label and kind of the cells of a backbone, those of a kind together."""
    rows = []
    for cell in params.cells.values():
        if cell.backbone == backbone:
            cost = store.read_json(store.cost_path(backbone, cell.explainer))
            rows.append((cell.explainer, cost["label"], cost.get("kind", "other")))
    table = pd.DataFrame(rows, columns=["explainer", "label", "kind"])
    return table.sort_values("kind", key=lambda k: k.map(list(STYLES).index), kind="stable")


def ordered(table: pd.DataFrame, backbone: str, explainers: pd.DataFrame) -> pd.DataFrame:
    """The rows of a backbone with label and kind, in the order of `explainers`."""
    return explainers.merge(table[table["backbone"] == backbone], on="explainer")


def each(table: pd.DataFrame) -> pd.DataFrame:
    """One row an explainer: its name, label and kind."""
    return table.drop_duplicates("explainer")[["explainer", "label", "kind"]]


def at(table: pd.DataFrame, metric: str, level: float | None) -> pd.DataFrame:
    """The rows of a measure at a level, or of its mean over levels (level None)."""
    levels = table["level"].isna() if level is None else table["level"] == level
    return table[(table["metric"] == metric) & levels]


def save(figure: Figure, name: str) -> None:
    """Write a figure to results/plots/."""
    write(store.PLOTS / name, figure)


def write(path: Path, figure: Figure) -> None:
    """Write a figure as PNG and SVG, to a path without suffix."""
    for suffix, drawn in ((".png", png(figure)), (".svg", svg(figure))):
        with store.replacing(path.with_name(path.name + suffix)) as beside:
            beside.write_bytes(drawn)


def render(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    """A figure in one format, without date or version, so that its bytes are stable."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, bbox_inches="tight", dpi=DPI, metadata=metadata)
    return drawn.getvalue()


def png(figure: Figure) -> bytes:
    """A figure as PNG; a large one in 256 colours, a third of the size, those of STYLES exact."""
    drawn = render(figure, "png", {"Software": None})
    if len(drawn) < LARGE:
        return drawn
    full = Image.open(io.BytesIO(drawn)).convert("RGB")
    sample = full.resize((full.width // 2, full.height // 2), Image.Resampling.NEAREST)
    fixed = [channel for colour, _ in STYLES.values() for channel in ImageColor.getrgb(colour)]
    few = sample.quantize(256 - len(STYLES), kmeans=1)
    few.putpalette([*(few.getpalette() or [])[: 768 - len(fixed)], *fixed])
    found = io.BytesIO()
    dithered = full.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
    dithered.save(found, format="png", optimize=True)
    return found.getvalue()


def svg(figure: Figure) -> bytes:
    """A figure as SVG, its photographs as JPEG."""

    def jpeg(match: re.Match[bytes]) -> bytes:
        found = io.BytesIO()
        image = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGB")
        image.save(found, format="jpeg", quality=90, subsampling=0)
        return b"data:image/jpeg;base64," + base64.b64encode(found.getvalue())

    drawn = render(figure, "svg", {"Date": None})
    return re.sub(rb"data:image/png;base64,([A-Za-z0-9+/=\s]+)", jpeg, drawn)


def canvas(
    rows: int, columns: int, height: float, width: float = WIDTH, **subplots: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure of `rows` x `columns` axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False, **subplots))


def interval(rows: pd.DataFrame) -> Floats:
    """Distances of the interval's ends from the value, (2, n)."""
    return np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(0)


def titled(measure: str) -> str:
    """A measure's label with its good direction."""
    found = metrics.measures()[measure]
    return f"{found.label} {ARROWS[found.higher_is_better]}"


class Row(NamedTuple):
    """A row of a figure: an explainer, or the heading of those of a kind (explainer None)."""

    text: str
    kind: str
    explainer: str | None = None


def rows_of(table: pd.DataFrame) -> list[Row]:
    """The explainers of a table under the headings of their kinds."""
    rows: list[Row] = []
    for own in each(table).itertuples():
        if not rows or rows[-1].kind != own.kind:
            rows.append(Row(own.kind, own.kind))
        rows.append(Row(own.label, own.kind, own.explainer))
    return rows


def label_rows(axes: Sequence[Axes], rows: list[Row]) -> None:
    """Label the rows of axes that stand side by side, at y = 0, 1, ... from the top."""
    for axis in axes:
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(range(len(rows)), [row.text for row in rows])
        axis.tick_params(axis="y", length=0, labelleft=axis is axes[0])
        axis.grid(False, axis="y")
    for row, text in zip(rows, axes[0].get_yticklabels(), strict=True):
        if row.explainer is None:
            text.set(color=STYLES[row.kind][0], fontweight="bold")


def confidence(table: pd.DataFrame) -> Figure:
    """AD and IC with intervals: a row an explainer, a column a measure and level."""
    rows = rows_of(table)
    places = {row.explainer: i for i, row in enumerate(rows)}
    shown = [(name, level) for name in CONFIDENCE for level in levels_of(table, name)]
    figure, axes = canvas(1, len(shown), 1.2 + ROW * len(rows), 2.2 + 1.55 * len(shown))
    for axis, (name, level) in zip(axes[0], shown, strict=True):
        own = at(table, name, level)
        for kind, block in own.groupby("kind", sort=False):
            colour, marker = STYLES[str(kind)]
            y = block["explainer"].map(places)
            points = {"fmt": marker, "color": colour, "ms": 6, "elinewidth": 1.6}
            axis.errorbar(block["value"], y, xerr=interval(block), **points)
        top = 5 * max(1, math.ceil(table.loc[table["metric"] == name, "high"].max() / 5))
        axis.set(title=f"{titled(name)} at {level:g} %", xlabel="%", xlim=(-0.05 * top, 1.05 * top))
        for i, row in enumerate(rows):
            if row.explainer is not None:
                axis.axhline(i, color="0.92", lw=0.8, zorder=0)
    label_rows(axes[0], rows)
    return figure


def road(table: pd.DataFrame) -> Figure:
    """ROAD curves, MoRF above and LeRF below, a column a kind.

    The first explainer's curve, with its interval, is in every panel.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    first = each(table).iloc[0]
    height = 6 + 0.22 * each(table)["kind"].value_counts().max()
    width = max(WIDTH, 2.4 * len(kinds))
    figure, axes = canvas(2, len(kinds), height, width, sharex=True, sharey=True)
    for row, name in enumerate(("road_morf", "road_lerf")):
        curves = table[table["metric"] == name]
        reference = curves[curves["explainer"] == first["explainer"]]
        for axis, kind in zip(axes[row], kinds, strict=True):
            axis.fill_between(*reference[["level", "low", "high"]].to_numpy().T, color="0.9")
            axis.plot(
                reference["level"], reference["value"], "k--", lw=2, zorder=3, label=first["label"]
            )
            draw_curves(axis, curves[curves["kind"] == kind], first["explainer"])
        axes[row, 0].set_ylabel(f"{titled(name)}, % unchanged")
    axes[0, 0].set(xlim=(0, 100), ylim=(-3, 103), xticks=range(0, 101, 25))
    for top, bottom, kind in zip(*axes, kinds, strict=True):
        top.set_title(kind, color=STYLES[kind][0], fontweight="bold")
        bottom.set_xlabel("% of pixels removed")
        bottom.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, handlelength=1.6
        )
    return figure


def draw_curves(axis: Axes, curves: pd.DataFrame, but: str) -> None:
    """A line an explainer, except one."""
    shown = curves[curves["explainer"] != but].groupby("explainer", sort=False)
    for i, (_, own) in enumerate(shown):
        axis.plot(
            own["level"], own["value"], label=own["label"].iloc[0], lw=1.5, ms=6,
            color=LINES[i % len(LINES)], marker=MARKERS[i % len(MARKERS)],
        )  # fmt: skip


def read_runtime(backbone: str) -> pd.Series:
    """Median seconds an image, of the largest batch timed, by explainer."""
    medians = store.read_json(store.RUNTIME / "medians.json")[backbone]
    seconds = {}
    for explainer, times in medians.items():
        size = max(int(key.removeprefix("seconds_")) for key in times if key.startswith("seconds_"))
        seconds[explainer] = times[f"seconds_{size}"] / size
    return pd.Series(seconds)


def quality_runtime(table: pd.DataFrame, seconds: pd.Series) -> Figure:
    """AD and ROAD MoRF against the seconds an image, with the Pareto front."""
    figure, axes = canvas(1, len(QUALITY), 7.4, PAGE)
    drawn = []
    for axis, (name, level) in zip(axes[0], QUALITY.items(), strict=True):
        rows = at(table, name, level).assign(seconds=lambda t: t["explainer"].map(seconds))
        front = staircase(rows["seconds"].to_numpy(), rows["value"].to_numpy())
        axis.plot(*front.T, "0.45", lw=1, zorder=1)
        axis.axvline(seconds["forward"], color="0.45", ls=":", zorder=1)
        for kind, own in rows.groupby("kind", sort=False):
            colour, marker = STYLES[str(kind)]
            look: dict[str, Any] = {"color": colour, "ms": MARKER, "mec": "w", "zorder": 3}
            axis.plot(own["seconds"], own["value"], marker, **look)
        title = titled(name.removesuffix("_mean"))
        title += ", mean over levels" if level is None else f" at {level:g} %"
        axis.set(xscale="log", xlabel="seconds an image", ylabel="%", title=title)
        axis.margins(0.06)
        drawn.append((rows, front))
    handles = [marker_of(kind) for kind in dict.fromkeys(table["kind"])]
    handles += [Line2D([], [], color="0.45", lw=1, label="Pareto front")]
    handles += [Line2D([], [], color="0.45", ls=":", label="bare forward pass")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    settle(figure)
    for axis, (rows, front) in zip(axes[0], drawn, strict=True):
        name_points(axis, rows, front, seconds["forward"])
    return figure


def staircase(cost: Floats, value: Floats) -> Floats:
    """(n, 2), the Pareto front: the best value of each cost."""
    best = pareto(cost, value)
    return np.stack([np.repeat(cost[best], 2)[1:], np.repeat(value[best], 2)[:-1]], axis=1)


def marker_of(kind: str) -> Line2D:
    """A kind's entry in a legend."""
    colour, marker = STYLES[kind]
    return Line2D([], [], color=colour, marker=marker, ms=8, ls="", label=kind)


def pareto(cost: Floats, value: Floats) -> list[int]:
    """Indices of the points that no other beats in both, the cheapest first; lower is better."""
    best: list[int] = []
    for i in np.lexsort((value, cost)):
        if not best or value[i] < value[best[-1]]:
            best.append(int(i))
    return best


def settle(figure: Figure) -> None:
    """Lay a figure out and keep the layout, so that what is drawn next can build on it."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def name_points(axis: Axes, rows: pd.DataFrame, front: Floats, forward: float) -> None:
    """Write the explainers beside their points in settled axes, clear of the lines."""
    figure: Any = axis.get_figure()
    unit = 72 / figure.dpi
    points = unit * axis.transData.transform(rows[["seconds", "value"]].to_numpy())
    corners = unit * axis.transData.transform(front)
    upright = unit * axis.transData.transform([(forward, end) for end in axis.get_ylim()])
    walls = np.concatenate([np.stack([corners[:-1], corners[1:]], axis=1), upright[None]])
    sizes = unit * np.array([size_of(figure, label) for label in rows["label"]])
    centres = Labels(points, sizes, unit * np.array(axis.bbox.extents), walls).place()
    for row, point, size, centre in zip(rows.itertuples(), points, sizes, centres, strict=True):
        gap = np.linalg.norm((np.abs(centre - point) - size / 2).clip(0))
        line = {"arrowstyle": "-", "color": "0.6", "lw": 0.8, "shrinkA": 0, "shrinkB": 4}
        axis.annotate(
            row.label, (row.seconds, row.value), xytext=centre - point, fontsize=NAME,
            textcoords="offset points", ha="center", va="center", color=STYLES[row.kind][0],
            arrowprops=line if gap > MARKER else None, zorder=2,
        )  # fmt: skip


def size_of(figure: Figure, label: str) -> tuple[float, float]:
    """Width and height of a label in pixels, with a space to the next."""
    text = figure.text(0, 0, label, fontsize=NAME)
    box = text.get_window_extent()
    text.remove()
    return box.width + box.height / 4, box.height


class Labels:
    """Labels beside the points they name, each with a line to its point.

    Args:
        points: (n, 2).
        sizes: (n, 2), width and height of the labels, in the unit of the points (1/72 inch).
        bounds: (4,), left, bottom, right and top.
        walls: (m, 2, 2), lines that labels had better not cover.
    """

    def __init__(self, points: Floats, sizes: Floats, bounds: Floats, walls: Floats) -> None:
        self.points, self.sizes, self.bounds, self.walls = points, sizes, bounds, walls
        self.centres = points.copy()
        self.placed: list[int] = []

    def place(self, sweeps: int = 4, crowd: float = 40) -> Floats:
        """Centres (n, 2) within bounds, not on each other, as near to the points as they can.

        Greedy, crowded points first, then improved in sweeps; the same each time.
        """
        angles, reach = np.meshgrid(np.arange(24) * np.pi / 12, 6 * 1.2 ** np.arange(20))
        turns = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(-1, 2)
        near = np.linalg.norm(self.points[:, None] - self.points, axis=-1) < crowd
        for label in np.tile(np.argsort(-near.sum(axis=1), kind="stable"), sweeps):
            self.placed = [other for other in self.placed if other != label]
            half = self.sizes[label] / 2
            candidates = self.points[label] + turns * (reach.reshape(-1, 1) + half)
            costs = (self.covered, self.tangled, self.mistaken)
            cost = reach.ravel() + sum(of(label, candidates) for of in costs)
            self.centres[label] = candidates[np.argmin(cost)]
            self.placed.append(label)
        return self.centres

    def covered(self, label: int, candidates: Floats) -> Floats:
        """The cost of what a label covers at each of the candidates (n, 2), or of its overhang."""
        own = boxes(candidates, self.sizes[label])
        labels = boxes(self.centres[self.placed], self.sizes[self.placed])
        outside = np.prod(self.sizes[label]) - common(own, self.bounds[None]).sum(axis=1)
        on_points = common(own, boxes(self.points, MARKER)).sum(axis=1)
        area: Floats = common(own, labels).sum(axis=1) + on_points + outside
        return 100 * area

    def tangled(self, label: int, candidates: Floats) -> Floats:
        """The cost of crossing lines and of lines through labels and points."""
        point, rest = self.points[label], np.delete(self.points, label, axis=0)
        labels = boxes(self.centres[self.placed], self.sizes[self.placed])
        own = np.stack([np.broadcast_to(point, candidates.shape), candidates], axis=1)
        lines = np.stack([self.points[self.placed], self.centres[self.placed]], axis=1)
        crossings = cross(own, lines).sum(axis=1)
        through = meet(own, np.concatenate([labels, boxes(rest, MARKER)])).sum(axis=1)
        around = boxes(candidates, self.sizes[label])
        under = meet(lines, around).sum(axis=0) + 0.5 * meet(self.walls, around).sum(axis=0)
        cost: Floats = 40 * (crossings + through + under)
        return cost

    def mistaken(self, label: int, candidates: Floats) -> Floats:
        """The cost of standing as near to other points as to the own one."""
        beyond = np.abs(candidates[:, None] - self.points) - self.sizes[label] / 2
        gaps = np.linalg.norm(beyond.clip(0), axis=-1)
        near: Floats = 8.0 * ((gaps < gaps[:, [label]] + 3).sum(axis=1) - 1)
        return near


def boxes(centres: Floats, sizes: Floats | float) -> Floats:
    """(n, 4), left, bottom, right and top of boxes of a size around centres (n, 2)."""
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)


def common(first: Floats, second: Floats) -> Floats:
    """(n, m), the areas that boxes (n, 4) and (m, 4) share."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    areas: Floats = np.prod((high - low).clip(0), axis=-1)
    return areas


def meet(lines: Floats, areas: Floats) -> NDArray[np.bool_]:
    """(n, m), which of the lines (n, 2, 2) run through which of the boxes (m, 4)."""
    start, along = lines[:, None, 0], lines[:, None, 1] - lines[:, None, 0]
    along = np.where(along == 0, 1e-9, along)
    first, second = ((areas[None, :, ends] - start) / along for ends in ([0, 1], [2, 3]))
    enter = np.minimum(first, second).max(axis=-1).clip(0)
    leave = np.maximum(first, second).min(axis=-1).clip(max=1)
    found: NDArray[np.bool_] = enter < leave
    return found


def cross(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """(n, m), which of the lines (n, 2, 2) and (m, 2, 2) cross."""

    def apart(lines: Floats, others: Floats) -> NDArray[np.bool_]:
        """(n, m), whether the ends of the others lie on the two sides of a line."""
        along = lines[:, 1] - lines[:, 0]
        to = others[None] - lines[:, None, None, 0]
        side = along[:, None, None, 0] * to[..., 1] - along[:, None, None, 1] * to[..., 0]
        split: NDArray[np.bool_] = side[..., 0] * side[..., 1] < 0
        return split

    return apart(first, second) & apart(second, first).T


def randomisation(table: pd.DataFrame) -> Figure:
    """Similarity to the maps of the trained network, by the share of layers randomised."""
    unchanged = set(table.loc[table["unchanged"].astype(bool), "explainer"])
    rows = [
        row._replace(text=f"{row.text} {UNCHANGED}") if row.explainer in unchanged else row
        for row in rows_of(table)
    ]
    levels = sorted(table["level"].unique())
    titles = {"randomisation_ssim": "SSIM", "randomisation_rank": "rank correlation"}
    width = 2.6 + 0.8 * len(titles) * len(levels)
    figure, axes = canvas(1, len(titles), 1.8 + ROW * len(rows), width)
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        own = table[table["metric"] == name].pivot_table(
            index="explainer", columns="level", values="value", dropna=False
        )
        draw_cells(axis, own.reindex([row.explainer for row in rows])[levels].to_numpy())
        axis.set(title=title, xlabel="% of the layers\nrandomised")
        axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    label_rows(axes[0], rows)
    if unchanged:
        figure.supxlabel(f"{UNCHANGED}  maps hardly change with the network's weights", fontsize=11)
    return figure


def draw_cells(axis: Axes, values: Floats) -> None:
    """Shares of one (rows, columns) as shades with numbers; rows of NaN stay empty."""
    edges = [np.arange(length + 1) - 0.5 for length in values.shape]
    axis.pcolormesh(edges[1], edges[0], values, vmin=0, vmax=1, cmap="Blues", ec="w", lw=1)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            look: dict[str, Any] = {"color": "w" if value > 0.65 else "0.15", "fontsize": 10.5}
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", **look)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def questions(params: Params) -> dict[str, pd.DataFrame]:
    """The variants of T-TAME behind each question of the ablation study, baselines first.

    Returns:
        question to a table of backbone, explainer (the variant's name) and label.
    """
    rows = [
        (v.question, v.backbone, key.removeprefix(f"{v.backbone}-"), v.label)
        for key, v in params.ablation.items()
    ]
    table = pd.DataFrame(rows, columns=["question", "backbone", "explainer", "label"])
    found = {}
    for question in table["question"].dropna().unique():
        own = table[table["question"] == question]
        baselines = table["question"].isna() & table["backbone"].isin(own["backbone"])
        whole = pd.concat([table[baselines], own])
        found[question] = whole.sort_values("backbone", kind="stable").drop(columns="question")
    return found


def ablation(variants: pd.DataFrame, table: pd.DataFrame, seeds: pd.DataFrame) -> Figure:
    """The variants behind one question: a point a seed, the mean with its interval over seeds.

    Args:
        variants: of `questions`.
        table: means and intervals over seeds, results/tables/ablation.csv.
        seeds: the means of every seed, results/tables/ablation_seeds.csv.
    """
    texts: list[str] = []
    places: list[int] = []
    for backbone, own in variants.groupby("backbone", sort=False):
        places += range(len(texts) + 1, len(texts) + 1 + len(own))
        texts += [str(backbone), *own["label"]]
    variants = variants.assign(place=places)
    table, seeds = (t.merge(variants, on=["backbone", "explainer"]) for t in (table, seeds))
    shown: list[tuple[str, float | None]] = [
        (name, level) for name in CONFIDENCE for level in levels_of(table, name)
    ]
    shown += [("road_morf_mean", None), ("road_lerf_mean", None)]
    figure, axes = canvas(1, len(shown), 1.1 + 0.4 * len(texts), 2.4 + 1.45 * len(shown))
    for axis, (name, level) in zip(axes[0], shown, strict=True):
        own, dots = at(table, name, level), at(seeds, name, level)
        base = own.groupby("backbone")["place"].transform("min") == own["place"]
        for rows, colour in ((own[base], "0.35"), (own[~base], STYLES["trained"][0])):
            points = {"fmt": "o", "color": colour, "ms": 7, "elinewidth": 1.6, "zorder": 3}
            axis.errorbar(rows["value"], rows["place"], xerr=interval(rows), **points)
        axis.plot(dots["value"], dots["place"], "|", color="k", ms=13, mew=1.4, zorder=4)
        at_level = "" if level is None else f" at {level:g} %"
        axis.set(title=f"{titled(name.removesuffix('_mean'))}{at_level}", xlabel="%")
        axis.set_ylim(len(texts) - 0.5, -0.5)
        axis.set_yticks(range(len(texts)), texts)
        axis.tick_params(axis="y", length=0, labelleft=axis is axes[0, 0])
        axis.grid(False, axis="y")
    for place, text in enumerate(axes[0, 0].get_yticklabels()):
        text.set_fontweight("normal" if place in places else "bold")
    return figure


def levels_of(table: pd.DataFrame, metric: str) -> list[float]:
    """The levels of a measure, the highest first."""
    return sorted(table.loc[table["metric"] == metric, "level"].unique(), reverse=True)


def training(curve: pd.DataFrame) -> Figure:
    """The loss, its terms, and the validation AD of one training run."""
    terms = curve.columns[curve.columns.get_loc("loss") :]
    figure, axes = canvas(1, 3, height=3.6)
    axes[0, 0].plot(curve["step"], curve["loss"])
    axes[0, 0].set(title="loss", xlabel="step")
    for i, term in enumerate(terms[1:], start=1):
        scaled = curve[term] / curve[term].max()
        label = f"{term.replace('_', ' ')} (max {curve[term].max():.3g})"
        axes[0, 1].plot(curve["step"], scaled, label=label, color=sns.color_palette()[i])
    axes[0, 1].set(title="terms, as share of their maximum", xlabel="step", ylim=(0, 1.55))
    axes[0, 1].legend(fontsize="x-small", loc="upper right")
    held_out = curve.dropna(subset=["validation_ad"])
    axes[0, 2].plot(held_out["step"], held_out["validation_ad"], marker="o")
    axes[0, 2].set(title="validation AD at 100 %", xlabel="step", ylim=(0, None))
    return figure


def read_examples(
    backbone: str, explainers: pd.DataFrame, count: int
) -> tuple[list[str], Floats, list[Floats]]:
    """Class names, images (n, H, W, 3) and the maps (n, h, w) of each explainer, of a few images.

    They are spread over the evaluation split.
    """
    split = read_split("evaluation")
    chosen = np.linspace(0, len(split) - 1, count).round().astype(int)
    images = split.images(torch.from_numpy(chosen)).permute(0, 2, 3, 1).numpy()
    maps = [store.read_array(store.maps_path(backbone, e))[chosen] for e in explainers["explainer"]]
    return split.table["class_name"].iloc[chosen].tolist(), images, maps


def heat_maps(
    explainers: pd.DataFrame, names: list[str], images: Floats, maps: list[Floats]
) -> Figure:
    """The maps over the images, as the metrics see them: a row an explainer, in two halves."""
    half = math.ceil(len(explainers) / 2)
    left, top, bottom = 120, 40, 60
    side = min(THUMBNAIL, int(PORTRAIT * DPI / 2 - left) // len(names) - GAP)
    size = np.array([len(names), half + 1]) * (side + GAP) - GAP
    full = np.array([2 * (left + size[0]), top + size[1] + bottom])
    figure = Figure(figsize=(full[0] / DPI, full[1] / DPI))
    pictures = [thumbnails(images, side)]
    pictures += [thumbnails(over(own, images), side) for own in maps]
    for column in range(min(2, len(explainers))):
        first = column * half
        place = np.array([left + column * (left + size[0]), bottom])
        axis = figure.add_axes((*(place / full), *(size / full)))
        rows = [pictures[0], *pictures[1 + first :][:half]]
        axis.imshow(mosaic(rows, half + 1), interpolation="none", aspect="auto")
        label_pictures(axis, side, names, explainers.iloc[first:][:half])
    kinds = [marker_of(kind) for kind in dict.fromkeys(explainers["kind"])]
    figure.legend(
        handles=kinds, loc="lower center", ncols=len(kinds), frameon=False, labelcolor="linecolor"
    )
    return figure


def over(maps: Floats, images: Floats) -> Floats:
    """Maps (n, h, w) over images (n, H, W, 3): their colours over the greys of the image."""
    seeds = [0] * len(maps)
    resized = Maps(torch.from_numpy(maps), images.shape[1:3], seeds).resized.numpy()
    colours = mpl.colormaps["inferno"](resized)[..., :3]
    overlay: Floats = 0.4 * images.mean(axis=3, keepdims=True) + 0.6 * colours
    return overlay


def thumbnails(images: Floats, side: int) -> NDArray[np.uint8]:
    """Images (n, H, W, 3) in [0, 1] as (n, side, side, 3)."""
    full = [Image.fromarray(pixels) for pixels in (255 * images).round().astype(np.uint8)]
    small = [image.resize((side, side), Image.Resampling.BOX) for image in full]
    return np.stack([np.asarray(image) for image in small])


def mosaic(rows: list[NDArray[np.uint8]], height: int) -> NDArray[np.uint8]:
    """Rows of pictures (n, side, side, 3) as one picture of `height` rows."""
    count, side = rows[0].shape[:2]
    step = side + GAP
    whole = np.full((height * step - GAP, count * step - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            whole[i * step :, j * step :][:side, :side] = picture
    return whole


def label_pictures(axis: Axes, side: int, names: list[str], explainers: pd.DataFrame) -> None:
    """Name the columns of a mosaic, and its rows below the first."""
    columns = [textwrap.fill(name, side // 8, break_long_words=False) for name in names]
    rows = [textwrap.fill(label, 13) for label in explainers["label"]]
    middles = (side + GAP) * np.arange(1 + max(len(columns), len(rows))) + side / 2
    axis.set_xticks(middles[: len(columns)], columns, fontsize=min(9, side / 9))
    axis.set_yticks(middles[1 : len(rows) + 1], rows, fontsize=10)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    for text, kind in zip(axis.get_yticklabels(), explainers["kind"], strict=True):
        text.set_color(STYLES[kind][0])
    axis.grid(False)
    axis.spines[:].set_visible(False)


if __name__ == "__main__":
    run(main)
