"""Print the matrix of cells: what is fresh, stale and why, missing, or not supported.

While not all cells are scored, also how those compare that are.
"""

import sys
from collections.abc import Iterable

import pandas as pd

from benchmark.core import preconditions, results
from benchmark.core.cells import FORWARD, NOT_COMPARED, Project
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.store import MISSING, Result, Shelf
from benchmark.report.measures import Known, known_measures

FRESH = "fresh"
NOT_CHECKED = {"cells": ("maps", "timing"), "variants": ("state",)}
"""Columns of what a clone does not have, or makes only when it is asked."""


def main(params: Params, check: bool = False) -> None:
    """Print a row a cell, and the variants of the ablation study.

    A result that is not there and that others are computed from is taken to be as it was. With
    `check` exits with 1 if anything that is in git is not fresh.
    """
    project = Project(params)
    stale = []
    for backbone in params.backbones:
        table = matrix(project, backbone)
        print(f"{backbone}\n\n{table.to_markdown(index=False)}\n")
        study = variants(project, backbone)
        if len(study):
            print(f"{study.to_markdown(index=False)}\n")
        for name, frame in (("cells", table), ("variants", study)):
            kept = frame.drop(columns=list(NOT_CHECKED[name]), errors="ignore")
            for _, row in kept.iterrows():
                stale += [f"{row.iloc[0]} {v}" for v in row.iloc[1:] if is_stale(str(v))]
        if any(is_stale(str(text)) for text in table["scores"]):
            print(so_far(project, backbone, set(table["explainer"][table["scores"] == FRESH])))
    for line in told_by_check(project):
        print(line)
    images = [of(Shelf(results.SPLITS), [project.splits()])]
    images += [of(Shelf(results.TABLES), [project.tables()])]
    print(f"images {images[0]}, tables {images[1]}")
    stale += [text for text in images[1:] if is_stale(text)]
    if check and stale:
        sys.exit(
            f"status: {len(stale)} results are not fresh, the first: {stale[0]}; run `dvc repro`"
        )


def so_far(project: Project, backbone: str, scored: set[str]) -> str:
    """How the cells compare that are scored: means over their images, without intervals."""
    known = known_measures(project.catalogue)
    rows = []
    for cell in project.cells(backbone):
        if cell.explainer in scored:
            table = results.read_scores(results.scores_path(backbone, cell.explainer))
            row = {"explainer": project.facts(cell.explainer).label}
            row["images"] = str(table["image"].nunique())
            rows.append(row | means(table, known))
    if not rows:
        return f"{backbone}: nothing is scored yet\n"
    sides = ["left"] + ["right"] * (len(rows[0]) - 1)
    printed = (
        pd.DataFrame(rows)
        .fillna("–")
        .to_markdown(index=False, colalign=sides, disable_numparse=True)
    )
    return f"{backbone}, {len(rows)} of {len(project.cells(backbone))} cells so far\n\n{printed}\n"


def means(table: pd.DataFrame, known: Known) -> dict[str, str]:
    """The means of the measures of the paper, by what they are called in a table."""
    found = {}
    for metric in ("average_drop", "increase_in_confidence", "road_morf", "road_lerf"):
        own = table[table["metric"] == metric]
        label = known[metric].label if metric in known else metric
        if metric.startswith("road"):
            own = own.assign(level=-1.0)
        for level, block in own.groupby("level", sort=False):
            name = f"{label} mean" if float(str(level)) < 0 else f"{label} {level:g} %"
            found[name] = f"{block['value'].mean():.1f}"
    return found


def told_by_check(project: Project) -> list[str]:
    """What the stage check says or refuses, a line each; and which networks it is to build anew."""
    lines = []
    for refuse in preconditions.REFUSALS:
        try:
            refuse(project)
        except ValueError as error:
            lines.append(f"refused: {error}")
    lines += preconditions.left_out(project)
    return lines + [
        f"{name}: `dvc repro` builds its explainers first, parameters or code have changed"
        for name in project.params.backbones
        if project.spec(name)["probed"] is None
    ]


def is_stale(text: str) -> bool:
    """Whether a result is missing or stale."""
    return text.startswith((MISSING, "stale"))


def matrix(project: Project, backbone: str) -> pd.DataFrame:
    """A row an explainer: its state, maps, scores, randomisation and timing."""
    shelves = {
        "state": Shelf(results.STATES / backbone, NOT_COMPARED),
        "maps": Shelf(results.MAPS / backbone),
        "scores": Shelf(results.SCORES / backbone),
        "randomisation": Shelf(results.RANDOMISATION / backbone),
        "timing": Shelf(results.RUNTIME),
    }
    cells = {cell.explainer: cell for cell in project.cells(backbone)}
    timings = project.timings()
    rows = []
    for name, why in project.matrix(backbone).items():
        if why:
            rows.append({"explainer": name} | dict.fromkeys(shelves, why.partition(":")[0]))
            continue
        cell = cells[name]
        other = project.other_maps(cell)
        found = {
            "state": [project.state(cell)] if project.is_trained(cell) else [],
            "maps": [project.maps(cell)] + ([other] if other else []),
            "scores": [project.scores(cell, metric) for metric in project.scored_metrics()],
            "randomisation": [project.randomised(cell)],
            "timing": [timings[backbone, name]],
        }
        rows.append({"explainer": name} | {k: of(shelves[k], made) for k, made in found.items()})
    forward = of(shelves["timing"], [timings[backbone, FORWARD]])
    rows.append({"explainer": "bare forward pass", "timing": forward})
    return pd.DataFrame(rows).fillna("")


def variants(project: Project, backbone: str) -> pd.DataFrame:
    """A row a variant of the ablation study: its states and scores."""
    scored = Shelf(results.ABLATION / backbone)
    trained = Shelf(results.VARIANTS / backbone, NOT_COMPARED)
    rows = []
    for name, cell in project.variants(backbone).items():
        states = [project.variant_state(name, cell, seed) for seed in project.seeds()]
        row = {"variant": name, "state": of(trained, states)}
        row["scores"] = of(scored, [project.variant_scores(name, cell)])
        if "older" in scored.records.get(name, {}):
            row["scores"] = f"kept from older code ({', '.join(scored.records[name]['older'])})"
        rows.append(row)
    return pd.DataFrame(rows)


def of(shelf: Shelf, every: Iterable[Result]) -> str:
    """The state of results in a few words."""
    made = list(every)
    if not made:
        return ""
    found = {result.name: shelf.why(result) for result in made}
    reasons = list(dict.fromkeys(reason for why in found.values() for reason in why))
    if not reasons:
        return FRESH
    due = sum(bool(why) for why in found.values())
    text = MISSING if reasons == [MISSING] else f"stale ({', '.join(reasons)})"
    return text if due == len(found) or len(found) == 1 else f"{text}: {due} of {len(found)}"


if __name__ == "__main__":
    run(main, "--check")
