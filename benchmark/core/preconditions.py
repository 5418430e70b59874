"""What a run needs before it starts, and what it leaves out."""

import os
import shutil

from benchmark.core.cells import Project
from benchmark.core.params import Compositions

BYTES = 4
"""Of a pixel that is kept: its colours, and whether it is the object's."""


def refuse_small_machine(project: Project) -> None:
    """Refuse a machine that cannot hold the images, which is the least that it has to.

    Raises:
        ValueError: says how much disk or memory there is, and is needed.
    """
    images = project.params.images
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
