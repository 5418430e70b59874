"""How near each explainer is to the passes that it counts, as JSON; run by `make speed`.

The floor of an explanation is what its passes take by themselves, gradients up to the pixels. An
explainer that repeats a part of the network, or whose gradients end at a layer, is below its floor.
"""

import json
import sys
import time
from typing import Any

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, load
from benchmark.core.stage import keep_freed_memory
from benchmark.data.splits import Split, read_split
from benchmark.engine import explaining
from benchmark.engine.passes import seconds_of_passes
from methods import Backbone, Passes, TrainableExplainer, build_backbone

BATCH = 8
"""Images at a time, as in `explain` of the sample."""

CHEAP, DEAR = 8, 1
"""Images that are explained at a time, by explainers of few passes and of many."""

ROUNDS = 2


def of_passes(backbone: Backbone) -> tuple[float, float]:
    """Seconds of an image forward, and of one back."""
    forward = seconds_of_passes(backbone, BATCH, back=False)
    return forward, seconds_of_passes(backbone, BATCH, back=True) - forward


def of_cell(project: Project, cell: Cell, backbone: Backbone, split: Split) -> dict[str, Any]:
    """The best of some rounds, the passes of an image, and what these take by themselves."""
    explainer = explaining.assemble(
        cell.load or cell.explainer, backbone, cell.settings, project.state_of(cell)
    )
    if isinstance(explainer, TrainableExplainer):
        explainer.allows_unseen = True
    count = CHEAP if project.is_cheap(cell) else DEAR
    images = split.images(slice(count))
    targets = backbone.predict(images)
    found = []
    for _ in range(ROUNDS):
        backbone.passes, start = Passes(), time.perf_counter()
        explainer(images, targets)
        found.append((time.perf_counter() - start) / count)
    passes = backbone.passes
    forward, backward = of_passes(backbone)
    floor = (passes.forward * forward + passes.backward * backward) / count
    return {
        "backbone": cell.backbone,
        "explainer": explainer.label,
        "forward": passes.forward / count,
        "backward": passes.backward / count,
        "seconds": min(found),
        "floor": floor,
    }


def main() -> None:
    """Print an entry for each cell that asks the network."""
    keep_freed_memory()
    project = Project(load())
    split = read_split(results.SPLITS, "evaluation")
    entries = []
    for name in project.params.backbones:
        backbone = build_backbone(name, **project.spec(name))
        of_passes(backbone)  # loads what is loaded at first use
        entries += [of_cell(project, cell, backbone, split) for cell in project.cells(name)]
    asking = [entry for entry in entries if entry["forward"]]
    sys.stdout.write(json.dumps(asking) + "\n")


if __name__ == "__main__":
    main()
