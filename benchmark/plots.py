"""Every figure under results/plots/, as PNG and SVG with stable bytes."""

import math
from pathlib import Path
from typing import Any, get_args

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

import metrics
from benchmark import store
from benchmark.images import read_split
from benchmark.params import Params
from benchmark.stage import run
from methods import Kind
from metrics import Maps

mpl.use("Agg")

WIDTH = 9.0
"""Inches: readable at half size, that is in one column of a paper."""

ARROWS = {True: "↑", False: "↓"}
"""The good direction of a measure, by `higher_is_better`."""

DPI = 110

THUMBNAIL = 96
"""Side of the pictures in the grid of heat maps, in pixels."""

KINDS = list(get_args(Kind))
"""The order in which explainers stand in every figure."""

MARKERS = "osD^vP*X<>hd8p"

PAGE_WIDTH = 13.0
"""Inches: what has a row for every explainer, or a panel for every kind."""


def main(params: Params) -> None:
    """Write every figure."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    mpl.rcParams |= {"svg.hashsalt": "benchmark", "svg.fonttype": "none", "figure.dpi": 100}
    comparison = pd.read_csv(store.TABLES / "comparison.csv")
    similarity = pd.read_csv(store.TABLES / "randomisation.csv")
    for backbone in dict.fromkeys(cell.backbone for cell in params.cells.values()):
        explainers = described(params, backbone)
        block = ordered(comparison, backbone, explainers)
        runtime = read_runtime(backbone)
        save(confidence(block), f"{backbone}_confidence")
        save(road(block), f"{backbone}_road")
        save(quality_runtime(block, runtime), f"{backbone}_quality_runtime")
        shuffled = ordered(similarity, backbone, explainers)
        save(randomisation(shuffled), f"{backbone}_randomisation")
        save(heat_maps(params, backbone, explainers), f"{backbone}_heat_maps")
    save(ablation(pd.read_csv(store.TABLES / "ablation.csv")), "ablation")
    for head in params.heads.values():
        curve = pd.read_csv(store.curve_path(head.backbone, head.explainer))
        save(training(curve), f"{head.backbone}_{head.explainer}_training")


def described(params: Params, backbone: str) -> pd.DataFrame:
    """Explainer, label and kind of the cells of a backbone, those of a kind together."""
    rows = []
    for cell in params.cells.values():
        if cell.backbone == backbone:
            cost = store.read_json(store.cost_path(backbone, cell.explainer))
            rows.append((cell.explainer, cost["label"], cost["kind"]))
    table = pd.DataFrame(rows, columns=["explainer", "label", "kind"])
    return table.sort_values("kind", key=lambda k: k.map(KINDS.index), kind="stable")


def ordered(table: pd.DataFrame, backbone: str, explainers: pd.DataFrame) -> pd.DataFrame:
    """The rows of a backbone with label and kind, in the order of `explainers`."""
    own = table[table["backbone"] == backbone]
    return explainers.merge(own, on="explainer", how="left")


def colour_of(kind: str) -> tuple[float, float, float]:
    """The colour of a kind of explainers, safe for the colour-blind."""
    colour: tuple[float, float, float] = sns.color_palette("colorblind")[KINDS.index(kind)]
    return colour


def save(figure: Figure, name: str) -> None:
    """Write a figure without date or version, so that its bytes are stable."""
    store.PLOTS.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        path: Path = store.PLOTS / f"{name}{suffix}"
        with store.replacing(path) as beside:
            figure.savefig(
                beside, format=suffix[1:], bbox_inches="tight", dpi=DPI, metadata=metadata
            )


def canvas(
    rows: int, columns: int, height: float, width: float = WIDTH
) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False))


def interval(rows: pd.DataFrame) -> np.ndarray:
    """Distances of the interval's ends from the value, (2, n)."""
    return np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(0)


def confidence(table: pd.DataFrame) -> Figure:
    """AD and IC of every explainer, with intervals; the colour of a name is its kind's."""
    figure, axes = dots(table, table.drop_duplicates("label")["label"].tolist())
    kinds = table.drop_duplicates("label").set_index("label")["kind"]
    for text in axes[0, 0].get_yticklabels():
        text.set_color(colour_of(kinds[text.get_text()]))
    for axis in axes[0]:
        for row in np.flatnonzero(kinds.to_numpy()[1:] != kinds.to_numpy()[:-1]):
            axis.axhline(row + 0.5, color="0.7", lw=0.8)
    return figure


