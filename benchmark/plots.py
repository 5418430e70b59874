"""Every figure under results/plots/, as PNG and SVG with stable bytes."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import metrics
from benchmark import store
from benchmark.images import read_split
from benchmark.params import Params
from benchmark.stage import run
from metrics import Maps

mpl.use("Agg")

WIDTH = 9.0
"""Inches: readable at half size, that is in one column of a paper."""

ARROWS = {True: "↑", False: "↓"}
"""The good direction of a measure, by `higher_is_better`."""

DPI = 110

THUMBNAIL = 96
"""Side of the pictures in the grid of heat maps, in pixels."""

Styles = dict[str, tuple[tuple[float, float, float], str]]
"""Colour and marker of each explainer, the same in every figure."""


def main(params: Params) -> None:
    """Write every figure."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    mpl.rcParams |= {"svg.hashsalt": "benchmark", "svg.fonttype": "none", "figure.dpi": 100}
    comparison = pd.read_csv(store.TABLES / "comparison.csv")
    labels = {
        (c.backbone, c.explainer): store.read_json(store.cost_path(c.backbone, c.explainer))[
            "label"
        ]
        for c in params.cells.values()
    }
    comparison["label"] = [
        labels[b, e] for b, e in zip(comparison["backbone"], comparison["explainer"], strict=True)
    ]
    for backbone, block in comparison.groupby("backbone", sort=False):
        styles = explainer_styles(list(dict.fromkeys(block["label"])))
        save(confidence(block), f"{backbone}_confidence")
        save(road(block, styles), f"{backbone}_road")
        save(
            quality_runtime(block, read_runtime(str(backbone)), styles),
            f"{backbone}_quality_runtime",
        )
        save(heat_maps(params, str(backbone), labels), f"{backbone}_heat_maps")
    save(ablation(pd.read_csv(store.TABLES / "ablation.csv")), "ablation")
    for head in params.heads.values():
        curve = pd.read_csv(store.curve_path(head.backbone, head.explainer))
        save(training(curve), f"{head.backbone}_{head.explainer}_training")


def save(figure: Figure, name: str) -> None:
    """Write a figure without date or version, so that its bytes are stable."""
    store.PLOTS.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        path: Path = store.PLOTS / f"{name}{suffix}"
        with store.replacing(path) as beside:
            figure.savefig(
                beside, format=suffix[1:], bbox_inches="tight", dpi=DPI, metadata=metadata
            )


def explainer_styles(labels: list[str]) -> Styles:
    """Colour-blind safe colours, and markers for who sees none."""
    colours = sns.color_palette("colorblind", max(len(labels), 1))
    markers = "osD^vP*Xp<>hd8"
    return {
        label: (colours[i % len(colours)], markers[i % len(markers)])
        for i, label in enumerate(labels)
    }


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
    """AD and IC as bars with intervals: a row a measure, a column a level."""
    names = ["average_drop", "increase_in_confidence"]
    levels = sorted(table.loc[table["metric"] == names[0], "level"].unique(), reverse=True)
    count = table["label"].nunique()
    figure, axes = canvas(len(names), len(levels), height=1.4 + 0.62 * count)
    for i, name in enumerate(names):
        for j, level in enumerate(levels):
            rows = table[(table["metric"] == name) & (table["level"] == level)]
            axis: Axes = axes[i, j]
            sns.barplot(rows, x="value", y="label", color=sns.color_palette()[i], ax=axis)
            axis.errorbar(
                rows["value"],
                range(len(rows)),
                xerr=interval(rows),
                fmt="none",
                ecolor="0.2",
                elinewidth=1.5,
                capsize=3,
            )
            axis.set(ylabel="", xlabel="", xlim=(0, 100))
            if j > 0:
                axis.set_yticklabels([])
            axis.set_title(f"{titled(name)} at {level:g} %")
    for axis in axes[-1]:
        axis.set_xlabel("%")
    return figure


def titled(measure: str) -> str:
    """A measure's label with its good direction."""
    found = metrics.measures()[measure]
    return f"{found.label} {ARROWS[found.higher_is_better]}"


def road(table: pd.DataFrame, styles: Styles) -> Figure:
    """ROAD curves, MoRF and LeRF."""
    figure, axes = canvas(1, 2, height=5.2)
    for axis, name in zip(axes[0], ("road_morf", "road_lerf"), strict=True):
        for label, rows in table[table["metric"] == name].groupby("label", sort=False):
            colour, marker = styles[str(label)]
            axis.plot(
                rows["level"], rows["value"], color=colour, marker=marker, label=label, lw=2, ms=7
            )
            axis.fill_between(
                rows["level"], rows["low"], rows["high"], color=colour, alpha=0.08, lw=0
            )
        axis.set(
            title=titled(name),
            xlabel="% of pixels removed",
            ylim=(0, 100),
        )
    axes[0, 0].set_ylabel("predictions unchanged, %")
    axes[0, 1].set_yticklabels([])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def read_runtime(backbone: str) -> pd.DataFrame:
    """Median seconds an image, of the largest batch timed, by explainer."""
    medians = store.read_json(store.RUNTIME / "medians.json")[backbone]
    rows = []
    for explainer, times in medians.items():
        size = max(int(key.removeprefix("seconds_")) for key in times if key.startswith("seconds_"))
        rows.append({"explainer": explainer, "seconds": times[f"seconds_{size}"] / size})
    return pd.DataFrame(rows).set_index("explainer")


