"""Compare an explainer of one's own, or maps made elsewhere, with the stored results.

    python -m benchmark.compare mypackage.mymodule:MyExplainer --backbone efficientnet_lite0
    python -m benchmark.compare --maps maps.npy --backbone efficientnet_lite0

Nothing is edited, no stage runs. Scores and maps go to results/compare/, and index.html there is
the page of the backbone with all that was compared.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

import methods
from benchmark import backbones, evaluate, explain, measures, page, sources, store, tables
from benchmark.images import Split, read_split
from benchmark.params import Params, load
from benchmark.printed import PROTOCOL, Column, columns
from benchmark.stage import keep_freed_memory
from benchmark.statistics import holm, matrix, signed_rank
from methods import Backbone

COMPARE = store.RESULTS / "compare"

NAME = "this one"
"""The new row's name while it is compared."""

BETTER, WORSE = "▲", "▼"
"""Marks of explainers than which the new one is better or worse (Wilcoxon, Holm)."""


class Comparison(NamedTuple):
    """An explainer among the stored ones of a backbone.

    `table` as `among` gives it; `cost` has the label and kind of the explainer and, if it was run
    here, what an explanation takes.
    """

    backbone: str
    table: pd.DataFrame
    label: str
    cost: dict[str, Any]
    images: int


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
        settings, params = read_settings(given.settings), load()
        found = compare(params, given.backbone, given.explainer, given.maps, settings)
        print(as_text(found, params))
        print(f"\nMaps and images beside the others: {write_page(found, params)}", file=sys.stderr)
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
) -> Comparison:
    """Score an explainer, or the maps of a file, and put it among the stored ones.

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
        name, maps = file.stem, store.read_array(file)
        cost: dict[str, Any] = {"label": name, "kind": "other"}
    else:
        assert explainer is not None
        name = explainer.rpartition(":")[2]
        maps, cost = explained(params, network, explainer, settings, split)
    source = str(file or explainer)
    evaluate.refuse_bad_maps(maps, len(split), source, count_nan=params.explain.nan_maps == "count")
    path = COMPARE / backbone / f"{name}.npy"
    store.write_array(path, maps)
    scores = scored(params, network, maps, split, path)
    own = scores.assign(backbone=backbone, explainer=name)[store.SCORE_COLUMNS]
    store.write_csv(path.with_suffix(".csv"), own)
    store.write_json(path.with_suffix(".json"), cost)
    label = str(cost["label"])
    table = among(params, stored, own.assign(explainer=NAME), label)
    return Comparison(backbone, table, label, cost, len(split))


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
    params: Params, stored: list[pd.DataFrame], own: pd.DataFrame, label: str
) -> pd.DataFrame:
    """The comparison of the backbone with the new row first.

    Returns:
        a column a measure, and NAME interval and NAME mark beside it; marks say what differs.
    """
    known = measures.read()
    names = measures.averaged(known)
    long = tables.summarise([own, *stored], params.tables, params.seed, names)
    costs = [tables.read_cost(str(s["backbone"].iloc[0]), s["explainer"].iloc[0]) for s in stored]
    labels = {NAME: label}
    labels |= {row["explainer"].iloc[0]: row["label"].iloc[0] for row in costs}
    shown = columns(long, PROTOCOL, known)
    tested = [matrix(scores, names) for scores in (own, *stored)]
    others = [scores["explainer"].iloc[0] for scores in stored]
    marks = significance(tested[0], dict(zip(others, tested[1:], strict=True)), shown, params)
    rows = []
    for explainer, block in long.groupby("explainer", sort=False):
        row = {"Explainer": labels[str(explainer)]}
        for column in shown:
            entry = column.of(block).iloc[0]
            heading = column.heading
            row[heading] = column.text(entry["value"])
            row[f"{heading} interval"] = f"{column.end(entry['low'])}–{column.end(entry['high'])}"
            row[f"{heading} mark"] = marks.get((str(explainer), heading), "")
        rows.append(row)
    return pd.DataFrame(rows)


def as_text(found: Comparison, params: Params) -> str:
    """What people read of a comparison."""
    table = found.table
    headings = [c for c in table.columns if not c.endswith((" interval", " mark"))]
    text = pd.DataFrame({"Explainer": table["Explainer"]})
    text.loc[0, "Explainer"] = f"**{found.label}**"
    for heading in headings[1:]:
        cells = table[heading] + " (" + table[f"{heading} interval"] + ") "
        text[heading] = (cells + table[f"{heading} mark"]).str.strip()
    sides = ["left"] + ["right"] * (len(text.columns) - 1)
    printed = str(text.to_markdown(index=False, colalign=sides, disable_numparse=True))
    printed += (
        f"\n\n{found.images} images, {100 * params.tables.confidence:g} % bootstrap intervals. "
        f"{BETTER} {found.label} is better, {WORSE} worse (Wilcoxon's signed-rank test, "
        "Holm-corrected over the explainers); without a mark they cannot be told apart."
    )
    if "seconds" in found.cost:
        printed += (
            f"\nCost of an explanation: {found.cost['images_forward']:g} images forward, "
            f"{found.cost['images_backward']:g} backward, {found.cost['seconds']:.3g} s."
        )
    return printed


def write_page(found: Comparison, params: Params) -> Path:
    """Write the page of the backbone with everything that was compared on it."""
    table = found.table.copy()
    for heading in [c.removesuffix(" mark") for c in table.columns if c.endswith(" mark")]:
        table[f"{heading} interval"] += " " + table.pop(f"{heading} mark")
    first = page.as_table(found.backbone, f"{found.label} among the others", table)
    own = [
        page.Cell(
            found.backbone,
            f"own {path.stem}",
            f"{store.read_json(path)['label']} (compared)",
            store.read_json(path)["kind"],
            path.with_suffix(".npy"),
            path.with_suffix(".csv"),
            trained=False,
        )
        for path in sorted((COMPARE / found.backbone).glob("*.json"))
    ]
    stored = [cell for cell in page.cells_of(params) if cell.backbone == found.backbone]
    others = [other for other in page.tables_of(params) if other.backbone == found.backbone]
    path = COMPARE / "index.html"
    page.write(path, params, [*own, *stored], [first, *others], [])
    return path


def significance(
    own: pd.DataFrame, others: dict[str, pd.DataFrame], shown: list[Column], params: Params
) -> dict[tuple[str, str], str]:
    """Marks by explainer and heading, where the new one differs from it; see statistics.matrix."""
    marks = {}
    for column in shown:
        mine = picked(own, column)
        differences = [mine - picked(table, column) for table in others.values()]
        p = holm(signed_rank(np.stack(differences, axis=1)))
        for explainer, difference, value in zip(others, differences, p, strict=True):
            if value < 1 - params.tables.confidence:
                better = (difference.mean() > 0) == column.higher_is_better
                marks[explainer, column.heading] = BETTER if better else WORSE
    return marks


def picked(table: pd.DataFrame, column: Column) -> NDArray[np.float64]:
    """The scores (images,) of a column in a matrix."""
    levels = table.columns.get_level_values("level")
    at_level = levels.isna() if column.level is None else levels == column.level
    chosen = (table.columns.get_level_values("metric") == column.metric) & at_level
    return np.asarray(table.to_numpy()[:, chosen][:, 0], np.float64)


if __name__ == "__main__":
    main()
