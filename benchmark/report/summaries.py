"""From per-image scores to the long form of every table: a row an explainer, measure and level.

Scores are all it takes; torch is not imported.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Params
from benchmark.core.params import Tables as Settings
from benchmark.report.measures import Known, averaged, measure_of
from benchmark.report.printed import BETTER, COSTS, RANKED, SEED_RANK, SEED_SPREAD, WORSE
from benchmark.report.statistics import (
    against_best,
    against_first,
    matrix,
    means,
    over_seeds,
    pairs,
    ranks,
)

KEY = ["backbone", "explainer", "metric", "level"]
"""What a row of the long form is of."""

LONG_COLUMNS = [*KEY, "value", "low", "high", "n", "best", "separated"]
"""The long form; `best` and `separated` as in statistics.against_best."""

COMPARED_COLUMNS = [*LONG_COLUMNS, "main_value", "against_main"]
"""That of the comparison: the value of the first explainer on the same images, and whether the main
claims say that a row is better or worse than it, see `beside_main`."""


REPORTED_COLUMNS = [*KEY, "value", "like_for_like", "source"]
"""Published values, see results/reported/; of the same network and protocol, or not."""

PAIRED = {name for names in RANKED for name in names.split("+")}
"""The measures by which explainers are compared in pairs."""

Matrices = dict[str, dict[str, pd.DataFrame]]
"""Scores by backbone and explainer, see `matrices`."""

Study = dict[tuple[str, str], pd.DataFrame]
"""Scores by backbone and variant, see `read_study`."""

Seeds = dict[tuple[str, str], dict[int, pd.DataFrame]]
"""Scores by backbone and variant, and seed, see `each_seed`."""

SEED_COLUMNS = ["backbone", "explainer", "seed", "metric", "level", "value"]
"""Means of every seed."""

ROUNDING = 1.01 * 10.0 ** (1 - results.DIGITS)
"""By how much scores of the same maps differ, as a share: one in the last digit."""

AGREE = 0.999
"""The share of scores of the same maps that agree at least: where two pixels are as relevant,
rounding may decide which of them is removed first."""

DERIVED = {"srg"}
"""Measures that others of the same images determine: what differs there would count twice."""

ENDS = (0, 1, 100)
"""The ends of the ranges of scores."""

UNSTABLE = 0.8
"""Below this rank correlation of two seeds the maps of an explainer are said to be unstable."""

UNCHANGED = 0.9
"""From this similarity on, an explainer is said not to change with the network's weights."""


def long_forms(project: Project, known: Known) -> dict[str, pd.DataFrame]:
    """Every table as programs read it, by name, from the stored scores.

    Explainers that agree, see `alike`, are one in the tests and ranks.
    """
    params, cells = project.params, project.all_cells()
    scores = [results.read_scores(results.scores_path(c.backbone, c.explainer)) for c in cells]
    names, confidence = averaged(known), params.tables.confidence
    same = alike(scores)
    apart = matrices(distinct(scores, same), names)
    comparison = compared(scores, same, apart, known, params)
    good = {name: measure_of(name, known).higher_is_better for name in scored_names(comparison)}
    costs = [read_cost(c.backbone, c.explainer) for c in cells]
    comparison = pd.concat([comparison, *costs], ignore_index=True)[COMPARED_COLUMNS]
    published = read_reported(params.code / results.REPORTED, known)
    paired = by_backbone(apart, lambda t: pairs(chosen(t), params.tables, params.seed))
    deltas = [results.read_table(results.delta_path(c.backbone, c.explainer)) for c in cells]
    sanity = read_randomisation(project)
    seeds = each_seed(read_study(project), names)
    variants, of_seeds = ablated(seeds, known, confidence)
    return {
        "comparison": comparison,
        "reported": beside_reported(comparison, published),
        "alike": same,
        "pairs": paired,
        "decided": decided(paired, good, confidence),
        "ranks": by_backbone(apart, lambda t: ranks(t, good, confidence)),
        "delta": pd.concat(deltas),
        "randomisation": marked(randomisation(sanity, params)),
        "stability": stability(project, sanity, of_seeds),
        "training": validation_curves(project),
        "ablation": variants,
        "ablation_seeds": of_seeds,
        "answers": answers(project, seeds, good, confidence),
        "seed_claims": claims_of_seeds(project, seeds, apart, good, confidence),
    }


