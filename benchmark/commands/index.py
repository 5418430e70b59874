"""List the photographs of ImageNet, or of some of its classes, where they lie.

`python -m benchmark index FOLDER` writes train.csv, validation.csv and evaluation.csv into
`images.folder`; the stage images depends on them. The folder has one of these layouts:

    train/WNID/, val/WNID/                                  torchvision, Imagenette
    ILSVRC2012_img_train/WNID/, ILSVRC2012_img_val/         the original archives, unpacked
    ILSVRC/Data/CLS-LOC/train/WNID/, ILSVRC/Data/CLS-LOC/val/, LOC_val_solution.csv      Kaggle

Nothing is copied. Only evaluation and validation images are read, for their checksums.
"""

import hashlib
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, is_image_file, make_dataset
from tqdm import tqdm

from benchmark.core import results
from benchmark.core.params import Params, Photographs
from benchmark.core.stage import run
from benchmark.data.imagenet import class_indices, class_names
from benchmark.data.seeds import seed_of

LAYOUTS = (
    ("train", "val"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val"),
)
SOLUTION = "LOC_val_solution.csv"

AUTHORS = (
    "https://raw.githubusercontent.com/bmezaris/TAME/939c2bc21e73952551fbf0e448abee9830a0bafc/"
    "datalist/ILSVRC/"
)
"""The lists of the T-TAME authors; lines `file label`."""
CHECKSUMS = {
    "Evaluation_2000.txt": "fa82dd426af9b082e5eb824388387126a12196ff1e73196e1ff349b5998a6331",
    "Validation_2000.txt": "f2434b74c218bc2a1415385946c00f2e019736df222ea1d0c463978c5e56f6c9",
}
LISTS = {"evaluation": "Evaluation_2000.txt", "validation": "Validation_2000.txt"}


def main(params: Params, folder: str) -> None:
    """Write the lists of the photographs below `folder`."""
    settings = params.images
    if not isinstance(settings, Photographs):
        raise ValueError(f"images.source is {settings.source!r}: expected photographs to list")
    if settings.lists == "own":
        raise ValueError("images.lists is own: expected the lists that `new` wrote, they stay")
    root = Path(folder)
    train_folder, held_folder = layout(root)
    held = held_out(root, held_folder)
    counts = {"evaluation": settings.evaluation, "validation": settings.validation}
    lists = authors_lists(settings.folder) if settings.lists == "authors" else None
    if lists is None:
        chosen = drawn(held, counts, params.seed)
    else:
        chosen = {name: listed(held, lists[name], counts[name]) for name in counts}
        refuse_common(chosen["evaluation"], chosen["validation"])
    train = in_classes(root, train_folder)
    count = settings.train or len(train)
    if count > len(train):
        raise ValueError(
            f"images.train is {count}: {train_folder} has {len(train)}, expected no more"
        )
    order = np.random.default_rng(seed_of(params.seed, "train")).permutation(len(train))[:count]
    results.write_csv(
        settings.folder / "train.csv", train.iloc[order]
    )  # recipes may take the first ones
    for name, table in chosen.items():
        origin = f"seeded choice, seed {params.seed}" if lists is None else f"{LISTS[name]}"
        checked = table.assign(list=origin, sha256=checksums(root, table, name))
        results.write_csv(settings.folder / f"{name}.csv", checked)
        print(f"index: {len(table)} images for {name}: {origin}")
    print(f"index: {count} of {len(train)} images for training")


def layout(root: Path) -> tuple[Path, Path]:
    """The folders of the training and of the validation images.

    Raises:
        ValueError: there is none of the layouts.
    """
    for train, held in LAYOUTS:
        if (root / train).is_dir() and (root / held).is_dir():
            return root / train, root / held
    known = "; ".join(f"{train} and {held}" for train, held in LAYOUTS)
    raise ValueError(f"{root} is no ImageNet: expected the folders {known}")


def in_classes(root: Path, folder: Path) -> pd.DataFrame:
    """The images in the folders of the classes: id, path, bytes, class_index, class_name.

    Raises:
        FileNotFoundError: there are no folders.
        ValueError: a folder is no class of ImageNet, or there are no images.
    """
    indices = class_indices()
    for name in find_classes(folder)[0]:
        if name not in indices:
            raise ValueError(
                f"{folder / name} is no class of ImageNet: expected a WordNet id, n..."
            )
    return as_table(root, folder, make_dataset(folder, indices, IMG_EXTENSIONS, allow_empty=True))


def held_out(root: Path, folder: Path) -> pd.DataFrame:
    """The images of the validation folder, in folders of classes or not, see `in_classes`.

    Without folders or LOC_val_solution.csv the class is unknown, -1: the protocol explains what
    the network says.
    """
    if any(entry.is_dir() and not is_image_file(entry.name) for entry in os.scandir(folder)):
        return in_classes(root, folder)
    solution, indices = root / SOLUTION, class_indices()
    labels: dict[str, int] = {}
    if solution.is_file():
        table = results.read_table(solution)
        if list(table.columns) != ["ImageId", "PredictionString"]:
            raise ValueError(
                f"{solution} has the columns {', '.join(table.columns)}: expected ImageId, "
                "PredictionString"
            )
        words = table["PredictionString"].str.split().str[0]
        unknown = words[~words.isin(set(indices))]
        if len(unknown):
            raise ValueError(
                f"{solution} names the class {unknown.iloc[0]!r}: expected a WordNet id of ImageNet"
            )
        labels = dict(zip(table["ImageId"], words.map(indices), strict=True))
    entries = [entry for entry in os.scandir(folder) if entry.is_file()]
    names = sorted(entry.name for entry in entries if is_image_file(entry.name))
    files = [(folder / name, labels.get(Path(name).stem, -1)) for name in names]
    return as_table(root, folder, files)


def as_table(root: Path, folder: Path, found: Sequence[tuple[str | Path, int]]) -> pd.DataFrame:
    """The images found in a folder, with their class indices, see `in_classes`.

    Hidden files are none, such as the `._x.JPEG` that macOS leaves.

    Raises:
        ValueError: there are none, one is empty, or two have one name.
    """
    found = [(path, index) for path, index in found if not Path(path).name.startswith(".")]
    if not found:
        raise ValueError(f"{folder} holds no images: expected .JPEG files")
    rows = []
    for path, index in tqdm(found, f"index {folder.name}", unit="image", disable=None):
        file = Path(path)
        size = file.stat().st_size
        if size == 0:
            raise ValueError(f"{file} is empty: expected a photograph, fetch it again or remove it")
        rows.append((file.stem, str(file.relative_to(root)), size, index))
    table = pd.DataFrame(rows, columns=["id", "path", "bytes", "class_index"])
    if table["id"].duplicated().any():
        twice = table["id"][table["id"].duplicated()].iloc[0]
        raise ValueError(f"{folder} has {twice} twice: expected every name once")
    names = dict(enumerate(class_names()))
    return table.assign(class_name=table["class_index"].map(names).fillna("unknown"))


def authors_lists(folder: Path) -> dict[str, Path] | None:
    """The authors' lists: those in a folder, or fetched into it; None if neither can be had.

    Raises:
        ValueError: a fetched file is not what it was.
    """
    for name in LISTS.values():
        path = folder / name
        if path.is_file():
            continue
        try:
            with urllib.request.urlopen(AUTHORS + name, timeout=30) as answer:
                fetched: bytes = answer.read()
        except OSError as error:
            print(f"index: no {path} and it cannot be fetched ({error}): drawing a seeded choice")
            return None
        found = hashlib.sha256(fetched).hexdigest()
        if found != CHECKSUMS[name]:
            raise ValueError(
                f"{AUTHORS}{name} has the checksum {found}: expected {CHECKSUMS[name]}"
            )
        results.write_text(path, fetched.decode())
    return {split: folder / name for split, name in LISTS.items()}


def listed(held: pd.DataFrame, path: Path, count: int) -> pd.DataFrame:
    """The first `count` images of a list with lines `file label`.

    Raises:
        ValueError: a line is malformed, its image missing or of another class, or there are fewer.
    """
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or not line[1].isdecimal() or int(line[1]) >= len(class_indices()):
            raise ValueError(
                f"{path} line {number} is {' '.join(line)!r}: expected a file and a label of 0 "
                "to 999"
            )
    if len(lines) < count:
        raise ValueError(f"{path} has {len(lines)} images: expected at least {count}")
    labels = {Path(file).stem: int(label) for file, label in lines[:count]}
    missing = sorted(labels.keys() - set(held["id"]))
    if missing:
        raise ValueError(
            f"{path} names {missing[0]}, which is not among the {len(held)} validation images: "
            "expected ImageNet's, or lists: seeded"
        )
    table = held.set_index("id").loc[list(labels)].reset_index()
    expected = table["id"].map(labels)
    wrong = (table["class_index"] >= 0) & (table["class_index"] != expected)
    if wrong.any():
        first = table[wrong].iloc[0]
        raise ValueError(
            f"{path} gives {first['id']} the label {labels[first['id']]}: its folder says "
            f"{first['class_index']}, expected the same"
        )
    names = dict(enumerate(class_names()))
    return table.assign(class_index=expected, class_name=expected.map(names))


def drawn(held: pd.DataFrame, counts: dict[str, int], seed: int) -> dict[str, pd.DataFrame]:
    """Disjoint random choices of so many images, in the order of the folder.

    Raises:
        ValueError: there are fewer.
    """
    if sum(counts.values()) > len(held):
        raise ValueError(
            f"images wants {sum(counts.values())} held-out images: there are "
            f"{len(held)}, expected no more"
        )
    order = np.random.default_rng(seed_of(seed, "index")).permutation(len(held))
    chosen, start = {}, 0
    for name, count in counts.items():
        chosen[name] = held.iloc[np.sort(order[start : start + count])]
        start += count
    return chosen


def refuse_common(evaluation: pd.DataFrame, validation: pd.DataFrame) -> None:
    """Refuse lists that share an image.

    Raises:
        ValueError: names one.
    """
    common = sorted(set(evaluation["id"]) & set(validation["id"]))
    if common:
        raise ValueError(
            f"{common[0]} is in both lists, with {len(common) - 1} others: expected none"
        )


def checksums(root: Path, table: pd.DataFrame, name: str) -> list[str]:
    """The SHA-256 of every file of a table."""
    paths = tqdm(table["path"], desc=f"index {name}", unit="image", disable=None)
    return [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths]


if __name__ == "__main__":
    run(main, "folder")
