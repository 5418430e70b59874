"""Explain and score with the cheap explainers of every backbone, before all others.

`make repro` runs it in front of `dvc repro`, whose stages find what it made. So
`python -m benchmark status` has rows to compare after two minutes instead of twenty.
"""

import shlex
import subprocess
import sys

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Params
from benchmark.core.stage import run
from benchmark.core.store import Shelf

STAGES = ("explain", "evaluate")


def main(params: Params) -> None:
    """Run both stages for the cheap cells of the backbones that have some to do."""
    project = Project(params)
    for backbone in params.backbones:
        if not any(map(project.is_cheap, missing(project, backbone))):
            continue
        for stage in STAGES:
            command = f"{params.launch} benchmark.{stage} {shlex.quote(backbone)} --cheap"
            if code := subprocess.run(command, shell=True, check=False).returncode:
                sys.exit(code)  # the shell is DVC's way as well: `launch` may ask it for hosts


def missing(project: Project, backbone: str) -> list[Cell]:
    """The cells of a backbone whose maps or scores are due."""
    maps, scores = Shelf(results.MAPS / backbone), Shelf(results.SCORES / backbone)
    return [
        cell
        for cell in project.cells(backbone)
        if maps.due([project.maps(cell)])
        or scores.due([project.scores(cell, metric) for metric in project.scored_metrics()])
    ]


if __name__ == "__main__":
    run(main)
