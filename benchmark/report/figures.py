"""The figures of the pipeline, from its tables.

A table here has one row an explainer and value: explainer, label and kind, in the order of the
figures, and metric, level, value, low and high as in results/tables/.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from benchmark.core import results
from benchmark.core.cells import Project, split_files
from benchmark.report.captions import Captions
from benchmark.report.drawing import (
    ARROWS,
    LINES,
    MARKERS,
    PORTRAIT,
    ROW,
    STYLES,
    Floats,
    canvas,
    fix_layout,
    interval,
    marker_of,
)
from benchmark.report.measures import Known, of_metric

UNCHANGED = "≡"
"""Marks explainers whose maps hardly change with the network's weights."""

MARKER = 8.0
"""Size of the points of a scatter plot."""

NAME = 11
"""Font size of the labels in it."""

CONFIDENCE = ("average_drop", "increase_in_confidence")
"""The measures under masking that the figures show, of those of `confidence`."""

ROAD = ("road_morf", "road_lerf")
"""The two orders of ROAD."""

ACROSS = 4
"""Panels of the ROAD figure and of the ablation's beside each other, at most."""

ACROSS_PANEL = 15
"""Letters in a line above or below a panel of the figures of points, at most."""

CURVES = 5
"""Lines in a panel of the ROAD figure, at most, beside the first explainer's."""

EDGE = 3.0
"""How far left of a bare forward pass baselines stand in the figure of quality and runtime."""

QUALITY = {"average_drop": 50.0, "road_morf_mean": None}
"""Measures shown against the runtime, and their level; lower is better."""


class Drawing(NamedTuple):
    """A figure that is to be drawn.

    Attributes:
        name: of its files.
        caption: what stands under it.
        tables: what it shows.
        files: that it reads.
        draw: makes it.
    """

    name: str
    caption: str
    tables: tuple[pd.DataFrame, ...]
    files: dict[str, Path]
    draw: Callable[[], Figure]

    @property
    def digest(self) -> str:
        """Of its tables."""
        texts = [table.to_csv(index=True) for table in self.tables]
        return sha256("\n".join(texts).encode()).hexdigest()[:16]


def drawings(project: Project, known: Known) -> Iterator[Drawing]:
    """Every figure of the pipeline."""
    comparison = results.read_table(results.TABLES / "comparison.csv")
    similarity = results.read_table(results.TABLES / "randomisation.csv")
    captions = Captions(project)
    for backbone in project.params.backbones:
        explainers = describe_explainers(project, backbone)
        table = ordered(comparison, backbone, explainers)
        shuffled = ordered(similarity, backbone, explainers)
        seconds = read_runtime(project, backbone)
        maps = {n: results.maps_path(backbone, n) for n in explainers["explainer"]}
        read = split_files("evaluation") | maps | {"targets": results.targets_path(backbone)}
        grid = project.params.plots.grid_images

        def drawing(
            draw: Callable[..., Figure], caption: str, *tables: Any, backbone: str = backbone
        ) -> Drawing:
            name = f"{backbone}_{draw.__name__}"
            return Drawing(name, caption, tables, {}, partial(draw, *tables, known))

        scored = set(table["metric"])
        for metric, names in points_of(known).items():
            shown = [name for name in names if name in scored]
            if shown:
                own = table[table["metric"].isin(shown)]
                caption = captions.points(backbone, own, shown, known)
                if metric == "confidence":
                    caption = captions.confidence(backbone, own)
                draw = partial(points, own, known, shown)
                yield Drawing(f"{backbone}_{metric}", caption, (own,), {}, draw)
        if scored.issuperset(ROAD):
            yield drawing(road, captions.road(backbone, table), table)
        if scored.intersection(QUALITY) and {"forward"} < set(seconds.index):
            caption = captions.quality_runtime(backbone, table, about_runtime())
            yield drawing(quality_runtime, caption, table, seconds)
        yield drawing(randomisation, captions.randomisation(backbone, shuffled), shuffled)
        yield Drawing(
            f"{backbone}_heat_maps",
            captions.heat_maps(backbone),
            (explainers,),
            read,
            partial(draw_heat_maps, backbone, explainers, grid),
        )
    yield from ablation_drawings(project, known)
    for cell in (c for b in project.params.backbones for c in project.trained(b)):
        if cell.checkpoint is None:
            curve = results.read_table(results.curve_path(cell.backbone, cell.explainer))
            name = f"{cell.backbone}_{cell.explainer}_training"
            caption = captions.training(cell.backbone, project.facts(cell.explainer).label)
            yield Drawing(name, caption, (curve,), {}, partial(training, curve))


