"""The grid of heat maps: a few images, and the maps of every explainer over them."""

import math
import textwrap

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from benchmark.core import results
from benchmark.data.splits import read_split
from benchmark.report.drawing import DPI, PORTRAIT, STYLES, Floats, marker_of
from metrics import Maps

THUMBNAIL = 96
"""Side of the pictures in the grid of heat maps, at most, in pixels of the figure."""

GAP = 4
"""Pixels between these."""


def read_heat_maps(backbone: str, explainers: pd.DataFrame, count: int) -> Figure:
    """The heat maps of a few images, spread over those that all explainers have explained."""
    every = [results.read_array(results.maps_path(backbone, n)) for n in explainers["explainer"]]
    split = read_split(results.SPLITS, "evaluation")
    chosen = np.linspace(0, min(map(len, every)) - 1, count).round().astype(int)
    images = split.images(torch.from_numpy(chosen)).permute(0, 2, 3, 1).numpy()
    names = split.table["class_name"].iloc[chosen].tolist()
    return heat_maps(explainers, names, images, [maps[chosen] for maps in every])


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