def quality_runtime(table: pd.DataFrame, runtime: pd.DataFrame, styles: Styles) -> Figure:
    """AD at 50 % and ROAD MoRF against the runtime of an image."""
    figure, axes = canvas(1, 2, height=5.0)
    shown = [("average_drop", 50.0, "AD at 50 %"), ("road_morf_mean", None, "ROAD MoRF, mean")]
    for axis, (metric, level, title) in zip(axes[0], shown, strict=True):
        rows = table[
            (table["metric"] == metric)
            & (table["level"].isna() if level is None else table["level"] == level)
        ]
        for row in rows.itertuples():
            colour, marker = styles[row.label]
            seconds = runtime.loc[row.explainer, "seconds"]
            error = [[max(row.value - row.low, 0)], [max(row.high - row.value, 0)]]
            axis.errorbar(
                seconds,
                row.value,
                yerr=error,
                color=colour,
                marker=marker,
                ms=9,
                capsize=3,
                ls="none",
                label=row.label,
            )
        forward = runtime.loc["forward", "seconds"]
        axis.axvline(forward, color="0.4", ls=":", label="bare forward pass")
        axis.set(
            xscale="log",
            xlabel="seconds an image",
            title=f"{title} {ARROWS[False]}",
            ylim=(0, None),
        )
    axes[0, 0].set_ylabel("%")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def ablation(table: pd.DataFrame) -> Figure:
    """AD and IC of every variant of T-TAME, with intervals."""
    variants = list(dict.fromkeys(table["explainer"]))
    figure, axes = canvas(1, 2, height=1.6 + 0.75 * len(variants))
    names = ("average_drop", "increase_in_confidence")
    colours = sns.color_palette("colorblind")
    for axis, name in zip(axes[0], names, strict=True):
        rows = table[table["metric"] == name]
        levels = sorted(rows["level"].unique(), reverse=True)
        for i, level in enumerate(levels):
            own = rows[rows["level"] == level]
            places = np.arange(len(own)) + (i - (len(levels) - 1) / 2) * 0.22
            axis.errorbar(
                own["value"],
                places,
                xerr=interval(own),
                fmt="osD"[i % 3],
                color=colours[i],
                ms=8,
                capsize=3,
                label=f"{level:g} % kept",
            )
        axis.set(title=titled(name), xlabel="%", xlim=(0, 100))
        axis.set_yticks(range(len(variants)), [v.replace("_", " ") for v in variants])
        axis.invert_yaxis()
    axes[0, 1].set_yticklabels([])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
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


def heat_maps(params: Params, backbone: str, labels: dict[tuple[str, str], str]) -> Figure:
    """Images x explainers: the maps over the images, as the metrics see them."""
    split = read_split("evaluation")
    chosen = np.linspace(0, len(split) - 1, params.plots.grid_images).round().astype(int)
    images = split.images(torch.from_numpy(chosen)).permute(0, 2, 3, 1).numpy()
    cells = [c for c in params.cells.values() if c.backbone == backbone]
    width = 1.5 * (len(cells) + 1)
    figure, axes = canvas(len(chosen), len(cells) + 1, height=1.5 * len(chosen) + 0.5, width=width)
    for column, title in enumerate(["image", *(labels[backbone, c.explainer] for c in cells)]):
        axes[0, column].set_title(title.replace(" ", "\n", 1), fontsize=11)
    for row, image in enumerate(images):
        axes[row, 0].imshow(thumbnail(image), interpolation="none")
        axes[row, 0].set_ylabel(str(split.table["class_name"].iloc[chosen[row]]), fontsize=10)
    for column, cell in enumerate(cells, start=1):
        maps = store.read_array(store.maps_path(backbone, cell.explainer))[chosen]
        resized = Maps(torch.from_numpy(maps), images.shape[1:3], chosen.tolist()).resized.numpy()
        for row, image in enumerate(images):
            heat = mpl.colormaps["inferno"](resized[row])[..., :3]
            overlay = 0.4 * image.mean(axis=2, keepdims=True) + 0.6 * heat
            axes[row, column].imshow(thumbnail(overlay), interpolation="none")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return figure


def thumbnail(image: NDArray[np.floating[Any]]) -> Image.Image:
    """An image (H, W, 3) in [0, 1], small, so that the figure's files are."""
    full = Image.fromarray((255 * image).round().astype(np.uint8))
    return full.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)


if __name__ == "__main__":
    run(main)