def draw_heat_maps(backbone: str, explainers: pd.DataFrame, count: int) -> Figure:
    """See heat_maps.read_heat_maps; it takes torch, which the other figures do without."""
    from benchmark.report.heat_maps import read_heat_maps

    return read_heat_maps(backbone, explainers, count)


def ablation_drawings(project: Project, known: Known) -> Iterator[Drawing]:
    """A figure for each question of the ablation study."""
    variants = results.read_table(results.TABLES / "ablation.csv")
    seeds = results.read_table(results.TABLES / "ablation_seeds.csv")
    for question, own in questions(project).items():
        keys = ["backbone", "explainer"]
        means, each_seed = (t.merge(own[keys], on=keys) for t in (variants, seeds))
        draw = partial(ablation, own, means, each_seed, known)
        caption = Captions(project).ablation(question, own, each_seed)
        yield Drawing(f"ablation_{question}", caption, (own, means, each_seed), {}, draw)


def describe_explainers(project: Project, backbone: str) -> pd.DataFrame:
    """Explainer, label and kind of the cells of a backbone, those of a kind together."""
    facts = {cell.explainer: project.facts(cell.explainer) for cell in project.cells(backbone)}
    rows = [(name, own.label, own.kind) for name, own in facts.items()]
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


def with_counts(table: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str]:
    """A table whose labels say where a measure is of fewer images; and what it is of else."""
    counts = table[table["metric"] == metric].groupby("explainer")["n"].max()
    if counts.empty:
        return table, "no images"
    most = int(counts.max())
    few = {name: f" ({n:.0f})" for name, n in counts.items() if n < most}
    labels = table["label"] + table["explainer"].map(lambda name: few.get(name, ""))
    return table.assign(label=labels), f"{most} images{', or the number in brackets' * bool(few)}"


def titled(measure: str, known: Known) -> str:
    """A measure's label with its good direction."""
    found = known[measure]
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


def points_of(known: Known) -> dict[str, list[str]]:
    """The measures in the figure of points of each metric; ROAD has curves."""
    metrics = dict.fromkeys(measure.metric for measure in known.values())
    shown = {metric: of_metric(metric, known) for metric in metrics if metric != "road"}
    return shown | {"confidence": list(CONFIDENCE)}


def points(table: pd.DataFrame, known: Known, shown: Sequence[str]) -> Figure:
    """Measures with intervals: a row an explainer, a column a measure and level."""
    table, images = with_counts(table, shown[0])
    rows = rows_of(table)
    places = {row.explainer: i for i, row in enumerate(rows)}
    columns = [(name, level) for name in shown for level in levels_of(table, name)]
    figure, axes = canvas(1, len(columns), 1.2 + ROW * len(rows), 2.2 + 1.55 * len(columns))
    for axis, (name, level) in zip(axes[0], columns, strict=True):
        own = at(table, name, level)
        for kind, block in own.groupby("kind", sort=False):
            colour, marker = STYLES[str(kind)]
            y = block["explainer"].map(places)
            look = {"fmt": marker, "color": colour, "ms": 6, "elinewidth": 1.6}
            axis.errorbar(block["value"], y, xerr=interval(block), **look)
        high = table.loc[table["metric"] == name, "high"].max()
        top = min(5 * max(1, math.ceil(high / 5)), known[name].bounds[1])
        label, arrow = titled(name, known).rsplit(maxsplit=1)
        title = f"{fill(label, ACROSS_PANEL)} {arrow}"
        unit = "0 to 1" if known[name].unit == "1" else known[name].unit
        axis.set(
            title=title if level is None else f"{title} at {level:g} %",
            xlabel=fill(unit, ACROSS_PANEL),
            xlim=(-0.05 * top, 1.05 * top),
        )
        for i, row in enumerate(rows):
            if row.explainer is not None:
                axis.axhline(i, color="0.92", lw=0.8, zorder=0)
    label_rows(axes[0], rows)
    figure.supxlabel(images, fontsize=11)
    return figure


