"""A stand-in for ImageNet, JPEGs composed from the sample, and for the stage that makes images."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.core import results
from benchmark.data.compositions import compose, load_cutouts
from benchmark.data.imagenet import class_indices
from benchmark.data.splits import Split

ROOT = Path(__file__).parents[1]
LAYOUTS = {
    "torchvision": ("train", "val", True),
    "original": ("ILSVRC2012_img_train", "ILSVRC2012_img_val", False),
    "kaggle": ("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val", False),
}
SIDE = (300, 260)
"""Width and height of every other photograph; the others stand upright."""


def build(root: Path, layout: str, train: int, held: int, classes: int = 3) -> dict[str, int]:
    """Write so many images of each split; the class index of each held-out id."""
    train_name, held_name, in_classes = LAYOUTS[layout]
    wnids = {index: name for name, index in class_indices().items()}
    cutouts = {c.class_index: c for c in load_cutouts(ROOT / "data" / "sample")}
    chosen = [cutouts[index] for index in sorted(cutouts)[:: len(cutouts) // classes][:classes]]
    labels: dict[str, int] = {}
    for split, folder, count in (("train", train_name, train), ("val", held_name, held)):
        for number in range(count):
            cutout = chosen[number % classes]
            wnid = wnids[cutout.class_index]
            pixels = compose(cutout, np.random.default_rng(number + 1000 * (split == "val")), 300)
            sides = SIDE if number % 2 else SIDE[::-1]
            image = Image.fromarray(pixels.pixels.transpose(1, 2, 0)).crop((0, 0, *sides))
            name = f"{wnid}_{number}" if split == "train" else f"ILSVRC2012_val_{number + 1:08d}"
            below = wnid if split == "train" or in_classes else ""
            path = root / folder / below / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=90)
            if split == "val":
                labels[name] = cutout.class_index
    if layout == "kaggle":
        rows = [f"{name},{wnids[label]} 1 2 3 4 " for name, label in labels.items()]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    return labels


def write_split(name: str, split: Split) -> None:
    """Write a split where the stages look for it."""
    tensors = {"pixels": split.pixels, "objects": split.objects, "labels": split.labels}
    results.write_tensors(results.split_path(name), tensors)
    results.write_csv(results.split_table_path(name), split.table)
