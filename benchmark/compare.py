"""Compare an explainer of one's own, or maps made elsewhere, with the stored results.

    python -m benchmark.compare mypackage.mymodule:MyExplainer --backbone efficientnet_lite0
    python -m benchmark.compare --maps maps.npy --backbone efficientnet_lite0

Nothing is edited, no stage runs; scores and maps go to results/compare/.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

import methods
from benchmark import backbones, evaluate, explain, sources, store, tables
from benchmark.images import Split, read_split
from benchmark.params import Params, load
from benchmark.stage import keep_freed_memory
from benchmark.statistics import holm, matrix, signed_rank
from methods import Backbone

COMPARE = store.RESULTS / "compare"

NAME = "this one"
"""The new row's name while it is compared."""

BETTER, WORSE = "▲", "▼"
"""Marks of explainers than which the new one is better or worse (Wilcoxon, Holm)."""


def main() -> None:
    """Score what the command line names, and print its row among the others."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("explainer", nargs="?", help="package.module:Class, or a name of methods/")
    parser.add_argument(
        "--maps", type=Path, help="maps (N, h, w) in [0, 1] of the evaluation images"
    )
    parser.add_argument("--backbone", required=True, help="a backbone of params.yaml")
    parser.add_argument("--settings", default="{}", help="of the explainer, as YAML: '{steps: 8}'")
    given = parser.parse_args()
    if (given.explainer is None) == (given.maps is None):
        parser.error("expected an explainer or --maps, one of them")
    keep_freed_memory()
    try:
        settings = read_settings(given.settings)
        print(compare(load(), given.backbone, given.explainer, given.maps, settings))
    except (ValueError, OSError) as error:
        sys.exit(f"compare: {' '.join(str(error).split())}")


def read_settings(text: str) -> dict[str, Any]:
    """The settings of the command line.

    Raises:
        ValueError: no YAML mapping.
    """
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"--settings is {text!r}: expected YAML such as {{steps: 8}}")
    return settings


def compare(
    params: Params,
    backbone: str,
    explainer: str | None,
    file: Path | None,
    settings: dict[str, Any],
) -> str:
    """Score an explainer, or the maps of a file; what people read of it.

    Args:
        params: of the stored results.
        backbone: a name of `backbones`.
        explainer: `package.module:Class` or a name of methods/.
        file: maps (N, h, w), float32 in [0, 1], of the evaluation images in their order.
        settings: of the explainer.

    Raises:
        ValueError: an unknown backbone or explainer, maps that break a promise, no stored results.
    """
    if backbone not in params.backbones:
        raise ValueError(
            f"unknown backbone {backbone!r}: expected one of {', '.join(params.backbones)}"
        )
    stored = stored_scores(params, backbone)
    split = read_split("evaluation")
    network = backbones.build(backbone, params.backbones[backbone])
    if file is not None:
        name, maps, cost = file.stem, store.read_array(file), None
        label = name
    else:
        assert explainer is not None
        name = explainer.rpartition(":")[2]
        maps, cost = explained(params, network, explainer, settings, split)
        label = str(cost["label"])
    source = str(file or explainer)
    evaluate.refuse_bad_maps(maps, len(split), source, count_nan=params.explain.nan_maps == "count")
    path = COMPARE / backbone / f"{name}.npy"
    store.write_array(path, maps)
    scores = scored(params, network, maps, split, path)
    own = scores.assign(backbone=backbone, explainer=name)[store.SCORE_COLUMNS]
    store.write_csv(path.with_suffix(".csv"), own)
    return among(params, stored, own.assign(explainer=NAME), label, cost)


def stored_scores(params: Params, backbone: str) -> list[pd.DataFrame]:
    """The scores of every cell of a backbone.

    Raises:
        ValueError: there are none, or they are not made yet.
    """
    cells = [cell for cell in params.cells.values() if cell.backbone == backbone]
    if not cells:
        raise ValueError(f"backbone {backbone!r} has no cells in params.yaml: expected some")
    return [store.read_scores(store.scores_path(c.backbone, c.explainer)) for c in cells]


def explained(
    params: Params, backbone: Backbone, name: str, settings: dict[str, Any], split: Split
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Maps of the evaluation images and what they cost, see explain.explain."""
    explainer = methods.build(methods.load(name), backbone, settings)
    file = Path(str(sys.modules[type(explainer).__module__].__file__))
    work = store.Work(
        "compare",
        [name, settings, params.backbones[backbone.name], params.explain],
        [store.split_path("evaluation"), *sources.closure(file)],
    )
    maps, cost = explain.explain(explainer, split, params.explain, work, name)
    work.done()
    return maps, cost