def road(table: pd.DataFrame, known: Known) -> Figure:
    """ROAD curves, MoRF above and LeRF below, a column a kind, of large kinds several.

    The first explainer's curve, with its interval, is in every panel. Columns go on below.
    """
    table, images = with_counts(table, "road_morf")
    table = merge_same(table)
    first = each(table).iloc[0]
    panels = panels_of(table, first["explainer"])
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    height = down * (5 + 0.22 * (2 + max(len(panel.explainers) for panel in panels)))
    figure, axes = canvas(2 * down, across, height, PORTRAIT, sharex=True, sharey=True)
    places = np.concatenate([axes.reshape(down, 2, across)[i] for i in range(down)], axis=1).T
    for pair, panel in zip(places, panels, strict=False):
        for axis, name in zip(pair, ROAD, strict=True):
            curves = table[table["metric"] == name]
            own = curves[curves["explainer"] == first["explainer"]]
            label = str(first["label"])
            axis.plot(own["level"], own["value"], "k--", lw=2, zorder=3, label=label)
            band = own[["level", "low", "high"]].to_numpy().T
            axis.fill_between(*band, color="0.88", label=f"interval of {label}")
            draw_curves(axis, curves[curves["explainer"].isin(panel.explainers)])
        pair[0].set_title(panel.title, color=STYLES[panel.kind][0], fontweight="bold")
        pair[1].set_xlabel("% of pixels removed")
        pair[1].tick_params(labelbottom=True)
        pair[1].legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, handlelength=1.6
        )
    for pair in places[len(panels) :]:
        for axis in pair:
            axis.remove()
    for pair in places[::across]:
        for axis, name in zip(pair, ROAD, strict=True):
            axis.set_ylabel(f"{titled(name, known)}\n% unchanged")
    axes[0, 0].set(xlim=(0, 100), ylim=(-3, 103), xticks=range(0, 101, 25))
    figure.suptitle(f"ROAD, {images}", fontsize=12)
    return figure


class Panel(NamedTuple):
    """A column of the ROAD figure: explainers of one kind."""

    title: str
    kind: str
    explainers: list[str]


