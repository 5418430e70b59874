"""Maps over images: one for a talk, and the grid of a few images and every explainer."""

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
from torch import Tensor

from benchmark.core import results
from benchmark.data.splits import read_split
from benchmark.report.drawing import DPI, PERCENTILE, PORTRAIT, STYLES, Floats, marker_of
from metrics import Maps

THUMBNAIL = 0.87
"""Side of the pictures in the grid of heat maps, at most, in inches."""

GAP = 4
"""Pixels between these."""

COLOURS = "inferno"
"""Matplotlib's colours of the maps: perceptually uniform."""


def overlay(image: Tensor, map_: Tensor, opacity: float = 0.6) -> Image.Image:
    """A map over an image.

    Args:
        image: (3, H, W) in [0, 1].
        map_: (h, w), of any resolution and range.
        opacity: of the map's colours, over the greys of the image; from 0 to 1.

    Returns:
        an RGB picture of H x W pixels, full colour at the 99th percentile of the map.

    Raises:
        ValueError: tensors of other shapes, or an opacity outside [0, 1].

    Example:
        >>> overlay(torch.rand(3, 224, 224), torch.rand(7, 7)).size
        (224, 224)
    """
    if image.ndim != 3 or len(image) != 3 or map_.ndim != 2:
        raise ValueError(
            f"image and map have shapes {tuple(image.shape)} and {tuple(map_.shape)}: expected "
            "(3, H, W) and (h, w)"
        )
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError(
            f"pixels range from {float(image.min()):.3g} to {float(image.max()):.3g}: expected "
            "[0, 1], as Backbone.read gives them"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}: expected 0 to 1")
    pixels = image.detach().cpu().movedim(0, 2).numpy()[None]
    found = over(map_.detach().cpu().float().numpy()[None], pixels, opacity)
    return Image.fromarray((255 * found[0]).round().astype(np.uint8))


def over(maps: Floats, images: Floats, opacity: float = 0.6) -> Floats:
    """Maps (n, h, w) over images (n, H, W, 3): their colours over the greys of the image."""
    colours = coloured(shown(maps, images.shape[1:3]))
    mixed: Floats = (1 - opacity) * images.mean(axis=3, keepdims=True) + opacity * colours
    return mixed


def shown(maps: Floats, size: tuple[int, ...]) -> Floats:
    """Maps (n, h, w) as pictures show them, (n, H, W): 1 at the `PERCENTILE` of their pixels.

    At the size of the image, as the metrics see them. A map with less than one pixel in a hundred
    above zero is shown as it is.
    """
    native = torch.from_numpy(np.array(maps, np.float32, order="C"))
    resized = Maps(native, (size[0], size[1]), [0] * len(maps)).resized
    top = np.array([np.percentile(own, PERCENTILE) for own in resized.numpy()], np.float32)
    found: Floats = (resized.numpy() / np.where(top > 0, top, 1.0)[:, None, None]).clip(max=1)
    return found


def coloured(values: Floats) -> Floats:
    """Values (...) in [0, 1] as colours (..., 3)."""
    found: Floats = mpl.colormaps[COLOURS](values)[..., :3]
    return found


def why_blank(map_: Floats) -> str:
    """Why nothing is seen of a map (h, w); empty if something is."""
    if not np.isfinite(map_).all():
        return "NaN"
    return "one value" if map_.min() == map_.max() else ""


def read_heat_maps(backbone: str, explainers: pd.DataFrame, count: int) -> Figure:
    """The heat maps of a few images, spread over those that all explainers have explained."""
    every = [results.read_array(results.maps_path(backbone, n)) for n in explainers["explainer"]]
    split = read_split(results.SPLITS, "evaluation")
    chosen = np.unique(np.linspace(0, min(map(len, every)) - 1, count).round().astype(int))
    images = split.images(torch.from_numpy(chosen)).permute(0, 2, 3, 1).numpy()
    targets = results.read_table(results.targets_path(backbone)).iloc[chosen]
    names = [named(own) for own in with_labels(targets, split.table.iloc[chosen])]
    return heat_maps(explainers, names, images, [maps[chosen] for maps in every])