def alike(scores: list[pd.DataFrame]) -> pd.DataFrame:
    """Explainers whose scores agree to rounding with those of one before, image by image.

    Returns:
        columns backbone, explainer and same_as, the first of those that agree.
    """
    rows: list[tuple[str, str, str]] = []
    firsts: dict[tuple[str, str], pd.Series] = {}
    for cell in scores:
        backbone, explainer = cell["backbone"].iloc[0], cell["explainer"].iloc[0]
        counted = cell[~cell["metric"].isin(DERIVED)]
        own = counted.set_index(["image", "metric", "level"])["value"]
        same = [n for (where, n), o in firsts.items() if where == backbone and agree(own, o)]
        if same:
            rows.append((backbone, explainer, same[0]))
        else:
            firsts[backbone, explainer] = own
    return pd.DataFrame(rows, columns=["backbone", "explainer", "same_as"])


def agree(one: pd.Series, other: pd.Series) -> bool:
    """Whether scores, by image, metric and level, are so near that the maps must be the same.

    Where both are at the same end of their range, as a drop of 0 is, the maps may well differ:
    these do not count, and there must be others of most images.
    """
    if not one.index.equals(other.index):
        return False
    told = ~(one.isin(ENDS) & (one == other))
    near = np.isclose(one[told], other[told], rtol=ROUNDING, atol=1e-3)
    images = one.index.get_level_values("image")
    enough = images[told].nunique() > images.nunique() / 2
    return bool(enough and near.mean() >= AGREE)


def distinct(scores: list[pd.DataFrame], same: pd.DataFrame) -> list[pd.DataFrame]:
    """The scores without those of explainers that agree with one before, see `alike`."""
    known = set(zip(same["backbone"], same["explainer"], strict=True))
    return [s for s in scores if (s["backbone"].iloc[0], s["explainer"].iloc[0]) not in known]


def repeated(table: pd.DataFrame, same: pd.DataFrame) -> pd.DataFrame:
    """A table of distinct explainers with the rows of those that agree, see `alike`."""
    keys = ["backbone", "explainer"]
    again = same.rename(columns={"explainer": "other", "same_as": "explainer"})
    rows = table.merge(again, on=keys).assign(explainer=lambda t: t["other"])
    return pd.concat([table, rows[table.columns]], ignore_index=True)


def scored_names(table: pd.DataFrame) -> list[str]:
    """The measures of a long form, without costs."""
    return [name for name in table["metric"].unique() if name not in COSTS]