def scored(
    params: Params, backbone: Backbone, maps: NDArray[np.float32], split: Split, path: Path
) -> pd.DataFrame:
    """Scores of the maps at `path`, as the stage evaluate gives them."""
    suite = evaluate.build_suite(params.evaluate, params.mode, backbone, trained=False)
    seeds = evaluate.image_seeds(params.seed, split)
    view = evaluate.View(params.mode, suite, maps)
    settings = [params.seed, params.mode, params.evaluate, params.backbones[backbone.name]]
    work = store.Work("compare-scores", settings, [path, store.split_path("evaluation")])
    size = params.evaluate.batch_size
    (scores,) = evaluate.evaluate([view], backbone, split, seeds, size, work, path.stem)
    work.done()
    return scores


def among(
    params: Params,
    stored: list[pd.DataFrame],
    own: pd.DataFrame,
    label: str,
    cost: dict[str, Any] | None,
) -> str:
    """The comparison of the backbone with the new row first; marks say what differs from it."""
    long = tables.summarise([own, *stored], params.tables, params.seed)
    costs = [tables.read_cost(str(s["backbone"].iloc[0]), s["explainer"].iloc[0]) for s in stored]
    labels = {NAME: f"**{label}**"}
    labels |= {row["explainer"].iloc[0]: row["label"].iloc[0] for row in costs}
    shown = tables.columns(long, tables.PROTOCOL)
    marks = significance(own, stored, shown, 1 - params.tables.confidence)
    rows = []
    for explainer, block in long.groupby("explainer", sort=False):
        row = {"Explainer": labels[str(explainer)]}
        for column in shown:
            entry = tables.select(block, column).iloc[0]
            interval = f"{column.end(entry['low'])}–{column.end(entry['high'])}"
            mark = marks.get((str(explainer), column.heading), "")
            row[column.heading] = f"{column.text(entry['value'])} ({interval}) {mark}".strip()
        rows.append(row)
    table = pd.DataFrame(rows)
    sides = ["left"] + ["right"] * (len(table.columns) - 1)
    text = str(table.to_markdown(index=False, colalign=sides, disable_numparse=True))
    percent = f"{100 * params.tables.confidence:g} %"
    note = (
        f"\n{len(matrix(own))} images, {percent} bootstrap intervals. {BETTER} {label} is better, "
        f"{WORSE} worse (Wilcoxon's signed-rank test, Holm-corrected over the explainers); without "
        "a mark they cannot be told apart."
    )
    if cost is not None:
        note += (
            f"\nCost of an explanation: {cost['images_forward']:g} images forward, "
            f"{cost['images_backward']:g} backward, {cost['seconds']:.3g} s."
        )
    return text + "\n" + note


def significance(
    own: pd.DataFrame,
    stored: list[pd.DataFrame],
    shown: list[tables.Column],
    level: float,
) -> dict[tuple[str, str], str]:
    """Marks by explainer and heading, where the new one differs from it."""
    mine = matrix(own, tables.AVERAGED)
    marks = {}
    for column in shown:
        key = (column.metric, np.nan if column.level is None else column.level)
        differences = [picked(mine, key) - picked(matrix(s, tables.AVERAGED), key) for s in stored]
        p = holm(pd.Series(signed_rank(np.stack(differences, axis=1))))
        for scores, difference, value in zip(stored, differences, p, strict=True):
            if value < level:
                better = (difference.mean() > 0) == column.higher_is_better
                marks[scores["explainer"].iloc[0], column.heading] = BETTER if better else WORSE
    return marks


def picked(table: pd.DataFrame, key: tuple[str, float]) -> NDArray[np.float64]:
    """The column of a measure and level, NaN for none."""
    names = table.columns.get_level_values("metric") == key[0]
    levels = table.columns.get_level_values("level")
    chosen = names & (levels.isna() if np.isnan(key[1]) else levels == key[1])
    return np.asarray(table.to_numpy()[:, chosen][:, 0], np.float64)


if __name__ == "__main__":
    main()
