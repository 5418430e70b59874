"""The tables that people read: which there are, and what is in a row and in a column."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmark.core.params import Variant
from benchmark.report.measures import TARGETS, Known, averaged, measure_of, of_metric
from benchmark.report.rendering import Entry, Mark

BETTER, WORSE = "better", "worse"
"""Than the first explainer, by the main claims."""

COSTS = {"images_forward": "Images forward", "images_backward": "Images backward"}
"""Costs shown in the comparison, with their labels."""

CONFIDENCE = ["average_drop+increase_in_confidence"]
"""The measures of the comparison in the T-TAME paper."""

PROTOCOL = [*CONFIDENCE, "road_morf_mean", "road_lerf_mean"]
"""All measures of the T-TAME paper, a column each."""

RANKED = [*PROTOCOL, "average_gain", "deletion_black", "insertion_blur", "energy_pointing_game"]
"""The measures by which the printed table ranks the explainers."""

MORE = ["average_gain", "comprehensiveness_mean", "sufficiency_mean", "srg_area"]
"""Further measures of faithfulness, beside deletion and insertion."""

ORDERS = {"road_morf": "MoRF ↓", "road_lerf": "LeRF ↑"}
"""The two halves of the ROAD table."""

SEED_RANK, SEED_SPREAD = "seed_rank", "seed_spread"
"""The rank correlation of the maps of two seeds; the spread of the AD over training seeds."""

SIMILARITIES = {"randomisation_ssim": "SSIM", "randomisation_rank": "Rank"}
"""What the sanity check measures, with its labels."""

SHORT = [*CONFIDENCE, "road_morf_area", "road_lerf_area", "pointing_game"]
"""The measures of the short table."""

CLAIMED = [*PROTOCOL, "energy_pointing_game"]
"""The measures of which the main claims are told in words."""

HEADLINE = ("AD 100 %", "ROAD MoRF mean", "Energy in object")
"""Those of them that the README tells."""

READABLE = 6
"""Names that a sentence lists at most."""

UNLIKELY = 1.0
"""Per cent: an explained class of less is hardly in the image, and AD and IC of it say little."""

CAPTIONS = {
    "short": "The paper's methods and baselines",
    "comparison": "Average Drop and Increase in Confidence, and images through the network",
    "road": "ROAD: per cent of predictions unchanged after removing pixels",
    "faithfulness": "Further measures of faithfulness",
    "maps": "The maps themselves: localisation, complexity, degenerate maps",
    "ranks": "Mean ranks over the images that all explainers have",
    "decided": "How many differences the tests decide",
    "training": "AD at 100 % on the validation images, after each epoch",
    "ablation": "Variants of T-TAME: means over seeds",
    "delta": "Reference arithmetic minus corrected",
    "randomisation": "Similarity of maps when layers are randomised from the top",
    "reported": "Published values",
}
"""The printed tables, in the order of the document; `reported` exists where values are known."""


@dataclass(frozen=True)
class Column:
    """A column of a printed table: a measure at a level, or over levels (level None)."""

    metric: str
    level: float | None
    label: str
    higher_is_better: bool
    of_one: bool
    """Whether the values are shares of one, not per cent."""

    @property
    def heading(self) -> str:
        """The label with the arrow of the good direction."""
        return f"{self.label} {'↑' if self.higher_is_better else '↓'}"

    def text(self, value: float) -> str:
        """A value of this column: per cent with one decimal, shares of one with three."""
        return f"{value:.3f}" if self.of_one else f"{value:.1f}"

    def interval(self, low: float, high: float) -> str:
        """An interval, rounded outwards: per cent without a decimal, shares of one with two."""
        unit = 100 if self.of_one else 1
        # What is a whole number but for float rounding stays it.
        # Zero is added to what may be -0.
        ends = np.floor(round(low * unit, 6)) / unit, np.ceil(round(high * unit, 6)) / unit + 0.0
        return "–".join(f"{end:.2f}" if self.of_one else f"{end:.0f}" for end in ends)

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a long form that it shows."""
        levels = table["level"].isna() if self.level is None else table["level"] == self.level
        return table[(table["metric"] == self.metric) & levels]

    def entry(self, row: pd.Series) -> Entry:
        """A row of a long form as it is printed."""
        if self.metric in COSTS:
            return Entry(f"{row['value']:.4g}")
        mark: Mark = "best" if row["best"] else "" if row["separated"] else "tied"
        interval = self.interval(row["low"], row["high"])
        return Entry(self.text(row["value"]), interval, mark, row.get("against_main", ""))


