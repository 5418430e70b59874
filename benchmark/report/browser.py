"""One file to look at: tables, figures, and a browser of the evaluation images.

What the browser shows are the very images that AD, IC and ROAD saw, made again by the metrics from
the stored maps and seeds, and scaled down. The file needs nothing beside it and no network.
"""

import base64
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Params
from benchmark.data.splits import Split
from benchmark.engine import scoring
from benchmark.report.drawing import STYLES
from benchmark.report.figures import describe_explainers, read_medians
from benchmark.report.printed import CAPTIONS
from benchmark.report.rendering import CLAIMS, Entry
from methods import Backbone
from metrics import MODES, Perturbation
from metrics.confidence import KEPT
from metrics.road import REMOVED

TEMPLATE = Path(__file__).with_name("page.html.jinja")

PHOTOGRAPH = 224
"""Side of the photographs under the maps, in pixels."""

COLOURS = "inferno"
"""Matplotlib's colours of the maps: perceptually uniform."""

SHOWN = ("ttame", "gradcam", "rise", "centre_gaussian")
"""Explainers that the browser shows at first, as far as a backbone has them."""

SCORED = {
    "average_drop": "AD",
    "increase_in_confidence": "IC",
    "road_morf": "ROAD MoRF",
    "road_lerf": "ROAD LeRF",
}
"""Per-image scores in the browser, with their labels."""


class Cell(NamedTuple):
    """An explainer on a backbone, with the files of its maps and scores."""

    backbone: str
    explainer: str
    label: str
    kind: str
    maps: Path
    scores: Path
    trained: bool


class Table(NamedTuple):
    """A table of entries."""

    backbone: str
    caption: str
    headings: list[str]
    rows: list[list[Entry]]


def render(
    project: Project,
    cells: dict[str, dict[str, Any]],
    tables: list[Table],
    figures: list[tuple[str, str]],
    split: Split,
) -> str:
    """A page.

    Args:
        project: mode, metrics and the page's settings.
        cells: what the browser shows, by backbone and explainer, see `describe_cell`.
        tables: in their order.
        figures: caption and data URI of each.
        split: the images that the browser shows.
    """
    params = project.params
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # explainers in their order
    template = environment.from_string(TEMPLATE.read_text())
    text: str = template.render(
        params=params,
        backbones=list(dict.fromkeys(table.backbone for table in tables)),
        tables=tables,
        figures=figures,
        browser=frame_of(params, split) | {"backbones": cells},
        kinds={kind: colour for kind, (colour, _) in STYLES.items()},
        scored=SCORED,
        claims=CLAIMS,
        runtime=about_runtime(),
    )
    return text


def cells_of(project: Project, backbone: str) -> list[Cell]:
    """The cells of a backbone, those of a kind together."""
    trained = {cell.explainer for cell in project.trained(backbone)}
    return [
        Cell(
            backbone,
            own.explainer,
            own.label,
            own.kind,
            results.maps_path(backbone, own.explainer),
            results.scores_path(backbone, own.explainer),
            own.explainer in trained,
        )
        for own in describe_explainers(project, backbone).itertuples()
    ]


def tables_of(project: Project, backbone: str) -> Iterator[Table]:
    """Every printed table of a backbone, and its runtime."""
    for name, caption in CAPTIONS.items():
        path = results.TABLES / backbone / f"{name}.csv"
        if path.is_file():
            yield as_table(backbone, caption, pd.read_csv(path, dtype=str).fillna(""))
    medians = read_medians(project, backbone)
    if medians:
        labels = describe_explainers(project, backbone).set_index("explainer")["label"]
        yield as_table(backbone, "Runtime and memory", runtime_table(medians, labels))


def as_table(backbone: str, caption: str, table: pd.DataFrame) -> Table:
    """A table as rendering.plain has it: what belongs to a value stands in columns after it."""
    parts = (" interval", " mark", " claim", " beside")
    headings = [str(c) for c in table.columns if not str(c).endswith(parts)]
    empty = pd.Series("", index=table.index)
    columns = [
        [table[heading], *(table.get(f"{heading}{part}", empty) for part in parts)]
        for heading in headings
    ]
    rows = [[Entry(*(part[i] for part in column)) for column in columns] for i in range(len(table))]
    return Table(backbone, caption, headings, rows)


def runtime_table(medians: dict[str, dict[str, float]], labels: pd.Series) -> pd.DataFrame:
    """The figures of results/runtime/medians.json, a row an explainer."""
    rows = []
    for explainer, values in medians.items():
        row = {"Explainer": labels.get(explainer, "bare forward pass")}
        for name, value in values.items():
            figure, _, size = name.rpartition("_")
            unit = {"seconds": "seconds", "ratio": "forward passes", "peak_mb": "peak MB"}
            if figure in unit:
                row[f"{unit[figure]}, {size} image{'s' if size != '1' else ''}"] = f"{value:.3g}"
            elif figure == "images":
                row[f"images {size}"] = f"{value:g}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def about_runtime() -> str:
    """The machine on which the runtime was measured, empty if it was not."""
    path = results.RUNTIME / "raw.json"
    if not path.is_file():
        return ""
    info = results.read_json(path)["machine_info"]
    device = info["cpu"].get("brand_raw", info["machine"])
    device = device if info["device"] == "cpu" else info["device"]
    return f"{device}, {info['cores']} cores, {info['threads']} threads, torch {info['torch']}"


