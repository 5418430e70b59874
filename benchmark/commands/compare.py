"""Compare an explainer of one's own, or maps made elsewhere, with the stored results.

    python -m benchmark compare mypackage.mymodule:MyExplainer --backbone efficientnet_lite0
    python -m benchmark compare --maps maps.npy --backbone efficientnet_lite0

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
from benchmark.core import results
from benchmark.core.cells import Project, split_files
from benchmark.core.params import Cell, Explainer, Params, load, read_yaml, refuse_unknown
from benchmark.core.stage import keep_freed_memory
from benchmark.core.store import Result, Shelf, Unfinished
from benchmark.data.given_maps import read_given_maps
from benchmark.data.splits import Split, read_split
from benchmark.engine import explaining, scoring
from benchmark.engine.devices import device
from benchmark.engine.promises import Case, broken_promises
from benchmark.report import browser, measures, summaries
from benchmark.report.printed import PROTOCOL, columns, ranged
from benchmark.report.rendering import CLAIMS
from benchmark.report.statistics import against_first
from methods import build_backbone

COMPARE = results.RESULTS / "compare"

PROMISED = 3
"""Images on which the promises of an explainer are looked at."""

NAME = "this one"
"""The new row's name while it is compared."""

BETTER, WORSE = CLAIMS.values()
"""Marks of explainers that are better or worse than the new one."""


class Comparison(NamedTuple):
    """An explainer among the stored ones of a backbone.

    `table` as `among` gives it; `cost` has the label and kind of the explainer, whether it is
    trained and, if it was run here, what an explanation takes.
    """

    backbone: str
    table: pd.DataFrame
    label: str
    cost: dict[str, Any]
    images: int