def printed_tables(
    own: dict[str, pd.DataFrame],
    known: Known,
    labels: dict[str, str],
    variants: dict[str, Variant],
    chosen: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """The printed tables of a backbone, by name, from its long forms.

    Args:
        own: the long forms.
        known: the measures.
        labels: of the explainers; those that agree share a row where scores are compared.
        variants: of the ablation study.
        chosen: the explainers of the short table, all if empty.
    """
    apart, labels = labels, share_labels(labels, own["alike"])
    comparison = drop_repeated(own["comparison"], own["alike"])
    ranks = drop_repeated(own["ranks"], own["alike"])

    def explainers(shown: Iterable[str]) -> pd.DataFrame:
        return printed(comparison, columns(comparison, shown, known), labels)

    main = labels[comparison["explainer"].iloc[0]]
    return {
        "short": short_table(comparison, known, labels, shown_as(chosen, own["alike"])),
        "comparison": with_seeds(explainers([*CONFIDENCE, *COSTS]), own["stability"], labels),
        "road": road_table(comparison, known, labels),
        "faithfulness": explainers([*of_metric("deletion_insertion", known), *MORE]),
        "maps": explainers(
            name
            for metric in ("localisation", "complexity", "degeneracy")
            for name in of_metric(metric, known)
        ),
        "ranks": rank_table(ranks, known, labels),
        "decided": decided_table(own["decided"], known, main),
        "training": training_table(own["training"], apart),
        "ablation": ablation_table(own["ablation"], known, variants),
        "delta": delta_table(own["delta"], known, apart),
        "randomisation": randomisation_table(own["randomisation"], apart),
        "reported": reported_table(own["reported"], known, apart),
    }


def describe_claims(
    own: dict[str, pd.DataFrame], known: Known, labels: dict[str, str], chosen: Sequence[str] = ()
) -> dict[str, str]:
    """What the main claims say on a backbone, a line of Markdown a measure and level, by its label.

    Args:
        own: the long forms.
        known: the measures.
        labels: of the explainers.
        chosen: explainers that are named where there are too many to name all.
    """
    labels = share_labels(labels, own["alike"])
    table = drop_repeated(own["comparison"], own["alike"])
    first_ones = [labels[name] for name in shown_as(chosen, own["alike"]) if name in labels]
    lines = {}
    for c in columns(table, CLAIMED, known):
        first, *others = [row for _, row in c.of(table).iterrows()]
        groups: dict[str, list[str]] = {BETTER: [], WORSE: [], "": []}
        for row in others:
            groups[row["against_main"]].append(labels[row["explainer"]])
        texts = [enumerate_names(names, first_ones) for names in groups.values()]
        main = labels[first["explainer"]]
        line = (
            f"- {c.label}: {main} {c.text(first['value'])} ({int(first['n'])} images). Better than "
            f"{main}: {texts[0]}. Worse: {texts[1]}. Not told apart: {texts[2]}."
        )
        lines[c.label] = line + describe_seeds(c, c.of(own["seed_claims"]), labels) + "\n"
    return lines


def describe_targets(table: pd.DataFrame, target: str | int) -> str:
    """A sentence: which class is explained, and how many images hardly have it.

    Args:
        table: of results/targets/.
        target: of the parameters.
    """
    what = TARGETS.get(str(target), f"class {target}")
    values = table["probability"]
    unlikely = int((values < UNLIKELY).sum())
    sentence = (
        f"Explained class: {what}. Its median probability over {len(table)} images is "
        f"{values.median():.0f} %; for {unlikely} of them it is below {UNLIKELY:g} %"
    )
    tail = "" if target == "predicted" else "; ROAD asks for the predicted class and is left out"
    return f"{sentence}{tail}.\n"


def describe_trusted(layers: dict[str, float]) -> list[str]:
    """A line about the layers that are read although the parameters alone vouch for them, if any.

    Args:
        layers: how far each follows the image, see Project.trusted_layers.
    """
    if not layers:
        return []
    named = ", ".join(f"{name} ({follows:.2f})" for name, follows in layers.items())
    return [
        f"- Trusted layers: {named}. Explainers read them because the parameters say so; in "
        "brackets the rank correlation of where an image changes and where the layer does.\n"
    ]


def describe_seeds(c: Column, claims: pd.DataFrame, labels: dict[str, str]) -> str:
    """What holds of a measure's claims whichever seed trained the first explainer; empty if none.

    Args:
        c: the measure at a level.
        claims: the rows of summaries.claims_of_seeds of it.
        labels: of the explainers.
    """
    if claims.empty:
        return ""
    values = claims.drop_duplicates("seed")["value"]
    seeds = len(values)
    said = claims.groupby("explainer", sort=False)["against_main"]
    texts = []
    for word in (BETTER, WORSE):
        often = said.agg(lambda s, w=word: (s == w).sum())
        always = [labels[name] for name in often.index[often == seeds]]
        text = f"{word} with all: {enumerate_names(always)}"
        some = often[(often > 0) & (often < seeds)]
        if len(some):
            names = [f"{labels[name]} ({number})" for name, number in some.items()]
            text += f"; {word} with some: {enumerate_names(names)}"
        texts.append(text)
    return (
        f" Over {seeds} training seeds ({c.text(values.min())} to {c.text(values.max())}): "
        f"{'; '.join(texts)}."
    )


def describe_answers(table: pd.DataFrame, known: Known, variants: dict[str, Variant]) -> str:
    """What the variants of the study change, a line a variant, as Markdown.

    Args:
        table: of summaries.answers, of one backbone.
        known: the measures.
        variants: of the study on this backbone.
    """
    shown = columns(table, PROTOCOL, known)
    lines = []
    for name, own in table.groupby("explainer", sort=False):
        groups: dict[str, list[str]] = {BETTER: [], WORSE: [], "": []}
        for c in shown:
            row = c.of(own).iloc[0]
            value, low, high = (signed(row[name]) for name in ("value", "low", "high"))
            text = f"{c.label} ({value}, {low} to {high})"
            groups[row["told"]].append(text)
        variant, seeds = variants[str(name)], int(own["n"].iloc[0])
        texts = [", ".join(found) or "nothing" for found in groups.values()]
        lines.append(
            f"- {variant.question}: {variant.label}, {seeds} seeds. Better: {texts[0]}. Worse: "
            f"{texts[1]}. Not told apart: {texts[2]}.\n"
        )
    return "".join(lines)


def signed(value: float) -> str:
    """A difference as it is printed; there is no -0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def enumerate_names(names: list[str], chosen: Sequence[str] = ()) -> str:
    """Names in a line; where they are too many to be read, the chosen ones and how many more."""
    if len(names) <= READABLE:
        return ", ".join(names) or "none"
    named = [name for name in names if name in chosen]
    left = len(names) - len(named)
    return ", ".join([*named, *([f"{left} {'more' if named else 'others'}"] if left else [])])


def columns(table: pd.DataFrame, shown: Iterable[str], known: Known) -> list[Column]:
    """The columns of a printed table: `shown` as far as the long form has them.

    Measures that are written together, as AD and IC are, take turns level by level; NAME_mean and
    NAME_area are over levels.
    """
    found = []
    for names in shown:
        together = [name for name in names.split("+") if name in set(table["metric"])]
        levels = table.loc[table["metric"].isin(together), "level"].unique()
        for level in sorted(levels, reverse=True):
            found += [column(name, None if np.isnan(level) else level, known) for name in together]
    return found


def column(name: str, level: float | None, known: Known) -> Column:
    """The column of a measure, mean or cost at a level."""
    if name in COSTS:
        return Column(name, level, COSTS[name], higher_is_better=False, of_one=False)
    measure = measure_of(name, known)
    over_levels = "" if name in known else f" {name.rpartition('_')[2]}"
    label = measure.label + over_levels if level is None else f"{measure.label} {level:g} %"
    of_one = measure.bounds == (0, 1)
    return Column(name, level, label, measure.higher_is_better, of_one)


def printed(table: pd.DataFrame, shown: list[Column], labels: dict[str, str]) -> pd.DataFrame:
    """The long form of a backbone as it is printed, a row an explainer, and of how many images.

    Nothing shown makes a table without rows. A row that is of fewer images than the first also says
    what the first explainer has on these.
    """
    if table.empty or not shown:
        return pd.DataFrame()
    scored = [c for c in shown if c.metric not in COSTS]
    counts = {
        name: sorted({int(n) for c in scored for n in c.of(own)["n"]})
        for name, own in table.groupby("explainer", sort=False)
    }
    first = next(iter(counts))
    rows = []
    for name, own in table.groupby("explainer", sort=False):
        row: dict[str, Any] = {"Explainer": labels[str(name)]}
        if scored:
            row["n"] = Entry(ranged(counts[name]))
        for c in shown:
            (_, values), *_ = c.of(own).iterrows()
            row[c.heading] = c.entry(values)
            if c in scored and values["n"] < c.of(table)["n"].iloc[0]:
                text = c.text(values["main_value"])
                row[c.heading] = row[c.heading]._replace(beside=f"{labels[first]} {text}")
        rows.append(row)
    return pd.DataFrame(rows)


def ranged(numbers: Sequence[int]) -> str:
    """The least and the most of numbers in order, as they are printed; one where these are one."""
    ends = dict.fromkeys((numbers[0], numbers[-1]))
    return "–".join(map(str, ends))


def drop_repeated(table: pd.DataFrame, same: pd.DataFrame) -> pd.DataFrame:
    """A long form without the explainers that agree with one before."""
    return table[~table["explainer"].isin(same["explainer"])]


def share_labels(labels: dict[str, str], same: pd.DataFrame) -> dict[str, str]:
    """The labels of explainers; one that stands for others that agree has theirs as well."""
    again = same.groupby("same_as")["explainer"].agg(list)
    shared = {
        name: " = ".join(labels[n] for n in (name, *others)) for name, others in again.items()
    }
    return labels | shared


def shown_as(explainers: Sequence[str], same: pd.DataFrame) -> list[str]:
    """The explainers whose rows some are in: the first of those that agree."""
    firsts = dict(zip(same["explainer"], same["same_as"], strict=True))
    return [firsts.get(name, name) for name in explainers]


def short_table(
    table: pd.DataFrame, known: Known, labels: dict[str, str], chosen: Sequence[str]
) -> pd.DataFrame:
    """Some explainers at the main measures, without intervals, and their passes."""
    found = printed(table, columns(table, SHORT, known), labels)
    if found.empty:
        return found
    passes = table.set_index(["explainer", "metric"])["value"]
    names = table["explainer"].unique()
    cost = [Entry(" + ".join(f"{passes[name, c]:.4g}" for c in COSTS)) for name in names]
    found = found.map(lambda c: c if isinstance(c, str) else c._replace(interval=""))
    found = found.assign(Passes=cost)
    return found[[not chosen or name in chosen for name in names]].reset_index(drop=True)


def with_seeds(
    table: pd.DataFrame, stability: pd.DataFrame, labels: dict[str, str]
) -> pd.DataFrame:
    """A printed table with what another seed changes, in a last column; empty where there is none.

    The rank correlation of the maps, or after ± the standard deviation of the AD at 50 % over
    training seeds.
    """
    texts = {}
    for _, row in stability.iterrows():
        text = f"{row['value']:.2f}" if row["metric"] == SEED_RANK else f"± {row['value']:.1f}"
        texts[labels[row["explainer"]]] = f"{text} unstable" if row["unstable"] else text
    return table.assign(Seeds=[Entry(texts.get(name, "")) for name in table["Explainer"]])


def road_table(table: pd.DataFrame, known: Known, labels: dict[str, str]) -> pd.DataFrame:
    """ROAD at every level and its area, the explainers by MoRF and then by LeRF."""
    halves = []
    for metric, order in ORDERS.items():
        shown = [*columns(table, [metric], known)[::-1], *columns(table, [f"{metric}_area"], known)]
        half = printed(table, shown, labels)
        if half.empty:
            continue
        levels = [f"{c.level:g} %" if c.level is not None else "area" for c in shown]
        half.columns = pd.Index(["Explainer", "n", *levels])
        half.insert(1, "Order", order)
        halves.append(half)
    return pd.concat(halves, ignore_index=True) if halves else pd.DataFrame()


def ablation_table(table: pd.DataFrame, known: Known, variants: dict[str, Variant]) -> pd.DataFrame:
    """The variants of T-TAME, a row a variant."""
    shown = columns(table, PROTOCOL, known)
    found = printed(table, shown, {name: v.label for name, v in variants.items()})
    if found.empty:
        return found
    found = found.rename(columns={"Explainer": "Variant", "n": "Seeds"})
    names = table["explainer"].unique()
    found.insert(0, "Question", [variants[name].question or "baseline" for name in names])
    return found


def rank_table(table: pd.DataFrame, known: Known, labels: dict[str, str]) -> pd.DataFrame:
    """Mean ranks at the measures of RANKED, a row an explainer; images, and critical difference.

    Ranks within the critical difference of the best are marked as tied. A single explainer has no
    ranks, and the table no rows.
    """
    shown = columns(table, RANKED, known)
    if not shown:
        return pd.DataFrame()
    rows = []
    for explainer in table["explainer"].unique():
        row: dict[str, Any] = {"Explainer": labels[explainer]}
        for c in shown:
            own = c.of(table)
            rank = own.loc[own["explainer"] == explainer, "rank"].iloc[0]
            gap, difference = rank - own["rank"].min(), own["critical_difference"].iloc[0]
            mark: Mark = "best" if gap == 0 else "tied" if gap < difference else ""
            row[c.label] = Entry(f"{rank:.2f}", mark=mark)
        rows.append(row)
    images = {c.label: Entry(f"{c.of(table)['n'].iloc[0]}") for c in shown}
    gaps = {c.label: c.of(table)["critical_difference"].iloc[0] for c in shown}
    rows.append({"Explainer": "images"} | images)
    closing = {label: Entry(f"{gap:.2f}") for label, gap in gaps.items()}
    rows.append({"Explainer": "critical difference"} | closing)
    return pd.DataFrame(rows)


def decided_table(table: pd.DataFrame, known: Known, main: str) -> pd.DataFrame:
    """How many differences the tests decide, a row a measure: of all pairs, and of the claims.

    n is the number of images that a pair has. The claims are the pairs of the first explainer,
    `main`; each family is corrected by itself. A single explainer has no pairs, and the table no
    rows.
    """
    rows = []
    for c in columns(table, RANKED, known):
        own = c.of(table).iloc[0]
        undecided = own["claims"] - own["better"] - own["worse"]
        rows.append(
            {
                "Measure": c.heading,
                "n": Entry(ranged([int(own["n_least"]), int(own["n_most"])])),
                "All pairs": Entry(f"{own['pairs']}"),
                "of these decided": Entry(f"{own['decided']}"),
                f"Claims: {main} better": Entry(f"{own['better']}"),
                f"{main} worse": Entry(f"{own['worse']}"),
                "not decided": Entry(f"{undecided}"),
            }
        )
    return pd.DataFrame(rows)


def training_table(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The validation AD of trained explainers, a column an epoch; and images of unseen classes."""
    rows = []
    for explainer, own in table.groupby("explainer", sort=False):
        row: dict[str, Any] = {"Explainer": labels[str(explainer)]}
        unseen = own["unseen"].iloc[0]
        count = "not counted" if np.isnan(unseen) else f"{unseen:.0f} of {own['n'].iloc[0]}"
        row["Unseen"] = Entry(count)
        values = zip(own["epoch"], own["value"], strict=True)
        rows.append(row | {f"{epoch:g}": Entry(f"{value:.1f}") for epoch, value in values})
    return pd.DataFrame(rows).fillna("")


def delta_table(table: pd.DataFrame, known: Known, labels: dict[str, str]) -> pd.DataFrame:
    """The reference's value minus the corrected one, AD and IC by level, ROAD over its levels."""
    road = table["metric"].isin(averaged(known))
    groups = table[road].groupby(["backbone", "explainer", "metric"], sort=False)
    mean = groups[["delta", "n"]].mean().reset_index().assign(level=np.nan)
    mean["metric"] += "_mean"
    table = pd.concat([table[~road], mean], ignore_index=True)
    rows = []
    for explainer, own in table.groupby("explainer", sort=False):
        row: dict[str, Any] = {"Explainer": labels[str(explainer)]}
        row["n"] = Entry(f"{own['n'].max():.0f}")
        for c in columns(table, PROTOCOL, known):
            row[c.label] = Entry(signed(c.of(own)["delta"].iloc[0]))
        rows.append(row)
    return pd.DataFrame(rows)


def randomisation_table(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Similarity of the maps to those of the trained network, a row an explainer."""
    rows = []
    for explainer, own in table.groupby("explainer", sort=False):
        row: dict[str, Any] = {"Explainer": labels[str(explainer)]}
        row["n"] = Entry(f"{own['n'].max():.0f}")
        values = own.set_index(["metric", "level"])["value"]
        for metric, label in SIMILARITIES.items():
            for level in sorted(own["level"].unique()):
                row[f"{label}, {level:g} %"] = Entry(f"{values[metric, level]:.2f}")
        row["Changes"] = "≡ no" if own["unchanged"].any() else "yes"
        rows.append(row)
    return pd.DataFrame(rows)


def reported_table(table: pd.DataFrame, known: Known, labels: dict[str, str]) -> pd.DataFrame:
    """Published values beside this suite's, a row a value; no difference of what is not alike."""
    rows = []
    for _, row in table.iterrows():
        c = column(row["metric"], None if np.isnan(row["level"]) else row["level"], known)
        rows.append(
            {
                "Explainer": labels[row["explainer"]],
                "Measure": c.heading,
                "n": Entry(f"{row['n']:.0f}"),
                "Here": Entry(c.text(row["value"]), c.entry(row).interval),
                "Reported": Entry(c.text(row["reported"])),
                "Difference": Entry(f"{row['difference']:+.1f}" if row["like_for_like"] else ""),
                "Source": row["source"],
            }
        )
    return pd.DataFrame(rows)
