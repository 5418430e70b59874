"""What a run needs before it starts, and what it leaves out."""

import csv
import shutil

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Cell, Compositions

BYTES = 4
"""Of a pixel that is kept: its colours, and whether it is the object's."""


def refuse_small_disk(project: Project) -> None:
    """Refuse a disk that cannot hold the images, which is the least that it has to.

    Raises:
        ValueError: says how much room there is, and is needed.
    """
    images = project.params.images
    if all(results.split_path(name).is_file() for name in ("validation", "evaluation")):
        return  # they are here
    stored = images.validation + images.evaluation
    if isinstance(images, Compositions):
        stored += images.train  # photographs are decoded when they are needed
    needed = stored * images.size**2 * BYTES
    there = shutil.disk_usage(".").free
    if needed > there:
        raise ValueError(
            f"{stored} images of {images.size} pixels need {needed / 1e9:.1f} GB of disk: there "
            f"are {there / 1e9:.1f}, expected more or fewer images"
        )


def refuse_no_validation(project: Project) -> None:
    """Refuse trained explainers, and variants of them, without images to watch them by.

    Raises:
        ValueError: names the first.
    """
    trained = [name for name, _ in learning(project)]
    if trained and not project.params.images.validation:
        raise ValueError(
            f"images.validation is 0 and {trained[0]} is trained, or has a trained state: expected "
            "at least 1 image to watch it by, or no trained explainer"
        )


def refuse_large_batches(project: Project) -> None:
    """Refuse to train with batches that are larger than the training split.

    Raises:
        ValueError: names the first explainer or variant.
    """
    there = project.params.images.train
    for name, cell in learning(project):
        recipe = cell.recipe
        known = [count for count in (recipe.images, there) if count is not None]
        if cell.checkpoint is None and known and recipe.batch_size > min(known):
            raise ValueError(
                f"batch_size of {name} is {recipe.batch_size}: expected at most the {min(known)} "
                "training images"
            )


def refuse_unknown_labels(project: Project) -> None:
    """Refuse to explain the labels of images whose labels are not known.

    Raises:
        ValueError: says how many are not.
    """
    images = project.params.images
    listed = images.folder / "evaluation.csv"
    if project.params.target != "label" or isinstance(images, Compositions):
        return
    if not listed.is_file():
        return
    with listed.open(newline="") as file:
        labels = [int(row["class_index"]) for row in csv.DictReader(file)][: images.evaluation]
    if unknown := sum(label < 0 for label in labels):
        raise ValueError(
            f"target is label, and {unknown} of {len(labels)} images have none: expected "
            "target: predicted, or a label for each"
        )


def learning(project: Project) -> list[tuple[str, Cell]]:
    """What is trained, with what messages call it: explainers, and variants of the study."""
    found = []
    for backbone in project.params.backbones:
        found += [(cell.name, cell) for cell in project.trained(backbone)]
        variants = project.variants(backbone)
        found += [(f"variant {name} on {backbone}", cell) for name, cell in variants.items()]
    return found


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


REFUSALS = (
    *(refuse_small_disk, refuse_no_validation, refuse_large_batches),
    refuse_unknown_labels,
)
"""What is refused before a run starts; each takes the project."""
