"""A page to look at: tables, figures, and a browser of the evaluation images.

What the browser shows are the very images that AD, IC and ROAD saw, made again by the metrics from
the stored maps and seeds, and scaled down. The page needs the pictures beside it and no network.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmark.core import results
from benchmark.core.cells import Project, suite_version
from benchmark.core.params import Params
from benchmark.data.splits import Split
from benchmark.engine import scoring
from benchmark.report.drawing import STYLES
from benchmark.report.figures import about_runtime, describe_explainers, read_medians
from benchmark.report.heat_maps import coloured, named, shown, why_blank, with_labels
from benchmark.report.measures import TARGETS
from benchmark.report.printed import CAPTIONS
from benchmark.report.rendering import CLAIMS, Entry
from methods import Backbone
from metrics import MODES, Perturbation
from metrics.confidence import KEPT
from metrics.road import REMOVED

TEMPLATE = Path(__file__).with_name("page.html.jinja")

PHOTOGRAPH = 224
"""Side of the photographs under the maps, in pixels."""

SHOWN = ("ttame", "gradcam", "rise", "centre_gaussian")
"""Explainers that the browser shows at first, as far as a backbone has them."""

SCORED = {
    "average_drop": "AD",
    "increase_in_confidence": "IC",
    "road_morf": "ROAD MoRF",
    "road_lerf": "ROAD LeRF",
}
"""Per-image scores in the browser, with their labels."""


TITLES = {
    "complexity": "On how few pixels a map stands",
    "confidence": "Average Drop and Increase in Confidence",
    "degeneracy": "Maps that say nothing",
    "deletion_insertion": "Deletion and insertion",
    "heat_maps": "Heat maps",
    "localisation": "Does the map lie on the object?",
    "quality_runtime": "Quality and cost",
    "randomisation": "Maps of shuffled weights",
    "road": "ROAD",
}
"""What the figures of a backbone are about, by the end of their names."""


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
    note: str = ""


class Shown(NamedTuple):
    """A figure of the page: its name in words, its file beside the page, and its caption."""

    name: str
    source: str
    caption: str


def render(
    project: Project,
    cells: dict[str, dict[str, Any]],
    tables: list[Table],
    figures: list[Shown],
    split: Split,
    folder: Path,
) -> str:
    """A page.

    Args:
        project: mode, metrics and the page's settings.
        cells: what the browser shows, by backbone and explainer, see `describe_cell`.
        tables: in their order.
        figures: in their order.
        split: the images that the browser shows.
        folder: of its pictures, beside the page.
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
        browser=frame_of(params, split, folder)
        | {"backbones": cells, "explained": {b: describe_backbone(b, split) for b in cells}},
        kinds={kind: colour for kind, (colour, _) in STYLES.items()},
        scored={m: label for m, label in SCORED.items() if agrees(params) or "road" not in m},
        claims=CLAIMS,
        runtime=about_runtime(),
        images=len(split),
        version=suite_version(),
        target=TARGETS.get(str(params.target), f"class {params.target}"),
        probabilities=[f"{median_probability(b):.0f} % on {b}" for b in params.backbones],
    )
    return text


def median_probability(backbone: str) -> float:
    """Of the explained class over the evaluation images, in per cent."""
    return float(results.read_table(results.targets_path(backbone))["probability"].median())


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


def figures_of(backbones: Iterable[str]) -> list[Shown]:
    """The figures of results/plots/, which lies beside the page."""
    return [
        Shown(
            title_of(path.stem, backbones),
            f"{results.PLOTS.name}/{path.name}",
            caption.read_text().strip() if (caption := path.with_suffix(".md")).is_file() else "",
        )
        for path in sorted(results.PLOTS.glob("*.png"))
    ]


def title_of(figure: str, backbones: Iterable[str]) -> str:
    """What a figure is about, in words, and which backbone's it is."""
    for backbone in backbones:
        kind = figure.removeprefix(f"{backbone}_")
        if kind != figure:
            trained = kind.removesuffix("_training")
            said = TITLES.get(kind, kind) if trained == kind else f"Training of {trained}"
            return f"{said}, {backbone}"
    return figure.replace("ablation_", "Ablation: ")


def frame_of(params: Params, split: Split, folder: Path) -> dict[str, Any]:
    """What the browser of the images needs beside the cells, for JSON; writes the photographs."""
    photographs = scaled(split.images(slice(len(split))), PHOTOGRAPH)
    for number, pixels in enumerate(photographs):
        path = folder / f"photograph-{number}.webp"
        results.write_bytes(path, webp(pixels, params.page.quality + 30))
    return {
        "photographs": [f"{folder.name}/photograph-{i}.webp" for i in range(len(split))],
        "names": [f"{i}: {name}" for i, name in enumerate(names_of(split), start=1)],
        "side": params.page.side,
        "kept": levels(params, "confidence", "kept", KEPT),
        "removed": levels(params, "road", "removed", REMOVED) if agrees(params) else [],
        "shown": SHOWN,
    }


def agrees(params: Params) -> bool:
    """Whether measures of agreement, as ROAD's, mean something: the prediction is explained."""
    return params.target == "predicted"


def describe_backbone(backbone: str, split: Split) -> list[str]:
    """The explained class of each image, its probability, and its label where it is another."""
    targets = results.read_table(results.targets_path(backbone)).iloc[: len(split)]
    return [named(own) for own in with_labels(targets, split.table)]


def describe_cell(
    params: Params, cell: Cell, network: Backbone, split: Split, picture: Path
) -> dict[str, Any]:
    """What the browser shows of a cell, for JSON; writes its picture."""
    images = split.images(slice(len(split)))
    results.write_bytes(picture, sheet(params, cell, network, split, images))
    return {
        "label": cell.label,
        "kind": cell.kind,
        "sheet": f"{picture.parent.name}/{picture.name}",
        "scores": scores_of(cell, split),
        "blank": [why_blank(m) for m in results.read_array(cell.maps)[: len(split)]],
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


def sheet(
    params: Params, cell: Cell, backbone: Backbone, split: Split, photographs: Tensor
) -> bytes:
    """A row an image, of tiles side by side: the map in colours, and what the metrics saw."""
    native = np.array(results.read_array(cell.maps)[: len(split)])
    seeds = scoring.image_seeds(params.seed, split)
    maps = MODES[params.mode](torch.from_numpy(native), photographs.shape[2:], seeds)
    colours = torch.from_numpy(coloured(shown(native, photographs.shape[2:])))
    tiles = [colours.float().permute(0, 3, 1, 2)[:, None]]
    tiles += [metric.perturb(photographs, maps) for metric in suite(params, backbone, cell)]
    every = torch.cat(tiles, dim=1)
    small = scaled(every.flatten(0, 1), params.page.side).unflatten(0, every.shape[:2])
    rows = small.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)  # (3, images H, tiles W)
    return webp(rows, params.page.quality)


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


def webp(pixels: Tensor, quality: int) -> bytes:
    """A picture of uint8 pixels (3, H, W)."""
    array: NDArray[np.uint8] = pixels.permute(1, 2, 0).contiguous().numpy()
    found = io.BytesIO()
    Image.fromarray(array).save(found, format="webp", quality=min(quality, 100), method=1)
    return found.getvalue()