def with_labels(targets: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of results/targets/ with `label`, what the image is of where that is another class."""
    labels = table.get("class_name", pd.Series("", index=table.index)).fillna("")
    indices = table.get("class_index", pd.Series(-1, index=table.index))
    rows = []
    for own, index, label in zip(targets.to_dict("records"), indices, labels, strict=True):
        other = index >= 0 and index != own["class_index"]
        rows.append({str(key): value for key, value in own.items()} | {"label": label * other})
    return rows


def named(target: dict[str, object]) -> str:
    """The explained class of an image, its probability, and its label where that is another."""
    name = target["class_name"]
    text = str(name) if isinstance(name, str) and name else f"class {target['class_index']}"
    text += f", {target['probability']:g}\N{NO-BREAK SPACE}%"
    return f"{text} (is {target['label']})" if target["label"] else text


def heat_maps(
    explainers: pd.DataFrame, names: list[str], images: Floats, maps: list[Floats]
) -> Figure:
    """The maps over the images, as the metrics see them: a row an explainer, in two halves."""
    half = math.ceil(len(explainers) / 2)
    left, top, bottom = (round(inches * DPI) for inches in (1.09, 0.9, 0.55))
    side = min(round(THUMBNAIL * DPI), (int(PORTRAIT * DPI / 2) - left) // len(names) - GAP)
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
        axis.imshow(in_few_colours(mosaic(rows, half + 1)), interpolation="none", aspect="auto")
        label_pictures(axis, side, names, explainers.iloc[first:][:half])
        label_blanks(axis, side, maps[first:][:half])
    kinds = [marker_of(kind) for kind in dict.fromkeys(explainers["kind"])]
    figure.legend(
        handles=kinds, loc="lower center", ncols=len(kinds), frameon=False, labelcolor="linecolor",
        handlelength=0, handletextpad=0, markerscale=0,
    )  # fmt: skip
    return figure


def thumbnails(images: Floats, side: int) -> NDArray[np.uint8]:
    """Images (n, H, W, 3) in [0, 1] as (n, side, side, 3)."""
    full = [Image.fromarray(pixels) for pixels in (255 * images).round().astype(np.uint8)]
    small = [image.resize((side, side), Image.Resampling.LANCZOS) for image in full]
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


def in_few_colours(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) in 256 colours, dithered: a third of the size in a PDF."""
    few = Image.fromarray(picture).quantize(256)
    dithered = Image.fromarray(picture).quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
    return np.asarray(dithered.convert("RGB"))


def label_pictures(axis: Axes, side: int, names: list[str], explainers: pd.DataFrame) -> None:
    """Name the columns of a mosaic, and its rows below the first."""
    wide = side * 110 // DPI // 8
    columns = [textwrap.fill(name, wide, break_long_words=False, max_lines=4) for name in names]
    rows = [textwrap.fill(label, 13) for label in explainers["label"]]
    middles = (side + GAP) * np.arange(1 + max(len(columns), len(rows))) + side / 2
    axis.set_xticks(middles[: len(columns)], columns, fontsize=9)
    axis.set_yticks(middles[1 : len(rows) + 1], rows, fontsize=10)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    for text, kind in zip(axis.get_yticklabels(), explainers["kind"], strict=True):
        text.set_color(STYLES[kind][0])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def label_blanks(axis: Axes, side: int, maps: list[Floats]) -> None:
    """Write on the pictures of maps in which nothing is seen, why."""
    for row, own in enumerate(maps, start=1):
        for column, map_ in enumerate(own):
            middle = (side + GAP) * np.array([column, row]) + side / 2
            x, y = (float(end) for end in middle)
            axis.text(x, y, why_blank(map_), color="w", fontsize=8, ha="center", va="center")