def figures_of() -> list[tuple[str, str]]:
    """The figures of results/plots/: caption and data URI."""
    return [
        (path.stem.replace("_", " "), uri(path.read_bytes(), "png"))
        for path in sorted(results.PLOTS.glob("*.png"))
    ]


def frame_of(params: Params, split: Split) -> dict[str, Any]:
    """What the browser of the images needs beside the cells, for JSON."""
    photographs = split.images(slice(len(split)))
    return {
        "photographs": [webp(p, params.page.quality + 30) for p in scaled(photographs, PHOTOGRAPH)],
        "names": [f"{i}: {name}" for i, name in enumerate(names_of(split), start=1)],
        "side": params.page.side,
        "kept": levels(params, "confidence", "kept", KEPT),
        "removed": levels(params, "road", "removed", REMOVED),
        "colours": (mpl.colormaps[COLOURS](np.arange(256))[:, :3] * 255).astype(int).tolist(),
        "shown": SHOWN,
    }


def describe_cell(params: Params, cell: Cell, network: Backbone, split: Split) -> dict[str, Any]:
    """What the browser shows of a cell, for JSON."""
    return {
        "label": cell.label,
        "kind": cell.kind,
        "sprites": sprites(params, cell, network, split, split.images(slice(len(split)))),
        "scores": scores_of(cell, split),
    }


def names_of(split: Split) -> list[str]:
    """What is written below the images: the class, where the split knows its name."""
    return [str(name) for name in split.table.get("class_name", split.table["id"])]


def levels(params: Params, metric: str, key: str, default: Iterable[float]) -> list[float]:
    """The levels of a metric; none if it is not in params.yaml."""
    if metric not in params.evaluate.metrics:
        return []
    return list(params.evaluate.settings[metric].get(key, default))


def scores_of(cell: Cell, split: Split) -> dict[str, dict[str, list[float]]]:
    """The per-image scores of a cell: measure to level to a value an image."""
    table = results.read_scores(cell.scores)
    table = table[table["metric"].isin(SCORED)]
    found: dict[str, dict[str, list[float]]] = {}
    for (metric, level), own in table.groupby(["metric", "level"]):
        values = own.set_index("image")["value"].loc[split.ids]
        found.setdefault(metric, {})[f"{level:g}"] = [float(f"{v:.4g}") for v in values]
    return found


def sprites(
    params: Params, cell: Cell, backbone: Backbone, split: Split, photographs: Tensor
) -> list[str]:
    """For each image one picture of tiles side by side: the map, and what the metrics saw."""
    native = torch.from_numpy(results.read_array(cell.maps)[: len(split)])
    seeds = scoring.image_seeds(params.seed, split)
    maps = MODES[params.mode](native, photographs.shape[2:], seeds)
    tiles = [maps.resized[:, None, None].expand(-1, -1, 3, -1, -1)]
    tiles += [metric.perturb(photographs, maps) for metric in suite(params, backbone, cell)]
    every = torch.cat(tiles, dim=1)
    small = scaled(every.flatten(0, 1), params.page.side).unflatten(0, every.shape[:2])
    strips = small.permute(0, 2, 3, 1, 4).flatten(3)  # tiles (V) beside each other
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda strip: webp(strip, params.page.quality), strips))


def suite(params: Params, backbone: Backbone, cell: Cell) -> list[Perturbation]:
    """The metrics whose images are shown: AD and IC, then ROAD."""
    chosen: dict[str, dict[str, Any]] = {
        name: params.evaluate.settings[name]
        for name in ("confidence", "road")
        if name in params.evaluate.metrics
    }
    found = scoring.build_suite(chosen, params.mode, backbone, trained=cell.trained)
    return [metric for metric in found if isinstance(metric, Perturbation)]


def scaled(pixels: Tensor, side: int) -> Tensor:
    """Pixels (N, 3, H, W) in [0, 1] as uint8 (N, 3, side, side)."""
    small = F.interpolate(pixels, size=(side, side), mode="area")
    return (small.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def webp(pixels: Tensor, quality: int) -> str:
    """The data URI of uint8 pixels (3, H, W)."""
    array: NDArray[np.uint8] = pixels.permute(1, 2, 0).contiguous().numpy()
    found = io.BytesIO()
    Image.fromarray(array).save(found, format="webp", quality=min(quality, 100), method=1)
    return uri(found.getvalue(), "webp")


def uri(content: bytes, kind: str) -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
