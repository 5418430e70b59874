"""Statistics of per-image scores: intervals, paired differences, tests, ranks.

Thin layers over scipy. Images are the sample. Explainers may have scores of more or fewer of them:
two are compared on the images that both have, all of them on those that all have.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product, repeat
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import bootstrap, friedmanchisquare, rankdata, studentized_range, wilcoxon
from scipy.stats import t as student

from benchmark.core.params import Tables as Settings

PAIR_COLUMNS = ["metric", "level", "first", "second", "difference", "low", "high", "n", "p"]
PAIR_COLUMNS += ["p_holm", "p_main"]
"""See `pairs`."""

CLAIM_COLUMNS = ["metric", "level", "explainer", "first_value", "difference", "n", "p"]
"""See `against_first`."""

CHUNK = 250
"""Resamples held at a time."""

EXACT = 13
"""Images up to which the signed-rank test is exact: all patterns of signs are quickly counted."""

NO_LEVEL = -1.0
"""Stands for the empty level while a table is pivoted: pandas drops empty keys."""


def matrix(scores: pd.DataFrame, averaged: Sequence[str] = ()) -> pd.DataFrame:
    """One row an image, one column a (metric, level), both sorted; level NaN where there is none.

    An image that a metric has not scored is NaN there.

    Args:
        scores: per-image scores of one cell.
        averaged: measures whose mean over levels follows as (NAME_mean, NaN), and the area under
            their curve from the lowest to the highest level, by the trapezoidal rule and divided
            by the distance of these, as (NAME_area, NaN).
    """
    filled = scores.assign(level=scores["level"].fillna(NO_LEVEL))
    table = filled.pivot_table(
        index="image", columns=["metric", "level"], values="value"
    ).sort_index(axis=1)
    for name in averaged:
        if name in table.columns.get_level_values("metric"):
            levels = table[name].columns.to_numpy(np.float64)
            curves = table[name].to_numpy()
            span = np.ptp(levels)
            area = trapezoid(curves, levels, axis=1) / span if span else curves[:, 0]
            table[f"{name}_mean", NO_LEVEL] = curves.mean(axis=1)
            table[f"{name}_area", NO_LEVEL] = area
    names = [(metric, np.nan if level == NO_LEVEL else level) for metric, level in table.columns]
    table.columns = pd.MultiIndex.from_tuples(names, names=["metric", "level"])
    return table.sort_index(axis=0)


def interval(values: NDArray[np.floating], settings: Settings, seed: int) -> NDArray[np.float64]:
    """Percentile bootstrap interval of the mean over images of each column.

    Args:
        values: (images, columns).
        settings: number of resamples, and confidence.
        seed: of the resampling; the same seed draws the same images for any columns.

    Returns:
        (2, columns), the low and the high end.
    """
    found = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        axis=0,
        n_resamples=settings.resamples,
        batch=CHUNK,
        confidence_level=settings.confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.stack([found.low, found.high])


def by_images(table: pd.DataFrame) -> Iterator[tuple[list[int], pd.DataFrame]]:
    """The columns of a `matrix` in groups that have the same images: their places, and they."""
    groups: dict[bytes, list[int]] = {}
    for place, present in enumerate(table.notna().to_numpy().T):
        if present.any():
            groups.setdefault(present.tobytes(), []).append(place)
    for places in groups.values():
        yield places, table.iloc[:, places].dropna()


def means(table: pd.DataFrame, settings: Settings, seed: int) -> pd.DataFrame:
    """Means over images, a row a measure and level: metric, level, value, low, high, n."""
    parts = [
        means_of_all(own, settings, seed).set_index(pd.Index(places))
        for places, own in by_images(table)
    ]
    return pd.concat(parts).sort_index().reset_index(drop=True)


def means_of_all(table: pd.DataFrame, settings: Settings, seed: int) -> pd.DataFrame:
    """`means` of columns that have the same images."""
    low, high = interval(table.to_numpy(), settings, seed)
    return pd.DataFrame(
        {
            "metric": table.columns.get_level_values("metric"),
            "level": table.columns.get_level_values("level"),
            "value": table.to_numpy().mean(axis=0),
            "low": low,
            "high": high,
            "n": len(table),
        }
    )


def pairs(tables: dict[str, pd.DataFrame], settings: Settings, seed: int) -> pd.DataFrame:
    """Every pair of explainers at every measure and level.

    Args:
        tables: explainer to `matrix` of its scores, the main one first; all of the same columns.
        settings: of the bootstrap interval of the mean difference.
        seed: of the bootstrap.

    Returns:
        PAIR_COLUMNS: metric, level, first, second, difference (first - second, mean over the images
        that both have), low, high, n (these images), p (Wilcoxon signed-rank, two-sided, zeros
        split between the signs; 1 where no image differs), p_holm (corrected by Holm over all pairs
        of the same measure and level) and p_main (corrected over the pairs of the first explainer,
        the main claims; NaN for the others).
    """
    parts = [pd.DataFrame(columns=PAIR_COLUMNS)]
    for first, second in combinations(tables, 2):
        groups = list(by_images(tables[first] - tables[second]))
        found = [
            means_of_all(own, settings, seed).assign(p=signed_rank(own.to_numpy()))
            for _, own in groups
        ]
        places = [place for own, _ in groups for place in own]
        whole = pd.concat(found).set_axis(places).sort_index()
        whole = whole.rename(columns={"value": "difference"})
        parts.append(whole.assign(first=first, second=second))
    table = pd.concat(parts[1:] or parts, ignore_index=True)
    keys = ["metric", "level"]
    table["p_holm"] = table.groupby(keys, dropna=False, sort=False)["p"].transform(holm)
    main = table[table["first"] == next(iter(tables))]
    table["p_main"] = main.groupby(keys, dropna=False, sort=False)["p"].transform(holm)
    return table[PAIR_COLUMNS]


def against_first(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The first explainer beside each other one, at every measure and level: the main claims.

    Args:
        tables: explainer to `matrix` of its scores, all of the same columns.

    Returns:
        columns metric, level, explainer, first_value (of the first explainer, mean over the images
        that both have), difference (first - other, on these), n (these images) and p (of their
        signed-rank test, corrected by Holm over the explainers).
    """
    (_, first), *others = tables.items()
    parts = [pd.DataFrame(columns=CLAIM_COLUMNS)]
    for name, table in others:
        for places, own in by_images(first - table):
            found = own.mean().rename("difference").reset_index()
            value = first.iloc[:, places].loc[own.index].mean().to_numpy()
            p = signed_rank(own.to_numpy())
            parts.append(found.assign(explainer=name, first_value=value, n=len(own), p=p))
    found = pd.concat(parts[1:] or parts, ignore_index=True)
    groups = found.groupby(["metric", "level"], dropna=False, sort=False)["p"]
    return found.assign(p=groups.transform(holm))[CLAIM_COLUMNS]


