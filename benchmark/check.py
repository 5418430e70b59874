"""Check the parameters, and write down what DVC cannot see; runs always, in a second or two.

Networks and explainers are built when parameters or code have changed, which takes longer.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmark.core import catalogue, results
from benchmark.core.cells import Project
from benchmark.core.params import Params
from benchmark.core.preconditions import REFUSALS, left_out
from benchmark.core.sources import PACKAGES, digest_of, members, versions_of
from benchmark.core.stage import run
from benchmark.core.store import digest_json

LOCK = Path("dvc.lock")

BY_BACKBONE = (
    *(results.STATES, results.CURVES, results.MAPS, results.COST, results.SCORES, results.DELTA),
    *(results.RANDOMISATION, results.ABLATION, results.VARIANTS),
)
"""Folders with a folder for each backbone."""


def main(params: Params) -> None:
    """Write results/check.json, on which every other stage depends, if it has changed.

    It has the cells, the parsed sources of the suite, modules of somebody else, weights, the
    versions that matter, the facts of all classes and what is known of the networks' layers, which
    the other stages read from it.

    Raises:
        ValueError: parameters that mean nothing, a network or explainer that cannot be built, too
            little disk.
    """
    refuse_torn_lock()
    project = Project(params)
    for refuse in REFUSALS:
        refuse(project)
    for line in left_out(project):
        print(f"check: {line}", file=sys.stderr)
    modules = [module for package in PACKAGES for module in members(package)]
    outside = {
        cell.explainer: digest_of([project.module_of(cell)])
        for cell in project.all_cells()
        if cell.load is not None
    }
    outside |= {
        f"backbone {name}": digest_of(own)
        for name in params.backbones
        if (own := project.modules_of(name))
    }
    project.scored_metrics()
    found = {
        "cells": {name: project.matrix(name) for name in params.backbones},
        "code": digest_json({name: digest_of([name]) for name in modules}),
        "outside": outside,
        "weights": {name: project.weights(name) for name in params.backbones},
        "versions": versions_of([*modules, *map(project.module_of, project.all_cells())]),
        "networks": {name: known_network(project, name) for name in params.backbones},
        **catalogue.as_json(project.catalogue),
    }
    remove_others(params)
    results.write_if_changed(results.CHECK, found)


def known_network(project: Project, backbone: str) -> dict[str, Any]:
    """What is known of a network's layers; it is built, and every explainer on it, if need be."""
    spec, key = project.spec(backbone), project.probe_key(backbone)
    if spec["probed"] is not None:
        known: dict[str, Any] = spec["probed"]
        return known
    from benchmark.engine.devices import device
    from benchmark.engine.probing import Asked, probe_cells

    modes = {False: "", True: " in the mode reference"}
    cells = {
        f"{name}{modes[other]}": Asked(
            cell.load or cell.explainer,
            cell.settings | (cell.reference if other else {}),
            cell.checkpoint,
        )
        for name, cell in project.probed_cells(backbone).items()
        for other in modes
        if cell.reference or not other
    }
    scored = project.params.evaluate.settings
    return {"key": key} | probe_cells(backbone, spec | {"device": device()}, cells, scored)


def remove_others(params: Params) -> None:
    """Remove the results of backbones that are no longer in the parameters."""
    for stage in BY_BACKBONE:
        for folder in stage.glob("*/"):
            if folder.name not in params.backbones:
                shutil.rmtree(folder)
    for path in results.TARGETS.glob("*.csv"):
        if path.stem not in params.backbones:
            path.unlink()


def refuse_torn_lock() -> None:
    """Refuse a dvc.lock that DVC was killed over while it wrote it.

    Raises:
        ValueError: names the command that restores it.
    """
    try:
        whole = not LOCK.is_file() or isinstance(yaml.safe_load(LOCK.read_bytes()), dict)
    except yaml.YAMLError:
        whole = False
    if not whole:
        raise ValueError(
            f"{LOCK} is damaged, DVC was stopped while it wrote it: restore it with "
            f"`git checkout {LOCK}`, or remove it; results are kept, see their keys.json"
        )


if __name__ == "__main__":
    run(main)