def main() -> None:
    """Score what the command line names, and print its row among the others."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("explainer", nargs="?", help="package.module:Class, or a name of methods/")
    parser.add_argument(
        "--maps",
        type=Path,
        help="maps (N, h, w) in [0, 1] of the evaluation images, in the order of "
        "results/splits/evaluation.csv: .npy, .npz (maps, and ids in any order) or .pt",
    )
    parser.add_argument("--backbone", required=True, help="a backbone of params.yaml")
    parser.add_argument("--settings", default="{}", help="of the explainer, as YAML: '{steps: 8}'")
    parser.add_argument(
        "--name", help="of its files and row; that of the class or file if not said"
    )
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="show where an error comes from, not its line alone",
    )
    given = parser.parse_args()
    if (given.explainer is None) == (given.maps is None):
        parser.error("expected an explainer or --maps, one of them")
    keep_freed_memory()
    try:
        settings, params = read_settings(given.settings), load()
        found = compare(params, given.backbone, given.explainer, given.maps, settings, given.name)
        print(as_text(found, params))
        print(f"\nMaps and images beside the others: {write_page(found, params)}", file=sys.stderr)
    except Exception as error:  # somebody's code may raise any
        if given.traceback:
            raise
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        sys.exit(f"compare: {kind}{' '.join(str(error).split())}")


def read_settings(text: str) -> dict[str, Any]:
    """The settings of the command line.

    Raises:
        ValueError: no YAML mapping.
    """
    try:
        settings = read_yaml(text)
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
    called: str | None = None,
) -> Comparison:
    """Score an explainer, or the maps of a file, and put it among the stored ones.

    Args:
        params: of the stored results.
        backbone: a name of `backbones`.
        explainer: `package.module:Class` or a name of methods/.
        file: maps (N, h, w) in [0, 1] of the evaluation images, see data.given_maps.
        settings: of the explainer.
        called: the name of its files, and its label, if it is not that of the class or file.

    Raises:
        ValueError: an unknown backbone or explainer, maps that break a promise, no stored results.
    """
    refuse_unknown("--backbone", [backbone], params.backbones)
    project = Project(params)
    stored = stored_scores(project, backbone)
    split = read_split(results.SPLITS, "evaluation").first(params.images.evaluation)
    shelf = Shelf(COMPARE / backbone)
    if file is not None:
        name, maps = called or file.stem, read_given_maps(file, split.ids)
        cost: dict[str, Any] = {"label": name, "kind": "other", "trained": False}
        path = shelf.folder / f"{name}.npy"
        refuse_bad(params, maps, len(split), file)
        if nan := int((~np.isfinite(maps).all(axis=(1, 2))).sum()):
            print(
                f"compare: {nan} of {len(maps)} maps hold NaN or infinite values, and are scored "
                "as constant ones",
                file=sys.stderr,
            )
        results.write_array(path, maps)
        results.write_json(path.with_suffix(".json"), cost)
    else:
        assert explainer is not None
        added = with_explainer(params, backbone, explainer, settings)
        cell = added.params.cell(backbone, explainer.rpartition(":")[2])
        path = shelf.folder / f"{called or cell.explainer}.npy"
        split = split.first(added.images_of(cell))
        cost = explain(added, cell, split, shelf, path, called)
        refuse_bad(params, results.read_array(path), len(split), path)
    own = score(project, backbone, split, shelf, path, trained=cost["trained"])
    label = called or str(cost["label"])
    table = among(project, stored, own.assign(explainer=NAME), label)
    return Comparison(backbone, table, label, cost, len(split))


def refuse_bad(params: Params, maps: NDArray[np.float32], images: int, source: Path) -> None:
    """See scoring.refuse_bad_maps."""
    count_nan = params.explain.nan_maps == "count"
    scoring.refuse_bad_maps(maps, images, str(source), count_nan=count_nan)


def stored_scores(project: Project, backbone: str) -> list[pd.DataFrame]:
    """The scores of every cell of a backbone.

    Raises:
        ValueError: they are not made yet, or of other parameters.
    """
    shelf = Shelf(results.SCORES / backbone)
    for cell in project.cells(backbone):
        for made in (project.scores(cell, metric) for metric in project.scored_metrics()):
            if "parameters" in shelf.why(made):
                raise ValueError(
                    f"the stored scores of {made.name} are of other parameters: expected those of "
                    "params.yaml, run `dvc repro`"
                )
    paths = [results.scores_path(c.backbone, c.explainer) for c in project.cells(backbone)]
    return [results.read_scores(path) for path in paths]


def with_explainer(
    params: Params, backbone: str, explainer: str, settings: dict[str, Any]
) -> Project:
    """The pipeline with one explainer on one backbone, as if it stood so in params.yaml."""
    name = explainer.rpartition(":")[2]
    known = params.explainers.get(name, Explainer())
    entry = Explainer(load=explainer) if ":" in explainer else known
    own = params.backbones[backbone].explainers.get(name, Explainer())
    given = own.model_copy(update={"settings": own.settings | settings})
    spec = params.backbones[backbone].model_copy(update={"skip": (), "explainers": {name: given}})
    alone = {"explainers": {name: entry}, "backbones": {backbone: spec}, "ablation": {}}
    return Project(params.model_copy(update=alone))


def explain(
    project: Project, cell: Cell, split: Split, shelf: Shelf, path: Path, called: str | None
) -> dict[str, Any]:
    """Write the maps of the evaluation images, and return what they cost.

    Raises:
        ValueError: an explainer that does not fit the backbone, or that is not trained.
    """
    params = project.params
    if why := project.matrix(cell.backbone)[cell.explainer]:
        raise ValueError(f"explainer {cell.explainer!r} on {cell.backbone!r} is {why}")
    state = project.state_of(cell)
    if state is not None and not state.is_file():
        raise ValueError(
            f"explainer {cell.explainer!r} has to be trained and {state} is not there: expected a "
            "trained state, add it to params.yaml and run `dvc repro`"
        )
    cost_path = path.with_suffix(".json")
    made = Result(
        f"{path.stem} maps",
        project.explain_key(cell, params.mode, len(split)),
        (path, cost_path),
    )
    if shelf.due([made]):
        network = build_backbone(cell.backbone, device=device(), **project.spec(cell.backbone))
        name = cell.load or cell.explainer
        broken = look_at_promises(project, cell, split)
        targets, _ = explaining.choose(network, split, params.explain.batch_size, params.target)
        explainer = explaining.assemble(name, network, cell.settings_in(params.mode), state)
        work = Unfinished(f"compare {cell.backbone}/{path.stem}", made.key)
        how = project.explain_settings(cell) | {"count_unseen": False}
        pieces = explaining.explain(explainer, split, targets, work, **how)
        seconds = sum(float(piece["seconds"]) for piece in pieces) / len(split)
        results.write_array(path, explaining.joined_maps(pieces))
        cost = explaining.cost_of(explainer, pieces[:1])
        cost |= {"seconds": seconds, "trained": state is not None, "broken": broken}
        cost |= explaining.unseen_images(explainer, pieces)
        cost |= {"label": called or cost["label"]}
        results.write_json(cost_path, cost)
        shelf.record([made])
        work.forget()
    found: dict[str, Any] = results.read_json(cost_path)
    tell(found)
    return found


def tell(cost: dict[str, Any]) -> None:
    """Say on stderr which promises are broken, and that a trained state knows no classes."""
    for line in cost["broken"]:
        print(f"compare: {line}", file=sys.stderr)
    if cost.get("unseen", []) is None:
        print(
            "compare: the trained state does not say how many images of each class it saw; maps of "
            "a class without one are noise, and are among these",
            file=sys.stderr,
        )


def look_at_promises(project: Project, cell: Cell, split: Split) -> list[str]:
    """Which promises of methods.Explainer an explainer of one's own does not keep, a line each.

    On networks of their own, which it may alter. Those of `methods` are tested elsewhere.

    Raises:
        ValueError: it gives no maps of the first image at all.
    """
    cls = methods.load(cell.load or cell.explainer)
    if cls.__module__.startswith("methods."):
        return []
    settings = cell.settings_in(project.params.mode)
    spec = project.spec(cell.backbone)
    first, network = (build_backbone(cell.backbone, device=device(), **spec) for _ in range(2))
    images = split.images(slice(PROMISED)).to(network.device)
    one = methods.build(cls, first, settings)
    explaining.explain_batch(one, images[:1], count_nan=True, count_unseen=True)
    return broken_promises(Case(cls, network, images, network.predict(images), settings))


def score(
    project: Project, backbone: str, split: Split, shelf: Shelf, path: Path, *, trained: bool
) -> pd.DataFrame:
    """Scores of the maps at `path`, as the stage evaluate gives them, by a network of its own."""
    params = project.params
    metrics = {name: params.evaluate.metrics[name] for name in project.scored_metrics()}
    parameters: list[Any] = [params.seed, params.mode, params.target]
    parameters += [params.evaluate, trained]
    parameters.append(params.explain.nan_maps)
    modules = ["benchmark.engine.scoring", *(f"metrics.{name}" for name in metrics)]
    first = len(split), split_files("evaluation")
    key = project.key(modules, parameters, {"maps": path}, backbone, first)
    made = Result(f"{path.stem} scores", key, (path.with_suffix(".csv"),))
    if shelf.due([made]):
        network = build_backbone(backbone, device=device(), **project.spec(backbone))
        n = len(split)
        suites = {name: (own.settings, min(own.images or n, n)) for name, own in metrics.items()}
        maps = results.read_array(path)
        views = scoring.views_of(suites, params.mode, network, maps, trained=trained)
        work = Unfinished(f"compare {backbone}/{path.stem}", key)
        images = scoring.predict(network, split, params.evaluate.batch_size)
        found = scoring.score(views, network, images, work, **project.score_settings)
        table = scoring.in_order(pd.concat(found))
        results.write_scores(made.files[0], table, backbone, path.stem)
        shelf.record([made])
        work.forget()
    return results.read_scores(made.files[0])


def among(
    project: Project, stored: list[pd.DataFrame], own: pd.DataFrame, label: str
) -> pd.DataFrame:
    """The comparison of the backbone with the new row first.

    Returns:
        a column a measure, and NAME interval and NAME mark beside it; marks say what differs.

    Raises:
        ValueError: none of the paper's measures is among the scores.
    """
    params = project.params
    known = measures.known_measures(project.catalogue)
    names = measures.averaged(known)
    cells = [own, *stored]
    claims = summaries.by_backbone(summaries.matrices(cells, names), against_first)
    long = summaries.summarise(cells, params.tables, params.seed, names)
    good = {m: measures.measure_of(m, known).higher_is_better for m in long["metric"].unique()}
    long = summaries.beside_main(long, claims, good, params.tables.confidence)
    names_of = [str(table["explainer"].iloc[0]) for table in stored]
    labels = {NAME: label} | {name: project.facts(name).label for name in names_of}
    shown = columns(long, PROTOCOL, known)
    if not shown:
        raise ValueError(
            f"evaluate.metrics is {', '.join(params.evaluate.metrics)}: expected confidence or "
            "road, by which explainers are compared; add one and run `dvc repro`"
        )
    rows = []
    for explainer, block in long.groupby("explainer", sort=False):
        counts = sorted({int(n) for c in shown for n in c.of(block)["n"]})
        row = {"Explainer": labels[str(explainer)], "n": ranged(counts)}
        for column in shown:
            entry = column.of(block).iloc[0]
            heading = column.heading
            row[heading] = column.text(entry["value"])
            row[f"{heading} interval"] = column.interval(entry["low"], entry["high"])
            row[f"{heading} mark"] = CLAIMS.get(entry["against_main"], "")
        rows.append(row)
    return pd.DataFrame(rows)


def as_text(found: Comparison, params: Params) -> str:
    """What people read of a comparison."""
    table = found.table
    headings = [c for c in table.columns if not c.endswith((" interval", " mark"))]
    text = pd.DataFrame({"Explainer": table["Explainer"]})
    text.loc[0, "Explainer"] = f"**{found.label}**"
    text["n"] = table["n"]
    for heading in headings[2:]:
        cells = table[heading] + " (" + table[f"{heading} interval"] + ") "
        text[heading] = (cells + table[f"{heading} mark"]).str.strip()
    sides = ["left"] + ["right"] * (len(text.columns) - 1)
    printed = str(text.to_markdown(index=False, colalign=sides, disable_numparse=True))
    printed += f"\n\n{note_of(found, params)}"
    if "seconds" in found.cost:
        printed += (
            f"\nCost of an explanation: forward passes {found.cost['images_forward']:g}, backward "
            f"{found.cost['images_backward']:g}; {found.cost['seconds']:.3g} s."
        )
    return printed


def note_of(found: Comparison, params: Params) -> str:
    """What the columns and marks of a comparison mean."""
    return (
        f"n images of a row, {100 * params.tables.confidence:g} % bootstrap intervals. "
        f"{BETTER} is better than {found.label}, {WORSE} worse (Wilcoxon's signed-rank test on the "
        "images that both have, Holm-corrected over the explainers); without a mark they cannot be "
        "told apart."
    )


def write_page(found: Comparison, params: Params) -> Path:
    """Write the page of the backbone with everything that was compared on it."""
    project, backbone = Project(params), found.backbone
    table = found.table.copy()
    for heading in [c.removesuffix(" mark") for c in table.columns if c.endswith(" mark")]:
        table[f"{heading} interval"] += " " + table.pop(f"{heading} mark")
    first = browser.as_table(backbone, f"{found.label} among the others", table)
    first = first._replace(note=note_of(found, params))
    own = [
        browser.Cell(
            backbone,
            f"own {path.stem}",
            f"{results.read_json(path)['label']} (compared)",
            results.read_json(path)["kind"],
            path.with_suffix(".npy"),
            path.with_suffix(".csv"),
            results.read_json(path).get("trained", False),
        )
        for path in sorted((COMPARE / backbone).glob("*.json"))
        if path.with_suffix(".csv").is_file()
    ]
    split = read_split(results.SPLITS, "evaluation").first(params.page.images)
    network = build_backbone(backbone, device=device(), **params.backbones[backbone].spec)
    folder = COMPARE / "page"
    cells = {
        cell.explainer: browser.describe_cell(
            params, cell, network, split, folder / f"{backbone}-{cell.explainer}.webp"
        )
        for cell in (*own, *browser.cells_of(project, backbone))
    }
    tables = [first, *browser.tables_of(project, backbone)]
    path = COMPARE / "index.html"
    text = browser.render(project, {backbone: cells}, tables, [], split, folder)
    results.write_text(path, text)
    return path


if __name__ == "__main__":
    main()