def signed_rank(differences: NDArray[np.floating]) -> NDArray[np.float64]:
    """Two-sided p of Wilcoxon's signed-rank test of each column of (images, columns).

    The ranks of zeros are split between the signs. Up to EXACT images the distribution is that of
    all patterns of signs, given the ranks and their ties; from there on the normal one.
    """
    rounded = np.round(np.asarray(differences, np.float64), 6)  # equal scores differ by rounding
    result = np.ones(rounded.shape[1])
    some = (rounded != 0).any(axis=0)
    if not some.any():
        return result
    if len(rounded) <= EXACT:
        result[some] = exact_signed_rank(rounded[:, some])
    else:
        result[some] = wilcoxon(
            rounded[:, some], zero_method="zsplit", method="asymptotic", axis=0
        ).pvalue
    return result


def exact_signed_rank(differences: NDArray[np.floating]) -> NDArray[np.float64]:
    """The share of patterns of signs whose rank sum is as far from the middle, each column."""
    ranks = rankdata(np.abs(differences), axis=0)
    patterns = np.array(list(product((-1.0, 1.0), repeat=len(differences))))
    signed = np.where(differences == 0, 0.0, ranks)  # a zero's rank is split, whatever its sign
    sums = np.abs(patterns @ signed)
    found = np.abs((np.sign(differences) * ranks).sum(axis=0))
    return np.asarray((sums >= found - 1e-9).mean(axis=0))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p values of one family of tests, corrected by Holm's step-down method (1979).

    That of statsmodels collects garbage at every call, which takes longer than all tables.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(steps).clip(max=1)
    return corrected


