"""From per-image scores to the comparison and the ablation: CSV, Markdown and LaTeX."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

import metrics
from benchmark import store
from benchmark.params import Params
from benchmark.params import Tables as Settings
from benchmark.stage import run
from benchmark.statistics import matrix, means, pairs, ranks
from metrics import Measure

LONG_COLUMNS = ["backbone", "explainer", "metric", "level", "value", "low", "high", "n"]

COSTS = {"images_forward": "Images forward", "images_backward": "Images backward"}
"""Costs shown in the comparison, with their labels."""

KNOWN = metrics.measures()

AVERAGED = [measure.name for measure in metrics.load("road").measures]
"""Measures of which the tables show the mean over levels."""

PROTOCOL = ["average_drop+increase_in_confidence", "road_morf_mean", "road_lerf_mean"]
"""The measures of the T-TAME paper."""

RANKED = [*PROTOCOL, "average_gain", "deletion_black", "insertion_blur", "energy_pointing_game"]
"""The measures by which the printed table ranks the explainers."""

PAIRED = {name for names in RANKED for name in names.split("+")}
"""The measures by which explainers are compared in pairs."""

SIMILARITIES = {"randomisation_ssim": "SSIM", "randomisation_rank": "Rank"}
"""What the sanity check measures, with its labels."""

UNCHANGED = 0.9
"""From this similarity on, an explainer is said not to change with the network's weights."""

PRINTED = {
    "comparison": [*PROTOCOL, *COSTS],
    "faithfulness": [
        "average_gain",
        *(m.name for m in metrics.load("deletion_insertion").measures),
        "comprehensiveness_mean",
        "sufficiency_mean",
    ],
    "maps": [
        measure.name
        for name in ("localisation", "complexity", "degeneracy")
        for measure in metrics.load(name).measures
    ],
}
"""The printed tables of the explainers and what they show of the comparison."""


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

    def text(self, value: float) -> str:
        """A value of this column: per cent with one decimal, shares of one with three."""
        return f"{value:.3f}" if self.of_one else f"{value:.1f}"

    def end(self, value: float) -> str:
        """An end of an interval."""
        return f"{value:.2f}" if self.of_one else f"{value:.0f}"

    @property
    def of_one(self) -> bool:
        """Whether the values are shares of one, not per cent."""
        return self.metric not in COSTS and measure_of(self.metric).bounds == (0, 1)


def measure_of(name: str) -> Measure:
    """The measure called `name`, or whose mean over levels NAME_mean is."""
    return KNOWN[name if name in KNOWN else name.removesuffix("_mean")]


def main(params: Params) -> None:
    """Write results/tables/ and results/summary.json."""
    cells = [
        store.read_scores(store.scores_path(c.backbone, c.explainer)) for c in params.cells.values()
    ]
    variants = [store.read_scores(store.ablation_path(key)) for key in params.ablation]
    costs = pd.concat(
        [read_cost(c.backbone, c.explainer) for c in params.cells.values()], ignore_index=True
    )
    labels = dict(zip(costs["explainer"], costs.pop("label"), strict=True))
    scored = summarise(cells, params.tables, params.seed)
    comparison = pd.concat([scored, costs], ignore_index=True)[LONG_COLUMNS]
    ablation = summarise(variants, params.tables, params.seed)
    write_long("comparison", comparison)
    for name, columns in PRINTED.items():
        write_printed(name, comparison, columns, labels.__getitem__)
    write_long("ablation", ablation)
    write_printed("ablation", ablation, PROTOCOL, lambda variant: variant.replace("_", " "))
    write_long("pairs", by_backbone(cells, lambda t: paired(t, params.tables, params.seed)))
    good = {c: measure_of(c).higher_is_better for c in scored["metric"].unique()}
    placed = by_backbone(cells, lambda t: ranks(t, good, params.tables.confidence))
    write_long("ranks", placed)
    write_text_table("ranks", rank_table(placed, labels))
    deltas = pd.concat(
        [store.read_table(store.delta_path(c.backbone, c.explainer)) for c in params.cells.values()]
    )
    write_long("delta", deltas)
    write_text_table("delta", delta_table(deltas, labels))
    shuffled = [
        store.read_scores(store.randomisation_path(c.backbone, c.explainer))
        for c in params.cells.values()
    ]
    similarity = marked(summarise(shuffled, params.tables, params.seed))
    write_long("randomisation", similarity)
    write_text_table("randomisation", randomisation_table(similarity, labels))
    store.write_json(store.RESULTS / "summary.json", summary(comparison))