def panels_of(table: pd.DataFrame, but: str) -> list[Panel]:
    """The explainers of a table by kind, few enough to tell their lines apart; one is left out."""
    panels = []
    for kind, own in each(table).groupby("kind", sort=False):
        names = [name for name in own["explainer"] if name != but]
        parts = [list(part) for part in np.array_split(names, max(1, -(-len(names) // CURVES)))]
        for number, part in enumerate(parts, 1):
            title = f"{kind} ({number} of {len(parts)})" if len(parts) > 1 else str(kind)
            panels.append(Panel(title, str(kind), part))
    return panels


def draw_curves(axis: Axes, curves: pd.DataFrame) -> None:
    """A line an explainer."""
    for i, (_, own) in enumerate(curves.groupby("explainer", sort=False)):
        axis.plot(
            own["level"], own["value"], label=own["label"].iloc[0], lw=1.5, ms=6,
            color=LINES[i % len(LINES)], marker=MARKERS[i % len(MARKERS)],
        )  # fmt: skip


def merge_same(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ROAD, of explainers with the same curves only the first's, named after all."""
    rows = table[table["metric"].isin(ROAD) & table["level"].notna()]
    labels: dict[tuple[Any, ...], list[str]] = {}
    first: dict[tuple[Any, ...], str] = {}
    for explainer, own in rows.groupby("explainer", sort=False):
        curves = tuple(own[["metric", "level", "value"]].itertuples(index=False, name=None))
        labels.setdefault(curves, []).append(own["label"].iloc[0])
        first.setdefault(curves, str(explainer))
    names = {first[curves]: " =\n".join(own) for curves, own in labels.items()}
    kept = rows[rows["explainer"].isin(names)]
    return kept.assign(label=kept["explainer"].map(names))


def read_medians(project: Project, backbone: str) -> dict[str, dict[str, float]]:
    """The runtime on a backbone by explainer, of those that were measured with their settings."""
    path = results.RUNTIME / "medians.json"
    found = results.read_json(path).get(backbone, {}) if path.is_file() else {}
    outdated = project.outdated_timings()
    return {name: own for name, own in found.items() if (backbone, name) not in outdated}


def read_runtime(project: Project, backbone: str) -> pd.Series:
    """Median seconds an image, of the largest batch timed, by explainer.

    What was timed on another machine than the bare forward pass has no seconds, and is left out.
    """
    seconds = {}
    for explainer, times in read_medians(project, backbone).items():
        sizes = [int(key.removeprefix("seconds_")) for key in times if key.startswith("seconds_")]
        if sizes:
            seconds[explainer] = times[f"seconds_{max(sizes)}"] / max(sizes)
    return pd.Series(seconds, dtype=float)


def about_runtime() -> str:
    """The machine on which the runtime was measured, empty if it was not."""
    path = results.RUNTIME / "raw.json"
    if not path.is_file():
        return ""
    info = results.read_json(path)["machine_info"]
    device = info["cpu"].get("brand_raw", info["machine"])
    device = device if info["device"] == "cpu" else info["device"]
    return f"{device}, {info['cores']} cores, {info['threads']} threads, torch {info['torch']}"


def quality_runtime(table: pd.DataFrame, seconds: pd.Series, known: Known) -> Figure:
    """AD and ROAD MoRF, what there is of them, against the seconds an image, with the Pareto front.

    The front is that of the explainers with the most images; baselines explain nothing and are no
    part of it. They ask no network, and stand at the left edge whatever their time, which would
    take decades of the axis.
    """
    scored = {name: level for name, level in QUALITY.items() if name in set(table["metric"])}
    figure, axes = canvas(len(scored), 1, 0.8 + 7 * len(scored), PORTRAIT)
    drawn = []
    for axis, (name, level) in zip(axes[:, 0], scored.items(), strict=True):
        counted, images = with_counts(table, name)
        rows = at(counted, name, level).assign(seconds=lambda t: t["explainer"].map(seconds))
        rows.loc[rows["kind"] == "baseline", "seconds"] = seconds["forward"] / EDGE
        rows = rows.dropna(subset=["seconds"])
        explaining = rows[rows["kind"] != "baseline"]
        whole = explaining[explaining["n"] == explaining["n"].max()]
        front = staircase(whole["seconds"].to_numpy(), whole["value"].to_numpy())
        axis.plot(*front.T, "k", ls="--", lw=1.6, zorder=2)
        axis.axvline(seconds["forward"], color="0.6", ls=":", zorder=1)
        for kind, own in rows.groupby("kind", sort=False):
            colour, marker = STYLES[str(kind)]
            look: dict[str, Any] = {"color": colour, "ms": MARKER, "mec": "w", "zorder": 3}
            axis.plot(own["seconds"], own["value"], marker, **look)
        title = titled(name.removesuffix("_mean"), known)
        title += ", mean over levels" if level is None else f" at {level:g} %"
        axis.set(xscale="log", xlabel="seconds an image", ylabel=f"%, {images}", title=title)
        axis.margins(0.06)
        drawn.append((rows, front))
    handles = [marker_of(kind) for kind in dict.fromkeys(table["kind"])]
    handles += [Line2D([], [], color="k", ls="--", lw=1.6, label="Pareto front")]
    handles += [Line2D([], [], color="0.6", ls=":", label="bare forward pass")]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    fix_layout(figure)
    for axis, (rows, front) in zip(axes[:, 0], drawn, strict=True):
        name_points(axis, rows, front, seconds["forward"])
    return figure


def staircase(cost: Floats, value: Floats) -> Floats:
    """(n, 2), the Pareto front: the best value of each cost."""
    best = pareto(cost, value)
    return np.stack([np.repeat(cost[best], 2)[1:], np.repeat(value[best], 2)[:-1]], axis=1)


def pareto(cost: Floats, value: Floats) -> list[int]:
    """Indices of the points that no other beats in both, the cheapest first; lower is better."""
    best: list[int] = []
    for i in np.lexsort((value, cost)):
        if not best or value[i] < value[best[-1]]:
            best.append(int(i))
    return best


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

    Libraries were tried on the sample's four panels, of 27 points each: textalloc (1.2.4,
    4,000 candidates) puts labels on 22 points and crosses 12 lines, adjustText (1.4, 500
    iterations) puts labels on 41 points in the first two panels; this, on none, crossing 2.

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


def randomisation(table: pd.DataFrame, _known: Known) -> Figure:
    """Similarity to the maps of the trained network, by the share of layers randomised."""
    unchanged = set(table.loc[table["unchanged"].astype(bool), "explainer"])
    rows = [
        row._replace(text=f"{row.text} {UNCHANGED}") if row.explainer in unchanged else row
        for row in rows_of(table)
    ]
    levels, images = sorted(table["level"].unique()), table["n"].max()
    titles = {"randomisation_ssim": "SSIM", "randomisation_rank": "rank correlation"}
    width = 2.6 + 0.8 * len(titles) * len(levels)
    figure, axes = canvas(1, len(titles), 1.8 + ROW * len(rows), width)
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        own = table[table["metric"] == name].pivot_table(
            index="explainer", columns="level", values="value", dropna=False
        )
        draw_cells(axis, own.reindex([row.explainer for row in rows])[levels].to_numpy())
        axis.set(title=title, xlabel=f"% of the layers\nrandomised, {images:g} images")
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


def questions(project: Project) -> dict[str, pd.DataFrame]:
    """The variants of T-TAME behind each question of the ablation study, baselines first.

    Returns:
        question to a table of backbone, explainer (the variant's name) and label.
    """
    rows = [
        (variant.question, backbone, name, variant.label)
        for backbone in project.params.ablation
        for name, variant in project.marked_variants(backbone).items()
    ]
    table = pd.DataFrame(rows, columns=["question", "backbone", "explainer", "label"])
    found = {}
    for question in table["question"].dropna().unique():
        own = table[table["question"] == question]
        baselines = table["question"].isna() & table["backbone"].isin(own["backbone"])
        whole = pd.concat([table[baselines], own])
        found[question] = whole.sort_values("backbone", kind="stable").drop(columns="question")
    return found


def ablation(
    variants: pd.DataFrame, table: pd.DataFrame, seeds: pd.DataFrame, known: Known
) -> Figure:
    """The variants behind one question: a point a seed, the mean with its interval over seeds.

    Args:
        variants: of `questions`.
        table: means and intervals over seeds, results/tables/ablation.csv.
        seeds: the means of every seed, results/tables/ablation_seeds.csv.
        known: the measures.
    """
    texts: list[str] = []
    places: list[int] = []
    for backbone, own in variants.groupby("backbone", sort=False):
        places += range(len(texts) + 1, len(texts) + 1 + len(own))
        texts += [str(backbone), *own["label"]]
    variants = variants.assign(place=places)
    table, seeds = (t.merge(variants, on=["backbone", "explainer"]) for t in (table, seeds))
    shown = [(name, level) for name in CONFIDENCE for level in levels_of(table, name)]
    shown += [(f"{name}_mean", None) for name in ROAD if f"{name}_mean" in set(table["metric"])]
    down = -(-len(shown) // ACROSS)
    figure, axes = canvas(down, ACROSS, down * (0.9 + 0.36 * len(texts)), PORTRAIT)
    for axis in axes.ravel()[len(shown) :]:
        axis.remove()
    for place, (axis, (name, level)) in enumerate(zip(axes.ravel(), shown, strict=False)):
        own, dots = at(table, name, level), at(seeds, name, level)
        base = own.groupby("backbone")["place"].transform("min") == own["place"]
        for rows, colour in ((own[base], "0.35"), (own[~base], STYLES["trained"][0])):
            look = {"fmt": "o", "color": colour, "ms": 6, "elinewidth": 2, "zorder": 4}
            axis.errorbar(rows["value"], rows["place"], xerr=interval(rows), **look)
        axis.plot(dots["value"], dots["place"], "|", color="0.6", ms=13, mew=1, zorder=3)
        at_level = "" if level is None else f" at {level:g} %"
        axis.set(title=f"{titled(name.removesuffix('_mean'), known)}{at_level}", xlabel="%")
        ends = seeds.loc[seeds["metric"] == name, "value"]
        room = 0.06 * max(1.0, ends.max() - ends.min())
        axis.set_xlim(ends.min() - room, ends.max() + room)  # one scale for a measure
        axis.set_ylim(len(texts) - 0.5, -0.5)
        axis.set_yticks(range(len(texts)), texts)
        axis.tick_params(axis="y", length=0, labelleft=place % ACROSS == 0)
        axis.grid(False, axis="y")
        for row, text in enumerate(axis.get_yticklabels()):
            text.set_fontweight("normal" if row in places else "bold")
    note = f"tick: one of {table['n'].max():g} seeds; dot and bar: mean and interval over seeds"
    figure.supxlabel(note, fontsize=11)
    return figure


def levels_of(table: pd.DataFrame, metric: str) -> list[float | None]:
    """The levels of a measure, the highest first; None of one without levels."""
    found = table.loc[table["metric"] == metric, "level"]
    without: list[float | None] = [None] * bool(found.isna().any())
    return without + sorted(found.dropna().unique(), reverse=True)


def training(curve: pd.DataFrame) -> Figure:
    """The loss, its terms, and the validation AD of one training run.

    Loss and terms are pale a step, and in full as the mean over a fiftieth of the run.
    """
    terms = curve.columns[curve.columns.get_loc("loss") :]
    figure, axes = canvas(1, 3, height=4.2)
    colours = sns.color_palette()
    draw_smoothed(axes[0, 0], curve["step"], curve["loss"], colours[0], "")
    axes[0, 0].set(title="loss", xlabel="step")
    for i, term in enumerate(terms[1:], start=1):
        label = f"{term.replace('_', ' ')} (1 is {curve[term].max():.3g})"
        draw_smoothed(axes[0, 1], curve["step"], curve[term] / curve[term].max(), colours[i], label)
    axes[0, 1].set(title="terms, of their maximum", xlabel="step", ylim=(0, 1.03))
    axes[0, 1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)
    held_out = curve.dropna(subset=["validation_ad"])
    axes[0, 2].plot(held_out["step"], held_out["validation_ad"], marker="o")
    axes[0, 2].set(title="validation AD at 100 %, %", xlabel="step", ylim=(0, None))
    return figure


def draw_smoothed(axis: Axes, steps: pd.Series, values: pd.Series, colour: Any, label: str) -> None:
    """A noisy curve, pale, and its running mean."""
    axis.plot(steps, values, color=colour, alpha=0.25, lw=0.8)
    mean = values.rolling(max(1, len(values) // 50), center=True, min_periods=1).mean()
    axis.plot(steps, mean, color=colour, lw=1.8, label=label)
