"""From per-image scores to the comparison and the ablation: CSV, Markdown and LaTeX."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

import metrics
from benchmark import store
from benchmark.params import Params
from benchmark.params import Tables as Settings
from benchmark.stage import run
from metrics import Measure

LONG_COLUMNS = ["backbone", "explainer", "metric", "level", "value", "low", "high", "n"]

COSTS = {"images_forward": "Images forward", "images_backward": "Images backward"}
"""Costs shown in the comparison, with their labels."""


@dataclass(frozen=True)
class Column:
    """A column of a printed table: a measure at a level, or its mean over levels (level None)."""

    metric: str
    level: float | None
    label: str
    higher_is_better: bool

    @property
    def heading(self) -> str:
        """The label with the arrow of the good direction."""
        return f"{self.label} {'↑' if self.higher_is_better else '↓'}"


def main(params: Params) -> None:
    """Write results/tables/ and results/summary.json."""
    cells = [
        store.read_scores(store.scores_path(c.backbone, c.explainer)) for c in params.cells.values()
    ]
    variants = [store.read_scores(store.ablation_path(key)) for key in params.ablation]
    known = metrics.measures()
    costs = pd.concat(
        [read_cost(c.backbone, c.explainer) for c in params.cells.values()], ignore_index=True
    )
    labels = dict(zip(costs["explainer"], costs.pop("label"), strict=True))
    comparison = summarise(cells, params.tables, params.seed)
    comparison = pd.concat([comparison, costs], ignore_index=True)[LONG_COLUMNS]
    ablation = summarise(variants, params.tables, params.seed)[LONG_COLUMNS]
    write("comparison", comparison, known, labels.__getitem__)
    write("ablation", ablation, known, lambda variant: variant.replace("_", " "))
    store.write_json(store.RESULTS / "summary.json", summary(comparison))


def summarise(scores: Iterable[pd.DataFrame], settings: Settings, seed: int) -> pd.DataFrame:
    """Means over images with bootstrap intervals, in the columns of the long form.

    Args:
        scores: per-image scores, one frame a cell.
        settings: number of resamples and confidence of the percentile bootstrap.
        seed: of the resampling; every cell draws the same images.

    Raises:
        ValueError: cells of one backbone differ in weights, preprocessing or images.
    """
    scores = list(scores)
    refuse_mixture(scores)
    rows = []
    for cell in scores:
        means = cell.pivot_table(index="image", columns="metric", values="value")
        means = means[[m for m in means if m.startswith("road")]].add_suffix("_mean")
        table = cell.pivot_table(index="image", columns=["metric", "level"], values="value")
        matrix = pd.concat([table, means], axis=1)
        interval = bootstrap(
            (matrix.to_numpy(),),
            np.mean,
            axis=0,
            n_resamples=settings.resamples,
            confidence_level=settings.confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        for i, name in enumerate(matrix.columns):
            metric, level = name if isinstance(name, tuple) else (name, None)
            rows.append(
                {
                    "backbone": cell["backbone"].iloc[0],
                    "explainer": cell["explainer"].iloc[0],
                    "metric": metric,
                    "level": level,
                    "value": matrix.iloc[:, i].mean(),
                    "low": interval.low[i],
                    "high": interval.high[i],
                    "n": len(matrix),
                }
            )
    return pd.DataFrame(rows)


def refuse_mixture(scores: list[pd.DataFrame]) -> None:
    """Refuse cells of a backbone that saw other weights, preprocessing or images.

    Raises:
        ValueError: names the first cell that differs from the first of its backbone.
    """
    first: dict[str, tuple[str, set[str], set[str]]] = {}
    for cell in scores:
        backbone, explainer = cell["backbone"].iloc[0], cell["explainer"].iloc[0]
        weights, images = set(cell["weights"]), set(cell["image"])
        name, known_weights, known_images = first.setdefault(backbone, (explainer, weights, images))
        if weights != known_weights or len(weights) != 1:
            raise ValueError(
                f"{explainer} on {backbone} was scored with weights {', '.join(sorted(weights))}, "
                f"{name} with {', '.join(sorted(known_weights))}: expected the same weights and "
                "preprocessing, run `dvc repro` to score both again"
            )
        if images != known_images:
            raise ValueError(
                f"{explainer} on {backbone} has scores of {len(images)} images, {name} of "
                f"{len(known_images)}: expected the same images, run `dvc repro`"
            )


def read_cost(backbone: str, explainer: str) -> pd.DataFrame:
    """The label of a cell and its costs, in the columns of the long form."""
    cost = store.read_json(store.cost_path(backbone, explainer))
    rows = [
        {
            "backbone": backbone,
            "explainer": explainer,
            "label": cost["label"],
            "metric": name,
            "level": np.nan,
            "value": cost[name],
            "low": cost[name],
            "high": cost[name],
            "n": cost["images"],
        }
        for name in COSTS
    ]
    return pd.DataFrame(rows)


def columns(table: pd.DataFrame, known: dict[str, Measure]) -> list[Column]:
    """The columns of the printed table: AD and IC by level, the means of ROAD, and the costs."""
    found = []
    levels = sorted(table.loc[table["metric"] == "average_drop", "level"].unique(), reverse=True)
    for level in levels:
        for name in ("average_drop", "increase_in_confidence"):
            measure = known[name]
            label = f"{measure.label} {level:g} %"
            found.append(Column(name, level, label, measure.higher_is_better))
    for name in ("road_morf", "road_lerf"):
        measure = known[name]
        found.append(Column(f"{name}_mean", None, measure.label, measure.higher_is_better))
    present = set(table["metric"])
    found += [Column(c, None, label, False) for c, label in COSTS.items() if c in present]
    return found


def printed(
    table: pd.DataFrame,
    known: dict[str, Measure],
    label: Callable[[str], str],
    style: Callable[[str, str, bool], str],
) -> pd.DataFrame:
    """The table as text, a row an explainer.

    Args:
        table: the long form.
        known: measures by name.
        label: the printed name of an explainer.
        style: (value, interval or "", whether it is the best) to a cell's text.
    """
    rows = []
    for backbone, block in table.groupby("backbone", sort=False):
        best = {c: best_value(select(block, c), c) for c in columns(table, known)}
        for explainer, own in block.groupby("explainer", sort=False):
            row = {"Backbone": backbone, "Explainer": label(str(explainer))}
            for column, winner in best.items():
                entry = select(own, column).iloc[0]
                cost = column.metric in COSTS
                value = f"{entry['value']:.4g}" if cost else f"{entry['value']:.1f}"
                interval = "" if cost else f"{entry['low']:.0f}–{entry['high']:.0f}"
                row[column.heading] = style(value, interval, not cost and value == winner)
            rows.append(row)
    return pd.DataFrame(rows)


def select(table: pd.DataFrame, column: Column) -> pd.DataFrame:
    """The rows of the long form that a column shows."""
    rows = table[table["metric"] == column.metric]
    return (
        rows[rows["level"].isna()] if column.level is None else rows[rows["level"] == column.level]
    )


def best_value(rows: pd.DataFrame, column: Column) -> str:
    """The best value of a column, as it is printed."""
    values = rows["value"]
    return f"{values.max() if column.higher_is_better else values.min():.1f}"


def markdown_cell(value: str, interval: str, best: bool) -> str:
    """A cell in Markdown: the best bold, the interval small."""
    value = f"**{value}**" if best else value
    return f"{value} <sub>{interval}</sub>" if interval else value


def latex_cell(value: str, interval: str, best: bool) -> str:
    """A cell in LaTeX: the best bold, the interval small."""
    value = rf"\textbf{{{value}}}" if best else value
    interval = interval.replace("–", "--")
    return rf"{value} {{\scriptsize {interval}}}" if interval else value


def write(
    name: str, table: pd.DataFrame, known: dict[str, Measure], label: Callable[[str], str]
) -> None:
    """Write `name` as .csv (long form), .md and .tex (booktabs)."""
    store.write_csv(store.TABLES / f"{name}.csv", table)
    markdown = printed(table, known, label, markdown_cell)
    right = ["left", "left"] + ["right"] * (len(markdown.columns) - 2)
    text = markdown.to_markdown(index=False, colalign=right, disable_numparse=True)
    store.write_text(store.TABLES / f"{name}.md", text + "\n")
    latex = printed(table, known, label, latex_cell)
    latex["Backbone"] = latex["Backbone"].str.replace("_", r"\_")
    latex = latex.rename(columns=latex_heading)
    alignment = "ll" + "r" * (len(latex.columns) - 2)
    text = latex.style.hide(axis="index").to_latex(hrules=True, column_format=alignment)
    store.write_text(store.TABLES / f"{name}.tex", text)


def latex_heading(heading: str) -> str:
    """A heading with LaTeX's arrows and per cent signs."""
    heading = heading.replace("%", r"\%")
    return heading.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$")


def summary(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The means by backbone, explainer and measure, for `dvc metrics`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in table.itertuples():
        cell = found.setdefault(row.backbone, {}).setdefault(row.explainer, {})
        level = "" if np.isnan(row.level) else f"_{row.level:g}"
        cell[f"{row.metric}{level}"] = float(f"{row.value:.6g}")
    return found


if __name__ == "__main__":
    run(main)