def chosen(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The columns of PAIRED."""
    return {
        explainer: table.loc[:, table.columns.get_level_values("metric").isin(PAIRED)]
        for explainer, table in tables.items()
    }


def compared(
    cells: list[pd.DataFrame], same: pd.DataFrame, apart: Matrices, known: Known, params: Params
) -> pd.DataFrame:
    """The long form of cells of several backbones with all marks, without costs.

    Args:
        cells: their scores.
        same: which of them agree, see `alike`.
        apart: the others, see `distinct`.
        known: the measures.
        params: for bootstrap and tests.
    """
    names, confidence = averaged(known), params.tables.confidence
    long = summarise(cells, params.tables, params.seed, names)
    good = {name: measure_of(name, known).higher_is_better for name in scored_names(long)}
    marks = by_backbone(apart, lambda t: against_best(t, good, confidence))
    long = long.merge(repeated(marks, same), on=KEY, how="left", validate="one_to_one")
    claims = repeated(by_backbone(apart, against_first), same)
    return beside_main(long, claims, good, confidence)


def beside_main(
    table: pd.DataFrame, claims: pd.DataFrame, good: dict[str, bool], confidence: float
) -> pd.DataFrame:
    """A long form with what there is to say of the first explainer on the images of each row.

    Args:
        table: the long form.
        claims: of statistics.against_first.
        good: the good direction of each measure.
        confidence: one minus the level of the tests.

    Returns:
        the long form with the columns main_value, and against_main: `better` or `worse` where a
        test of the main claims tells a row from the first explainer, else empty.
    """
    table = table.merge(claims, on=KEY, how="left", validate="one_to_one", suffixes=("", "_both"))
    table["against_main"] = told(table, good, confidence)
    table["main_value"] = table["first_value"].where(table["n"] == table["n_both"])
    return table.drop(columns=["difference", "p", "n_both", "first_value"])


def told(claims: pd.DataFrame, good: dict[str, bool], confidence: float) -> NDArray[np.str_]:
    """Whether each row of claims is `better` or `worse` than the first explainer, or neither."""
    better = (claims["difference"] < 0) == claims["metric"].map(good)
    sure = claims["p"] < 1 - confidence
    return np.where(sure, np.where(better, BETTER, WORSE), "")


def decided(paired: pd.DataFrame, good: dict[str, bool], confidence: float) -> pd.DataFrame:
    """How many pairs the tests decide, a row a backbone, measure and level.

    Returns:
        pairs and decided (Holm over all pairs); claims, and how many of the explainers the first
        one is better and worse than (Holm over these main claims); n_least and n_most, the images
        of a pair.
    """
    level = 1 - confidence
    gain = paired["difference"].where(paired["metric"].map(good), -paired["difference"])
    claim = paired["p_main"] < level
    counts = pd.DataFrame(
        {
            "pairs": 1,
            "decided": paired["p_holm"] < level,
            "claims": paired["p_main"].notna(),
            "better": claim & (gain > 0),
            "worse": claim & (gain < 0),
        }
    ).astype(int)
    keys = [paired[name] for name in ("backbone", "metric", "level")]
    sums = counts.groupby(keys, dropna=False, sort=False).sum()
    images = paired["n"].groupby(keys, dropna=False, sort=False)
    return sums.assign(n_least=images.min(), n_most=images.max()).reset_index()


def summarise(
    scores: Iterable[pd.DataFrame], settings: Settings, seed: int, averaged: Sequence[str] = ()
) -> pd.DataFrame:
    """Means over images with bootstrap intervals, in the long form without marks.

    Args:
        scores: per-image scores, one frame a cell.
        settings: number of resamples and confidence of the percentile bootstrap.
        seed: of the resampling; cells of as many images draw the same ones.
        averaged: measures whose mean and area over levels follow, see statistics.matrix.

    Raises:
        ValueError: cells of one backbone differ in weights, preprocessing or the order of images.
    """
    scores = list(scores)
    refuse_mixture(scores)
    parts = []
    for cell in scores:
        part = means(matrix(cell, averaged), settings, seed)
        part.insert(0, "backbone", cell["backbone"].iloc[0])
        part.insert(1, "explainer", cell["explainer"].iloc[0])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def matrices(scores: list[pd.DataFrame], averaged: Sequence[str]) -> Matrices:
    """The scores of cells by backbone and explainer, see statistics.matrix."""
    found: Matrices = {}
    for cell in scores:
        block = found.setdefault(cell["backbone"].iloc[0], {})
        block[cell["explainer"].iloc[0]] = matrix(cell, averaged)
    return found


def by_backbone(
    tables: Matrices, compare: Callable[[dict[str, pd.DataFrame]], pd.DataFrame]
) -> pd.DataFrame:
    """What `compare` says of the explainers of each backbone."""
    parts = []
    for backbone, block in tables.items():
        part = compare(block)
        part.insert(0, "backbone", backbone)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def refuse_mixture(scores: list[pd.DataFrame]) -> None:
    """Refuse cells of a backbone that saw other weights, preprocessing or images.

    One may have more images than another.

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
        if not (images <= known_images or known_images <= images):
            raise ValueError(
                f"{explainer} on {backbone} has scores of {len(images)} images, {name} of "
                f"{len(known_images)}, and only {len(images & known_images)} are the same: "
                "expected the first of the same images, run `dvc repro`"
            )


def read_cost(backbone: str, explainer: str) -> pd.DataFrame:
    """The label of a cell and its costs, in the columns of the long form."""
    cost = results.read_json(results.cost_path(backbone, explainer))
    rows = [
        {"metric": name, "level": np.nan, "value": cost[name], "low": cost[name]}
        | {"high": cost[name], "n": cost["images"], "best": False, "separated": False}
        | {"main_value": np.nan, "against_main": ""}
        for name in COSTS
    ]
    names = {"backbone": backbone, "explainer": explainer, "label": cost["label"]}
    return pd.DataFrame(rows).assign(**names)


def read_reported(folder: Path, known: Known) -> pd.DataFrame:
    """The published values of every CSV of a folder.

    Raises:
        ValueError: a file with other columns than REPORTED_COLUMNS, an unknown measure, a value
            without a source or twice of one, a `like_for_like` that is neither true nor false.
    """
    parts = [pd.DataFrame(columns=REPORTED_COLUMNS)]
    for path in sorted(folder.glob("*.csv")):
        table = results.read_table(path)
        if list(table.columns) != REPORTED_COLUMNS:
            found, expected = ", ".join(table.columns), ", ".join(REPORTED_COLUMNS)
            raise ValueError(f"{path} has the columns {found}: expected {expected}")
        unknown = set(table["metric"]) - set(known)
        if unknown:
            raise ValueError(
                f"{path} has the metric {min(unknown)!r}: expected one of {', '.join(known)}"
            )
        if table["source"].isna().any():
            raise ValueError(f"{path} has a value without a source: expected where it came from")
        wrong = [value for value in table["like_for_like"] if value not in (True, False)]
        if wrong:
            raise ValueError(f"{path} has like_for_like {wrong[0]!r}: expected true or false")
        twice = table[table.duplicated([*KEY, "source"])]
        if len(twice):
            row = twice.iloc[0]
            raise ValueError(
                f"{path} has {row['metric']} at {row['level']} of {row['explainer']} twice from "
                "one source: expected once, remove one"
            )
        parts.append(table)
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def beside_reported(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The rows of a long form for which values were published, one for each source.

    Returns:
        the long form with the columns reported, difference (value - reported; of what is alike),
        like_for_like and source.
    """
    published = published.rename(columns={"value": "reported"})
    numbers = published.astype({"level": float, "reported": float})
    both = table.merge(numbers, on=KEY, how="inner", validate="one_to_many")
    difference = (both["value"] - both["reported"]).where(both["like_for_like"].astype(bool))
    both.insert(len(table.columns) + 1, "difference", difference)
    return both


def read_study(project: Project) -> Study:
    """The scores of the ablation study by backbone and variant, with a column `seed`."""
    return {
        (backbone, variant): results.read_ablation(results.ablation_path(backbone, variant))
        for backbone, variants in project.params.ablation.items()
        for variant in variants
    }


def each_seed(study: Study, averaged: Sequence[str]) -> Seeds:
    """The scores of the study by backbone and variant, and seed, see statistics.matrix.

    Raises:
        ValueError: see `refuse_mixture`.
    """
    refuse_mixture(list(study.values()))
    return {
        place: {int(seed): matrix(own, averaged) for seed, own in scores.groupby("seed")}
        for place, scores in study.items()
    }


def over_images(seeds: Seeds) -> Matrices:
    """The scores of each image, averaged over seeds, by backbone and variant."""
    found: Matrices = {}
    for (backbone, variant), tables in seeds.items():
        averages = pd.concat(tables).groupby(level=1, sort=False).mean()
        found.setdefault(backbone, {})[variant] = averages
    return found


def ablated(seeds: Seeds, known: Known, confidence: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ablation study: the long form over seeds, and the means of every seed.

    The first has intervals over seeds; its marks are of the scores of images, averaged over seeds.

    Args:
        seeds: its scores.
        known: the measures.
        confidence: of intervals and tests.
    """
    if not seeds:
        return pd.DataFrame(columns=LONG_COLUMNS), pd.DataFrame(columns=SEED_COLUMNS)
    parts, means_of_seeds = [], []
    for (backbone, variant), tables in seeds.items():
        name = {"backbone": backbone, "explainer": variant}
        parts.append(over_seeds(tables, confidence).assign(**name))
        for seed, table in tables.items():
            mean = table.mean().rename("value").reset_index()
            means_of_seeds.append(mean.assign(seed=seed, **name))
    long = within_bounds(pd.concat(parts, ignore_index=True), known)
    good = {name: measure_of(name, known).higher_is_better for name in long["metric"].unique()}
    marks = by_backbone(over_images(seeds), lambda t: against_best(t, good, confidence))
    long = long.merge(marks, on=KEY, how="left", validate="one_to_one")[LONG_COLUMNS]
    return long, pd.concat(means_of_seeds, ignore_index=True)[SEED_COLUMNS]


def answers(
    project: Project, seeds: Seeds, good: dict[str, bool], confidence: float
) -> pd.DataFrame:
    """What each variant of the study changes: its value minus the baseline's, seed by seed.

    Args:
        project: its variants.
        seeds: the scores of the study.
        good: the good direction of each measure.
        confidence: of the intervals, and one minus the level of the tests.

    Returns:
        KEY, value, low, high (Student's interval over the seeds), n (the number of these) and told:
        `better` or `worse` where both the seeds and the images say so, that is the interval leaves
        out zero and the signed-rank test of the images' means over seeds, Holm-corrected over the
        variants of the backbone, tells the variant from the baseline; else empty.
    """
    parts = [pd.DataFrame(columns=[*KEY, "value", "low", "high", "n", "told"])]
    for backbone, variants in project.params.ablation.items():
        names = sorted(variants, key=lambda name: variants[name].question is not None)
        tables = {name: seeds[backbone, name] for name in names}
        base = tables[names[0]]
        averages = over_images({(backbone, name): own for name, own in tables.items()})
        tests = against_first(averages[backbone])
        said = tests.assign(told=told(tests, good, confidence)).drop(columns=["n"])
        for name in names[1:]:
            changes = {seed: own - base[seed] for seed, own in tables[name].items()}
            found = over_seeds(changes, confidence).assign(backbone=backbone, explainer=name)
            found = found.merge(said, on=["explainer", "metric", "level"], validate="one_to_one")
            sure = (found["low"] > 0) | (found["high"] < 0)
            parts.append(found.assign(told=found["told"].where(sure, "")))
    return pd.concat(parts[1:] or parts, ignore_index=True)[[*parts[0].columns]]


def claims_of_seeds(
    project: Project, seeds: Seeds, apart: Matrices, good: dict[str, bool], confidence: float
) -> pd.DataFrame:
    """The main claims again, with the first explainer as every seed of the study trained it.

    Only where the study trains the first explainer of a backbone by its own recipe.

    Args:
        project: its cells.
        seeds: the scores of the study.
        apart: those of the explainers.
        good: the good direction of each measure.
        confidence: one minus the level of the tests.

    Returns:
        SEED_COLUMNS, value that of the first explainer with this seed, and against_main: whether
        the other one, `explainer`, is `better` or `worse`, or neither is told (empty).
    """
    parts = [pd.DataFrame(columns=[*SEED_COLUMNS, "against_main"])]
    for backbone, block in apart.items():
        first, *others = block
        variant = project.studied_cells().get((backbone, first), "")
        for seed, own in seeds.get((backbone, variant), {}).items() if others else ():
            scored = own.columns.get_level_values("metric").unique()
            tables = {
                name: block[name].loc[:, block[name].columns.isin(scored, level="metric")]
                for name in others
            }
            claims = against_first({first: own} | tables)
            mean = own.mean().rename("value").reset_index()
            claims = claims.merge(mean, on=["metric", "level"], how="left")
            said = told(claims, good, confidence)
            parts.append(claims.assign(backbone=backbone, seed=seed, against_main=said))
    return pd.concat(parts[1:] or parts, ignore_index=True)[[*parts[0].columns]]


def within_bounds(table: pd.DataFrame, known: Known) -> pd.DataFrame:
    """A long form with its intervals cut to what there can be: Student's know no bounds."""
    bounds = [measure_of(name, known).bounds for name in table["metric"]]
    low, high = np.transpose(bounds)
    return table.assign(low=table["low"].clip(lower=low), high=table["high"].clip(upper=high))


def validation_curves(project: Project) -> pd.DataFrame:
    """The validation AD of every trained cell: backbone, explainer, epoch and value.

    And how many of its `n` evaluation images are of classes that training never saw (`unseen`, NaN
    if nobody counted).
    """
    named = ["backbone", "explainer", "epoch", "value", "unseen", "n"]
    parts = [pd.DataFrame(columns=named)]
    for backbone in project.params.backbones:
        for cell in project.trained(backbone):
            curve = results.read_table(results.curve_path(backbone, cell.explainer))
            own = curve.dropna(subset=["validation_ad"]).rename(columns={"validation_ad": "value"})
            unseen = results.read_json(results.cost_path(backbone, cell.explainer)).get("unseen")
            own = own.assign(backbone=backbone, explainer=cell.explainer)
            own = own.assign(unseen=np.nan if unseen is None else len(unseen))
            own = own.assign(n=project.images_of(cell))
            parts.append(own[[*parts[0].columns]])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def read_randomisation(project: Project) -> list[pd.DataFrame]:
    """What the sanity checks say of each image, one frame a cell."""
    paths = [results.randomisation_path(c.backbone, c.explainer) for c in project.all_cells()]
    return [results.read_scores(path) for path in paths]


def randomisation(cells: list[pd.DataFrame], params: Params) -> pd.DataFrame:
    """The long form of the check with shuffled weights, without marks."""
    own = [cell[cell["metric"] != SEED_RANK] for cell in cells]
    return summarise(own, params.tables, params.seed)


def stability(project: Project, cells: list[pd.DataFrame], seeds: pd.DataFrame) -> pd.DataFrame:
    """What another seed changes, a row an explainer that has one.

    Args:
        project: its cells.
        cells: of the sanity checks, see `read_randomisation`.
        seeds: the means of every seed of the ablation study.

    Returns:
        columns backbone, explainer, metric, value, low, high, n and unstable. Of metric seed_rank
        the value is the median over n images of the rank correlation of two seeds, with the least
        and the most; unstable below UNSTABLE. Of metric seed_spread, of a trained explainer that
        the study trains by its own recipe, it is the standard deviation over n training seeds of
        the AD at 50 %, with the least and the most AD.
    """
    rows = []
    for cell in cells:
        own = cell.loc[cell["metric"] == SEED_RANK, "value"]
        if len(own):
            name = cell["backbone"].iloc[0], cell["explainer"].iloc[0]
            unstable = own.median() < UNSTABLE
            rows.append((*name, SEED_RANK, own.median(), own.min(), own.max(), len(own), unstable))
    drops = seeds[(seeds["metric"] == "average_drop") & (seeds["level"] == 50)]
    for (backbone, explainer), variant in project.studied_cells().items():
        own = drops[(drops["backbone"] == backbone) & (drops["explainer"] == variant)]["value"]
        if len(own):
            spread = own.std(ddof=1), own.min(), own.max(), len(own), False
            rows.append((backbone, explainer, SEED_SPREAD, *spread))
    names = ["backbone", "explainer", "metric", "value", "low", "high", "n", "unstable"]
    return pd.DataFrame(rows, columns=names)


def marked(table: pd.DataFrame) -> pd.DataFrame:
    """Similarities with the column `unchanged`: whether a cell's maps hardly know the weights.

    That is, whether SSIM and rank correlation are at least UNCHANGED where most is randomised.
    """
    most = table[table["level"] == table["level"].max()]
    least = most.groupby(["backbone", "explainer"], sort=False)["value"].min()
    unchanged = (least >= UNCHANGED).rename("unchanged")
    return table.join(unchanged, on=["backbone", "explainer"])


def summary(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The means by backbone, explainer and measure, and of how many images, for `dvc metrics`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in table.itertuples():
        cell = found.setdefault(row.backbone, {}).setdefault(row.explainer, {})
        level = "" if np.isnan(row.level) else f"_{row.level:g}"
        cell[f"{row.metric}{level}"] = float(f"{row.value:.6g}")
        if row.metric not in COSTS:
            cell[f"{row.metric}_images"] = row.n
    return found