def dots(table: pd.DataFrame, labels: list[str]) -> tuple[Figure, np.ndarray]:
    """AD and IC with intervals: a row a label, a marker a level."""
    figure, axes = canvas(1, 2, height=1.8 + 0.34 * len(labels))
    colours = sns.color_palette("colorblind")
    for axis, name in zip(axes[0], ("average_drop", "increase_in_confidence"), strict=True):
        rows = table[table["metric"] == name]
        levels = sorted(rows["level"].unique(), reverse=True)
        for i, level in enumerate(levels):
            own = rows[rows["level"] == level]
            axis.errorbar(
                own["value"],
                [labels.index(x) + (i - (len(levels) - 1) / 2) * 0.22 for x in own["label"]],
                xerr=interval(own),
                fmt="osD"[i % 3],
                color=colours[i],
                ms=5,
                elinewidth=1,
                capsize=2,
                label=f"{level:g} % kept",
            )
        axis.set(title=titled(name), xlabel="%", xlim=(0, 100))
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(False, axis="y")
    axes[0, 1].set_yticklabels([])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure, axes


def titled(measure: str) -> str:
    """A measure's label with its good direction."""
    found = metrics.measures()[measure]
    return f"{found.label} {ARROWS[found.higher_is_better]}"


def road(table: pd.DataFrame) -> Figure:
    """ROAD curves, MoRF above and LeRF below, a panel a kind; in each the first explainer too."""
    kinds = list(dict.fromkeys(table["kind"]))
    figure, axes = canvas(2, len(kinds), height=8.2, width=2.45 * len(kinds) + 0.6)
    first = table["label"].iloc[0]
    for column, kind in enumerate(kinds):
        labels = list(dict.fromkeys(table.loc[table["kind"] == kind, "label"]))
        colours = sns.color_palette("colorblind", len(labels))
        for row, name in enumerate(("road_morf", "road_lerf")):
            axis: Axes = axes[row, column]
            curves = table[table["metric"] == name]
            reference = curves[curves["label"] == first]
            axis.plot(reference["level"], reference["value"], color="0.2", ls="--", label=first)
            for i, label in enumerate(labels):
                own = curves[curves["label"] == label]
                style = {"color": colours[i], "marker": MARKERS[i % len(MARKERS)]}
                axis.plot(own["level"], own["value"], label=label, lw=1.5, ms=5, **style)
                axis.fill_between(
                    own["level"], own["low"], own["high"], color=colours[i], alpha=0.07, lw=0
                )
            axis.set(ylim=(0, 100), title=kind if row == 0 else "")
            axis.tick_params(labelleft=column == 0, labelbottom=row == 1)
        axes[1, column].set_xlabel("% of pixels removed")
        axes[1, column].legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False, fontsize="small"
        )
    for row, name in enumerate(("road_morf", "road_lerf")):
        axes[row, 0].set_ylabel(f"{titled(name)}, % unchanged")
    return figure


def read_runtime(backbone: str) -> pd.DataFrame:
    """Median seconds an image, of the largest batch timed, by explainer."""
    medians = store.read_json(store.RUNTIME / "medians.json")[backbone]
    rows = []
    for explainer, times in medians.items():
        size = max(int(key.removeprefix("seconds_")) for key in times if key.startswith("seconds_"))
        rows.append({"explainer": explainer, "seconds": times[f"seconds_{size}"] / size})
    return pd.DataFrame(rows).set_index("explainer")


def quality_runtime(table: pd.DataFrame, runtime: pd.DataFrame) -> Figure:
    """AD at 50 % and ROAD MoRF against the runtime of an image; the line joins the best trades."""
    figure, axes = canvas(1, 2, height=7.4, width=PAGE_WIDTH)
    labels = list(dict.fromkeys(table["label"]))
    shown = [("average_drop", 50.0, "AD at 50 %"), ("road_morf_mean", None, "ROAD MoRF, mean")]
    for axis, (metric, level, title) in zip(axes[0], shown, strict=True):
        at = table["level"].isna() if level is None else table["level"] == level
        rows = table[(table["metric"] == metric) & at]
        seconds = runtime.loc[rows["explainer"], "seconds"].to_numpy()
        best = pareto(seconds, rows["value"].to_numpy())
        axis.plot(seconds[best], rows["value"].to_numpy()[best], color="0.6", lw=1.2, zorder=1)
        for x, row in zip(seconds, rows.itertuples(), strict=True):
            colour = colour_of(row.kind)
            axis.plot(x, row.value, "o", color=colour, ms=15, alpha=0.85, zorder=2)
            number = str(1 + labels.index(row.label))
            axis.text(x, row.value, number, ha="center", va="center", fontsize=9, color="w")
        forward = runtime.loc["forward", "seconds"]
        axis.axvline(forward, color="0.4", ls=":", zorder=0)
        axis.text(forward, 1, " forward pass", fontsize=9, color="0.4", rotation=90, va="bottom")
        title = f"{title} {ARROWS[False]}"
        axis.set(xscale="log", xlabel="seconds an image", title=title, ylim=(0, None))
    axes[0, 0].set_ylabel("%")
    kinds = table.drop_duplicates("label").set_index("label")["kind"]
    handles = [Line2D([], [], marker="o", ls="", color=colour_of(kinds[x])) for x in labels]
    names = [f"{i}  {label}" for i, label in enumerate(labels, start=1)]
    figure.legend(
        handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize="small"
    )
    return figure


