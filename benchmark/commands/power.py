"""Print how small a difference so many images decide, from the paired scores that are stored.

A number of images decides a difference if the signed-rank test finds it in 80 % of draws.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Params, refuse_unknown
from benchmark.core.stage import run
from benchmark.report.statistics import matrix, signed_rank

IMAGES = (12, 24, 48, 96, 192, 384)
"""Numbers of images that are asked about."""

POWER, LEVEL = 0.8, 0.05
"""The share of draws that has to be found, and the level of the test, before any correction."""

DRAWS = 200
"""Samples of images drawn for each question."""

STEPS = 8
"""Halvings of the interval in which the difference lies."""

MEASURES = ("average_drop", "road_morf_area")


def main(params: Params, backbone: str, explainer: str) -> None:
    """Print a row a number of images, a column a measure and level, in the measures' per cent.

    The difference is the median over all other explainers of the backbone, compared with
    `explainer`.

    Raises:
        ValueError: an unknown backbone or explainer; no scores, or of other images; nothing to
            compare with.
    """
    refuse_unknown("backbone", [backbone], params.backbones)
    cells = [cell.explainer for cell in Project(params).cells(backbone)]
    refuse_unknown("explainer", [explainer], cells)
    tables = {
        name: matrix(results.read_scores(results.scores_path(backbone, name)), ["road_morf"])
        for name in cells
    }
    own = tables.pop(explainer)
    if not tables:
        raise ValueError(f"{backbone} has no explainer beside {explainer}: expected at least two")
    for name, other in tables.items():
        if own.index.intersection(other.index).empty:
            raise ValueError(
                f"{name} has scores of {len(other)} images, {explainer} of {len(own)}, and none "
                "are the same: expected the same images, run `dvc repro`"
            )
    shown = [column for column in own.columns if column[0] in MEASURES]
    rows = {}
    for count in tqdm(IMAGES, desc="power", unit="row", leave=False, disable=None):
        found = [
            smallest((own[shown] - other[shown]).to_numpy(), count, params.seed)
            for other in tables.values()
        ]
        rows[count] = np.nanmedian(found, axis=0)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=titles(shown))
    table.index.name = "images"
    print(f"{backbone}: smallest difference to {explainer} decided in {POWER:.0%} of draws, %\n")
    print(table.round(1).to_markdown())


def titles(columns: Sequence[tuple[str, float]]) -> list[str]:
    """Measures with their levels."""
    return [name if np.isnan(level) else f"{name} {level:g} %" for name, level in columns]


def smallest(differences: NDArray[np.floating], count: int, seed: int) -> NDArray[np.float64]:
    """The smallest difference of each column that `count` images decide, in either direction.

    An image that a column has no difference of is NaN there.

    Images are drawn with replacement from the differences, whose mean is taken off and replaced by
    a shift; halving finds the one from which on the test finds enough draws.

    Args:
        differences: (images, columns), paired.
        count: of the images drawn.
        seed: of the draws.

    Returns:
        (columns,), NaN where no image differs.
    """
    rng = np.random.default_rng(seed)
    draws = rng.random(size=(DRAWS, count))
    found = np.full(differences.shape[1], np.nan)
    for index, whole in enumerate(differences.T):
        column = whole[~np.isnan(whole)]
        if column.size and np.ptp(column) > 0:
            own = (column - column.mean())[(draws * len(column)).astype(int)]
            found[index] = max(smallest_shift(sign * own) for sign in (1, -1))
    return found


def smallest_shift(draws: NDArray[np.floating]) -> float:
    """The smallest shift upwards found in enough of the draws (DRAWS, images), centred ones."""
    low, high = 0.0, 4 * float(draws.std())
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if share_found(draws + middle) >= POWER else (middle, high)
    return high


def share_found(draws: NDArray[np.floating]) -> float:
    """The share of draws (DRAWS, images) that the test finds above zero.

    A draw that it finds below zero, as it may where the differences are skewed, does not count.
    """
    above = (np.sign(draws) * rankdata(np.abs(draws), axis=1)).sum(axis=1) > 0
    return float(((signed_rank(draws.T) < LEVEL) & above).mean())


if __name__ == "__main__":
    run(main, "backbone", "explainer")
