"""How every figure looks, and how it becomes PNG and PDF with stable bytes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.rcsetup import cycler
from numpy.typing import NDArray
from PIL import Image, ImageColor

from benchmark.core import results

Floats = NDArray[np.floating[Any]]

WIDTH = 9.0
"""Inches: letters of 11 points are 8 at the width of a page (7 inches), 4 at that of a column."""

PORTRAIT = 10.5
"""Inches: the width of what stands on a page alone; letters there are 7 points of 11."""

ROW = 0.27
"""Inches: the height of a row of an explainer."""

ARROWS = {True: "↑", False: "↓"}
"""The good direction of a measure, by `higher_is_better`."""

DPI = 200
"""Dots an inch of a PNG, as journals ask for."""

LARGE = 300_000
"""Bytes of a PNG from which on it has few colours."""

PERCENTILE = 99
"""Of a map's pixels, what is shown in full colour: one pixel in a hundred may be brighter."""

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


def style() -> Any:
    """Matplotlib's settings for every figure: the font ships with it, PDF embeds it as text."""
    return {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook"),
        "axes.prop_cycle": cycler(color=sns.color_palette("colorblind")),
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
        "pdf.fonttype": 42,
        "figure.dpi": DPI,
    }


def write(path: Path, figure: Figure, caption: str) -> None:
    """Write a figure as PNG and PDF, and its caption, to a path without suffix."""
    fix_layout(figure)
    for suffix, drawn in ((".png", png(figure)), (".pdf", pdf(figure))):
        results.write_bytes(path.with_name(path.name + suffix), drawn)
    results.write_text(path.with_name(f"{path.name}.md"), f"{caption}\n")


def render(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    """A figure in one format, without date or version, so that its bytes are stable.

    Cut to what is drawn on it, plus matplotlib's margin.
    """
    drawn = io.BytesIO()
    area = figure.get_tightbbox().padded(rcParams["savefig.pad_inches"])
    figure.savefig(drawn, format=kind, bbox_inches=area, dpi=DPI, metadata=metadata)
    return drawn.getvalue()


def png(figure: Figure) -> bytes:
    """A figure as PNG; a large one in 256 colours, a third of the size, those of STYLES exact."""
    drawn = render(figure, "png", {"Software": None})
    if len(drawn) < LARGE:
        return drawn
    full = Image.open(io.BytesIO(drawn)).convert("RGB")
    sample = full.resize((full.width // 2, full.height // 2), Image.Resampling.NEAREST)
    fixed = [channel for colour, _ in STYLES.values() for channel in ImageColor.getrgb(colour)]
    few = sample.quantize(256 - len(STYLES))
    few.putpalette([*(few.getpalette() or [])[: 768 - len(fixed)], *fixed])
    found = io.BytesIO()
    dithered = full.quantize(palette=few, dither=Image.Dither.NONE)
    dithered.save(found, format="png", optimize=True)
    return found.getvalue()


def pdf(figure: Figure) -> bytes:
    """A figure as PDF; text stays text."""
    return render(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None})


def canvas(
    rows: int, columns: int, height: float, width: float = WIDTH, **subplots: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure of `rows` x `columns` axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False, **subplots))


def interval(rows: pd.DataFrame) -> Floats:
    """Distances of the interval's ends from the value, (2, n)."""
    return np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(0)


def marker_of(kind: str) -> Line2D:
    """A kind's entry in a legend."""
    colour, marker = STYLES[kind]
    return Line2D([], [], color=colour, marker=marker, ms=8, ls="", label=kind)


def fix_layout(figure: Figure) -> None:
    """Lay a figure out and keep the layout, so that what is drawn next can build on it."""
    if figure.get_layout_engine() is not None:
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # "none" would lay out, and draw, once more for each file