def paired(tables: dict[str, pd.DataFrame], settings: Settings, seed: int) -> pd.DataFrame:
    """Every pair of explainers at the measures of PAIRED, see statistics.pairs."""
    kept = {
        explainer: table.loc[:, table.columns.get_level_values("metric").isin(PAIRED)]
        for explainer, table in tables.items()
    }
    return pairs(kept, settings, seed)


def marked(table: pd.DataFrame) -> pd.DataFrame:
    """Similarities with the column `unchanged`: whether a cell's maps hardly know the weights.

    That is, whether SSIM and rank correlation are at least UNCHANGED where most is randomised.
    """
    most = table[table["level"] == table["level"].max()]
    least = most.groupby(["backbone", "explainer"], sort=False)["value"].min()
    unchanged = (least >= UNCHANGED).rename("unchanged")
    return table.join(unchanged, on=["backbone", "explainer"])


def randomisation_table(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Similarity of the maps to those of the trained network, a row an explainer."""
    rows = []
    for (backbone, explainer), own in table.groupby(["backbone", "explainer"], sort=False):
        row = {"Backbone": backbone, "Explainer": labels[explainer]}
        values = own.set_index(["metric", "level"])["value"]
        for metric, label in SIMILARITIES.items():
            for level in sorted(own["level"].unique()):
                row[f"{label}, {level:g} %"] = f"{values[metric, level]:.2f}"
        row["Changes"] = "**no**" if own["unchanged"].any() else "yes"
        rows.append(row)
    return pd.DataFrame(rows)


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
    parts = []
    for cell in scores:
        part = means(matrix(cell, AVERAGED), settings, seed)
        part.insert(0, "backbone", cell["backbone"].iloc[0])
        part.insert(1, "explainer", cell["explainer"].iloc[0])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def by_backbone(
    scores: list[pd.DataFrame], compare: Callable[[dict[str, pd.DataFrame]], pd.DataFrame]
) -> pd.DataFrame:
    """What `compare` says of the explainers of each backbone, given their matrices."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for cell in scores:
        block = found.setdefault(cell["backbone"].iloc[0], {})
        block[cell["explainer"].iloc[0]] = matrix(cell, AVERAGED)
    parts = []
    for backbone, block in found.items():
        part = compare(block)
        part.insert(0, "backbone", backbone)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


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


def columns(table: pd.DataFrame, shown: Iterable[str]) -> list[Column]:
    """The columns of a printed table: `shown` as far as the long form has them.

    Measures that are written together, as AD and IC are, take turns level by level; NAME_mean is
    a mean over levels.
    """
    found = []
    for names in shown:
        together = [name for name in names.split("+") if name in set(table["metric"])]
        levels = table.loc[table["metric"].isin(together), "level"].unique()
        for level in sorted(levels, reverse=True):
            found += [column(name, None if np.isnan(level) else level) for name in together]
    return found


def column(name: str, level: float | None) -> Column:
    """The column of a measure, mean or cost at a level."""
    if name in COSTS:
        return Column(name, level, COSTS[name], higher_is_better=False)
    measure = measure_of(name)
    label = measure.label if level is None else f"{measure.label} {level:g} %"
    return Column(name, level, label, measure.higher_is_better)


def printed(
    table: pd.DataFrame,
    shown: Iterable[str],
    label: Callable[[str], str],
    style: Callable[[str, str, bool], str],
) -> pd.DataFrame:
    """The table as text, a row an explainer.

    Args:
        table: the long form.
        shown: its measures, see `columns`.
        label: the printed name of an explainer.
        style: (value, interval or "", whether it is the best) to a cell's text.
    """
    rows = []
    for backbone, block in table.groupby("backbone", sort=False):
        best = {c: best_value(select(block, c), c) for c in columns(table, shown)}
        for explainer, own in block.groupby("explainer", sort=False):
            row = {"Backbone": backbone, "Explainer": label(str(explainer))}
            for column, winner in best.items():
                entry = select(own, column).iloc[0]
                cost = column.metric in COSTS
                value = f"{entry['value']:.4g}" if cost else column.text(entry["value"])
                interval = "" if cost else f"{column.end(entry['low'])}–{column.end(entry['high'])}"
                row[column.heading] = style(value, interval, not cost and value == winner)
            rows.append(row)
    return pd.DataFrame(rows)


def rank_table(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Mean ranks at the measures of RANKED, a row an explainer, and the critical difference."""
    rows = []
    for backbone, block in table.groupby("backbone", sort=False):
        for explainer, own in block.groupby("explainer", sort=False):
            row = {"Backbone": backbone, "Explainer": labels[str(explainer)]}
            for c in columns(table, RANKED):
                row[c.label] = f"{select(own, c)['rank'].iloc[0]:.2f}"
            rows.append(row)
        difference = block["critical_difference"].iloc[0]
        closing = {"Backbone": backbone, "Explainer": "critical difference"}
        rows.append(closing | {c.label: f"{difference:.2f}" for c in columns(table, RANKED)})
    return pd.DataFrame(rows)


def delta_table(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The reference's value minus the corrected one, AD and IC by level, ROAD over its levels."""
    table = table.copy()
    road = table["metric"].isin(AVERAGED)
    mean = table[road].groupby(["backbone", "explainer", "metric"], sort=False)["delta"].mean()
    mean = mean.reset_index().assign(level=np.nan)
    mean["metric"] += "_mean"
    table = pd.concat([table[~road], mean], ignore_index=True)
    rows = []
    for (backbone, explainer), own in table.groupby(["backbone", "explainer"], sort=False):
        row = {"Backbone": backbone, "Explainer": labels[explainer]}
        for c in columns(table, PROTOCOL):
            row[c.label] = f"{select(own, c)['delta'].iloc[0] + 0.0:+.1f}".replace("-0.0", "+0.0")
        rows.append(row)
    return pd.DataFrame(rows)


def select(table: pd.DataFrame, column: Column) -> pd.DataFrame:
    """The rows of the long form that a column shows."""
    rows = table[table["metric"] == column.metric]
    return (
        rows[rows["level"].isna()] if column.level is None else rows[rows["level"] == column.level]
    )


def best_value(rows: pd.DataFrame, column: Column) -> str:
    """The best value of a column, as it is printed; empty where all are alike."""
    low, high = column.text(rows["value"].min()), column.text(rows["value"].max())
    if low == high and len(rows) > 1:
        return ""
    return high if column.higher_is_better else low


def markdown_cell(value: str, interval: str, best: bool) -> str:
    """A cell in Markdown: the best bold, the interval small."""
    value = f"**{value}**" if best else value
    return f"{value} <sub>{interval}</sub>" if interval else value


def latex_cell(value: str, interval: str, best: bool) -> str:
    """A cell in LaTeX: the best bold, the interval small."""
    value = rf"\textbf{{{value}}}" if best else value
    interval = interval.replace("–", "--")
    return rf"{value} {{\scriptsize {interval}}}" if interval else value


def write_long(name: str, table: pd.DataFrame) -> None:
    """Write a table of results/tables/ as CSV."""
    store.write_csv(store.TABLES / f"{name}.csv", table)


def write_printed(
    name: str, table: pd.DataFrame, shown: Iterable[str], label: Callable[[str], str]
) -> None:
    """Write what people read of a long form, as .md and .tex."""
    shown = list(shown)
    markdown = printed(table, shown, label, markdown_cell)
    write_text_table(name, markdown, printed(table, shown, label, latex_cell))


def write_text_table(name: str, markdown: pd.DataFrame, latex: pd.DataFrame | None = None) -> None:
    """Write a table of texts as .md and .tex (booktabs)."""
    latex = (markdown if latex is None else latex).copy()
    store.write_markdown(store.TABLES / f"{name}.md", markdown, left=2)
    latex["Backbone"] = latex["Backbone"].str.replace("_", r"\_")
    latex = latex.replace({"**no**": r"\textbf{no}"})
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