def pareto(cost: NDArray[np.floating[Any]], value: NDArray[np.floating[Any]]) -> list[int]:
    """Indices of the points that no other beats in both, the cheapest first; lower is better."""
    best: list[int] = []
    for i in np.lexsort((value, cost)):
        if not best or value[i] < value[best[-1]]:
            best.append(int(i))
    return best


def randomisation(table: pd.DataFrame) -> Figure:
    """Similarity to the maps of the trained network, by the share of layers randomised.

    Explainers that hardly change are marked by an exclamation mark.
    """
    labels = list(dict.fromkeys(table["label"]))
    figure, axes = canvas(1, 2, height=1.3 + 0.3 * len(labels))
    titles = {"randomisation_ssim": "SSIM", "randomisation_rank": "rank correlation"}
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        own = table[table["metric"] == name].pivot_table(
            index="label", columns="level", values="value", sort=False
        )
        own = own.loc[labels, sorted(own.columns)]
        sns.heatmap(
            own, vmin=0, vmax=1, cmap="cividis", annot=True, fmt=".2f", cbar=False, ax=axis,
            annot_kws={"fontsize": 9},
        )  # fmt: skip
        axis.set(title=title, ylabel="", xlabel="% of the layers randomised")
        axis.set_xticklabels([f"{level:g}" for level in own.columns])
    unchanged = set(table.loc[table["unchanged"].astype(bool), "label"])
    names = [f"{label}  (!)" if label in unchanged else label for label in labels]
    axes[0, 0].set_yticks(np.arange(len(labels)) + 0.5, names, rotation=0)
    axes[0, 1].set_yticks([])
    return figure


def ablation(table: pd.DataFrame) -> Figure:
    """AD and IC of every variant of T-TAME, with intervals."""
    named = table.assign(label=table["backbone"] + ": " + table["explainer"].str.replace("_", " "))
    figure, _ = dots(named, list(dict.fromkeys(named["label"])))
    return figure


def training(curve: pd.DataFrame) -> Figure:
    """The loss, its terms, and the validation AD of one training run."""
    terms = ["loss", "cross_entropy", "area", "smoothness"]
    figure, axes = canvas(1, 3, height=3.6)
    sns.lineplot(curve, x="step", y="loss", ax=axes[0, 0])
    axes[0, 0].set(title="loss", ylabel="")
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


def heat_maps(params: Params, backbone: str, explainers: pd.DataFrame) -> Figure:
    """The maps over the images, as the metrics see them: a row an explainer, in two halves."""
    split = read_split("evaluation")
    chosen = np.linspace(0, len(split) - 1, params.plots.grid_images).round().astype(int)
    images = split.images(torch.from_numpy(chosen)).permute(0, 2, 3, 1).numpy()
    names = split.table["class_name"].iloc[chosen].tolist()
    half = math.ceil(len(explainers) / 2)
    side = PAGE_WIDTH / (2 * len(chosen) + 2.5)
    figure = Figure(figsize=(PAGE_WIDTH, side * (half + 1) + 0.4), layout="constrained")
    parts: Any = figure.subfigures(1, 2)
    for part, columns in zip(parts, (0, half), strict=True):
        axes = part.subplots(half + 1, len(chosen), squeeze=False)
        for column, image in enumerate(images):
            axes[0, column].imshow(thumbnail(image), interpolation="none")
            axes[0, column].set_title(str(names[column]).replace(" ", "\n", 1), fontsize=8)
        own = list(explainers.iloc[columns : columns + half].itertuples())
        for row, explainer in enumerate(own, start=1):
            maps = store.read_array(store.maps_path(backbone, explainer.explainer))[chosen]
            draw(axes[row], maps, images)
            axes[row, 0].set_ylabel(
                explainer.label.replace(" ", "\n", 1), fontsize=8, rotation=0, ha="right",
                va="center", color=colour_of(explainer.kind),
            )  # fmt: skip
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        for axis in axes[len(own) + 1 :].flat:
            axis.axis("off")
    return figure


def draw(axes: NDArray[Any], maps: NDArray[np.float32], images: NDArray[np.floating[Any]]) -> None:
    """Maps (n, h, w) over images (n, H, W, 3), one in each of the axes."""
    resized = Maps(torch.from_numpy(maps), images.shape[1:3], [0] * len(maps)).resized.numpy()
    for axis, heat, image in zip(axes, resized, images, strict=True):
        colours = mpl.colormaps["inferno"](heat)[..., :3]
        overlay = 0.4 * image.mean(axis=2, keepdims=True) + 0.6 * colours
        axis.imshow(thumbnail(overlay), interpolation="none")


def thumbnail(image: NDArray[np.floating[Any]]) -> Image.Image:
    """An image (H, W, 3) in [0, 1], small, so that the figure's files are."""
    full = Image.fromarray((255 * image).round().astype(np.uint8))
    return full.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)


if __name__ == "__main__":
    run(main)
