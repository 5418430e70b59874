"""Check the parameters, and write down what DVC cannot see; runs always, in a second or two.

Networks and explainers are built when parameters or code have changed, which takes longer.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmark.core import catalogue, results
from benchmark.core.cells import Project
from benchmark.core.params import Compositions, Params
from benchmark.core.sources import PACKAGES, digest_of, members, versions_of
from benchmark.core.stage import run
from benchmark.core.store import digest_json

LOCK = Path("dvc.lock")

BYTES = 4
"""Of a pixel that is kept: its colours, and whether it is the object's."""

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
            little disk or memory.
    """
    refuse_torn_lock()
    refuse_small_machine(params)
    project = Project(params)
    refuse_no_validation(project)
    for line in left_out(project):
        print(f"check: {line}", file=sys.stderr)
    modules = [module for package in PACKAGES for module in members(package)]
    outside = {
        cell.explainer: digest_of([project.module_of(cell)])
        for cell in project.all_cells()
        if cell.load is not None
    }
    outside |= {
        name: digest_of(own) for name in params.backbones if (own := project.modules_of(name))
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
    from benchmark.engine.probing import probe_cells

    modes = {False: "", True: " in the mode reference"}
    cells = {
        f"{name}{modes[other]}": (
            cell.load or cell.explainer,
            cell.settings | (cell.reference if other else {}),
        )
        for name, cell in project.probed_cells(backbone).items()
        for other in modes
        if cell.reference or not other
    }
    return {"key": key} | probe_cells(backbone, spec | {"device": device()}, cells)


def refuse_small_machine(params: Params) -> None:
    """Refuse a machine that cannot hold the images, which is the least that it has to.

    Raises:
        ValueError: says how much disk or memory there is, and is needed.
    """
    images = params.images
    stored = images.validation + images.evaluation
    if isinstance(images, Compositions):
        stored += images.train  # photographs are decoded when they are needed
    needed = stored * images.size**2 * BYTES
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for what, there in (("disk", shutil.disk_usage(".").free), ("memory", memory)):
        if needed > there:
            raise ValueError(
                f"{stored} images of {images.size} pixels need {needed / 1e9:.1f} GB of {what}: "
                f"there are {there / 1e9:.1f}, expected more or fewer images"
            )


def refuse_no_validation(project: Project) -> None:
    """Refuse to train without images to watch it by.

    Raises:
        ValueError: names what is to be trained.
    """
    if project.params.images.validation:
        return
    trained = [cell.name for name in project.params.backbones for cell in project.trained(name)]
    if trained:
        raise ValueError(
            f"images.validation is 0 and {trained[0]} is trained: expected at least 1 image to "
            "watch it by, or no trained explainer"
        )


def left_out(project: Project) -> list[str]:
    """What a run leaves out, a line each, since the parameters have nothing for it."""
    params = project.params
    lines = []
    if not any(project.trained(name) for name in params.backbones):
        lines.append("no explainer is trained: there are no training curves")
    if not any(params.ablation.values()):
        lines.append("ablation is empty: there is no ablation study")
    lines += [
        f"{name} has one explainer: it is compared with none, and there are no ranks"
        for name in params.backbones
        if len(project.cells(name)) == 1
    ]
    return lines


def remove_others(params: Params) -> None:
    """Remove the results of backbones that are no longer in the parameters."""
    for stage in BY_BACKBONE:
        for folder in stage.glob("*/"):
            if folder.name not in params.backbones:
                shutil.rmtree(folder)


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