def against_best(
    tables: dict[str, pd.DataFrame], higher_is_better: dict[str, bool], confidence: float
) -> pd.DataFrame:
    """Every explainer against the best one, by mean, at every measure and level.

    It is of the images that all of them have.

    Args:
        tables: explainer to `matrix` of its scores, all of the same columns.
        higher_is_better: the good direction of each column's measure.
        confidence: one minus the level of the tests.

    Returns:
        columns metric, level, explainer, best (of several that are equal each), and separated:
        whether Wilcoxon's signed-rank test, Holm-corrected over the explainers, tells it from the
        best.
    """
    names = list(tables)
    rows = []
    for (metric, level), values in shared(tables):
        means = np.round(values.mean(axis=1), 6)
        top = means.max() if higher_is_better[metric] else means.min()
        best = means == top
        p = np.ones(len(names))
        if not best.all():
            differences = (values[~best] - values[best.argmax()]).T
            p[~best] = holm(signed_rank(differences))
        separated = p < 1 - confidence
        rows += list(zip(repeat(metric), repeat(level), names, best, separated, strict=False))
    return pd.DataFrame(rows, columns=["metric", "level", "explainer", "best", "separated"])


def over_seeds(tables: dict[int, pd.DataFrame], confidence: float) -> pd.DataFrame:
    """Means over images and training seeds, with Student's interval over the seeds.

    Args:
        tables: seed to `matrix` of the scores of what was trained with it; at least two.
        confidence: of the interval.

    Returns:
        metric, level, value, low, high, n (the number of seeds), a row a measure and level.
    """
    means = np.stack([table.mean().to_numpy() for table in tables.values()])
    seeds = len(means)
    half = student.ppf((1 + confidence) / 2, seeds - 1) * means.std(axis=0, ddof=1) / seeds**0.5
    value = means.mean(axis=0)
    columns = next(iter(tables.values())).columns
    return pd.DataFrame(
        {
            "metric": columns.get_level_values("metric"),
            "level": columns.get_level_values("level"),
            "value": value,
            "low": value - half,
            "high": value + half,
            "n": seeds,
        }
    )


def ranks(
    tables: dict[str, pd.DataFrame], higher_is_better: dict[str, bool], confidence: float
) -> pd.DataFrame:
    """Mean ranks of the explainers over images, 1 the best, at every measure and level.

    Args:
        tables: explainer to `matrix` of its scores, all of the same columns.
        higher_is_better: the good direction of each column's measure.
        confidence: of the critical difference.

    Returns:
        columns metric, level, explainer, rank, n (the images that all explainers have),
        critical_difference (Nemenyi: mean ranks that are closer do not differ at this confidence;
        Demsar 2006, JMLR 7) and p (Friedman's test that all ranks are the same; NaN for fewer than
        three explainers, or where all values agree).
    """
    columns = ["metric", "level", "explainer", "rank", "n", "critical_difference", "p"]
    names = list(tables)
    rows: list[tuple[Any, ...]] = []
    for (metric, level), found in shared(tables) if len(names) > 1 else ():
        images = found.shape[1]
        difference = critical_difference(len(names), images, confidence)
        values = np.round(found, 6)
        better = higher_is_better[metric]
        mean = rankdata(-values if better else values, axis=0).mean(axis=1)
        differ = len(names) > 2 and bool((values != values[0]).any())
        p = friedmanchisquare(*values).pvalue if differ else np.nan
        rows += [
            (metric, level, name, rank, images, difference, p)
            for name, rank in zip(names, mean, strict=True)
        ]
    return pd.DataFrame(rows, columns=columns)


def shared(
    tables: dict[str, pd.DataFrame],
) -> Iterator[tuple[tuple[str, float], NDArray[np.float64]]]:
    """The values (explainers, images) of each column of `matrix`es, of the images that all have.

    Raises:
        ValueError: there are none.
    """
    images = sorted(set().union(*(table.index for table in tables.values())))
    stacked = np.stack([table.reindex(images).to_numpy() for table in tables.values()])
    for column, name in enumerate(next(iter(tables.values())).columns):
        values = stacked[:, :, column]
        common = ~np.isnan(values).any(axis=0)
        if not common.any():
            raise ValueError(f"{name[0]} has no image that all explainers have: expected one")
        yield name, values[:, common]


@cache
def critical_difference(explainers: int, images: int, confidence: float) -> float:
    """Nemenyi's critical difference of mean ranks (Demsar 2006, JMLR 7, section 3.2.2)."""
    quantile = studentized_range.ppf(confidence, explainers, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(explainers * (explainers + 1) / (6 * images)))
