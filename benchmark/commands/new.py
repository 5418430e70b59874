"""Write a profile of your own: your photographs, networks and explainers.

    python -m benchmark new birds --images photographs/ --backbone efficientnet_lite0
    python -m benchmark new birds --images list.csv --train train/ --backbone resnet50 my.nets:make
    make profile NAME=birds DATA=photographs/

The photographs stay where they are. They lie in folders of their classes, or in one folder, or are
named by a CSV with the column path and, if you have them, label. The explained class is what a
network predicts; the page names the label where it is another. Labels are WordNet ids, names or
indices of classes: ImageNet's, or names and indices of --classes FILE, which has the name of a
class a line, in the order of the networks' outputs. A label that is none of these is left out.
"""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from torchvision.datasets.folder import is_image_file

import methods
from benchmark.commands.index import checksums
from benchmark.commands.layers import suggest
from benchmark.commands.networks import random_backbone
from benchmark.core import results
from benchmark.core.catalogue import read_explainer
from benchmark.core.cells import Project
from benchmark.core.params import PARAMS, Backbone, Params, read_yaml
from benchmark.core.sources import path_of
from benchmark.data.imagenet import class_indices, class_names, read_classes
from benchmark.data.seeds import seed_of
from methods import Preparation, wrap
from methods._inputs import open_photograph
from methods._wrapping import PACKAGED_LAYERS

PROFILES = Path("profiles")
COPIED = ("dvc.yaml", ".dvcignore", ".dvc/config")
"""What every profile has as the sample has it."""

SETTINGS = {
    "quick": "params.yaml",
    "standard": "params.yaml",
    "paper": "profiles/imagenet/params.yaml",
}
"""The parameters from which a profile's settings come; `quick` takes fewer images, see `QUICK`."""

QUICK = {"evaluation": 24, "images": 8}
"""How many images are explained, and how many by explainers that the sample gives fewer."""

FEW = 5
"""So many labels that are unknown are printed."""

LEAST = 2
"""Photographs to explain: an interval needs two."""

VALIDATION = 64
"""Training photographs held back to look at how training goes, at most a fifth of them."""

COLUMNS = ["id", "path", "bytes", "class_index", "class_name"]
IGNORED = ["/work/", "/results/splits/*.safetensors", "/results/variants/", "/results/maps/",
           "/results/index.html", "/results/page/", "/results/compare/"]  # fmt: skip


def main() -> None:
    """Write the profile that the command line describes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark new",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", help="of the folder below profiles/")
    add("--images", type=Path, required=True, help="photographs to explain: a folder, or a CSV")
    add("--train", type=Path, help="photographs to train on; without, nothing is trained")
    add("--backbone", nargs="+", required=True, help="efficientnet_lite0, a name of timm, "
        "torchvision:NAME, or package.module:function")  # fmt: skip
    add("--explainers", nargs="+", help="names, or package.module:Class; default: all")
    add("--settings", choices=SETTINGS, default="standard", help="of explainers and metrics")
    add("--classes", type=Path, help="names of the classes, a line each; default: ImageNet's")
    given = parser.parse_args()
    try:
        folder = write_profile(
            given.name,
            given.images,
            given.backbone,
            train=given.train,
            explainers=given.explainers,
            settings=given.settings,
            classes=given.classes,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"new: {' '.join(str(error).split())}")
    data = shlex.quote(str(root_of(given.images)))
    print(f"new: {folder} is written; run: make profile NAME={given.name} DATA={data}")


def write_profile(
    name: str,
    images: Path,
    backbones: list[str],
    *,
    train: Path | None = None,
    explainers: list[str] | None = None,
    settings: str = "standard",
    classes: Path | None = None,
) -> Path:
    """Write profiles/NAME: parameters, the pipeline, and lists of the photographs.

    Args:
        name: of the profile.
        images: photographs to explain, a folder or a CSV.
        backbones: names of networks, see the top of this file.
        train: photographs to train on; None leaves trained explainers out.
        explainers: names or dotted paths; those of the settings if None.
        settings: one of `SETTINGS`.
        classes: a file with the name of a class a line; ImageNet's if None.

    Raises:
        ValueError: a profile that is there, a folder without photographs, an unknown network or
            explainer, networks of several sizes.
    """
    if not PARAMS.is_file():
        raise ValueError(f"{PARAMS} not found: run from the folder of the repository")
    folder = PROFILES / name
    if not name.isidentifier():
        raise ValueError(
            f"the profile is called {name!r}: expected letters, digits and _, a letter first"
        )
    if folder.exists():
        raise ValueError(f"{folder} is there: expected another name, or remove it first")
    known = imagenet_labels() if classes is None else labels_of(read_classes(classes))
    root = root_of(images)
    shown = shuffled(listed(images, root, known))
    if len(shown) < LEAST:
        raise ValueError(f"{images} holds {len(shown)} photograph: expected at least {LEAST}")
    trained, validation = split_training(train, root, known)
    specs = specs_of(backbones)
    chosen = explainers_of(explainers, settings, train is not None)
    raw = parameters(settings, specs, chosen, len(shown), len(validation))
    raw["train"]["batch_size"] = max(1, min(raw["train"]["batch_size"], len(trained)))
    raw["images"] = images_of(backbones[0], specs, raw, classes)
    for backbone, spec in specs.items():
        skip = refused(backbone, spec, raw)
        raw["backbones"][backbone] |= {"skip": skip} if skip else {}
    left = set(chosen).difference(*(spec.get("skip", ()) for spec in raw["backbones"].values()))
    loaded = Params.model_validate(raw)
    if not left or not Project(loaded).all_cells():
        raise ValueError(
            f"none of {', '.join(chosen)} works on {', '.join(specs)}: expected an explainer of "
            "its family, see above"
        )
    lists = {"train": trained, "validation": validation, "evaluation": shown}
    write(folder, raw, lists, root, classes)
    return folder


def root_of(images: Path) -> Path:
    """The folder that paths of photographs are relative to.

    Raises:
        ValueError: there is no such folder or file.
    """
    if not images.exists() or (images.is_file() and images.suffix != ".csv"):
        what = "is no CSV" if images.exists() else "not found"
        raise ValueError(f"{images} {what}: expected a folder of photographs, or a CSV")
    return (images if images.is_dir() else images.parent).resolve()


def labels_of(names: list[str]) -> dict[str, tuple[int, str]]:
    """Index and name of a class by what a label may call it: its name or its index."""
    found = {name: (i, name) for i, name in enumerate(names)}
    return {str(i): (i, name) for i, name in enumerate(names)} | found


def imagenet_labels() -> dict[str, tuple[int, str]]:
    """See `labels_of`; also by its WordNet id. A name of two classes, as crane, is of none."""
    names = class_names()
    known = labels_of(names)
    twice = {name for name in names if names.count(name) > 1}
    own = {wnid: (i, names[i]) for wnid, i in class_indices().items()}
    return {label: found for label, found in known.items() if label not in twice} | own


def listed(source: Path, root: Path, known: dict[str, tuple[int, str]]) -> pd.DataFrame:
    """The photographs of a folder or a CSV: columns COLUMNS, class_index -1 where it is unknown.

    Raises:
        ValueError: there are none, or one is missing or damaged.
    """
    found = from_csv(source) if source.is_file() else from_folder(source)
    if not found:
        raise ValueError(f"{source} holds no photographs: expected files such as a.jpg or a.png")
    rows = []
    unknown = sorted({label for _, label in found if label and label not in known})
    if unknown:
        few = ", ".join(unknown[:FEW]) + (", ..." if len(unknown) > FEW else "")
        print(f"new: {len(unknown)} labels of {source} are no known class: {few}")
    for path, label in found:
        if not path.is_file():
            raise ValueError(f"{source} names {path}, which is not there: expected a photograph")
        open_photograph(path)
        relative = os.path.relpath(path.resolve(), root)
        rows.append((relative, path.stat().st_size, *known.get(label, (-1, "unknown"))))
    table = pd.DataFrame(rows, columns=COLUMNS[1:])
    stems = table["path"].map(lambda path: Path(path).stem)
    table.insert(0, "id", table["path"] if stems.duplicated().any() else stems)
    return table


def from_folder(folder: Path) -> list[tuple[Path, str]]:
    """The photographs of a folder with their labels: the names of their folders, if they have some.

    Hidden files are none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if is_image_file(path.name)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return [(path, path.parent.name if path.parent != folder else "") for path in found]


def from_csv(path: Path) -> list[tuple[Path, str]]:
    """The photographs of a CSV with the columns path and, if there is one, label.

    Raises:
        ValueError: other columns.
    """
    table = pd.read_csv(path, dtype=str).fillna("")
    if "path" not in table:
        raise ValueError(
            f"{path} has the columns {', '.join(table.columns)}: expected path, and label if known"
        )
    labels = table["label"] if "label" in table else [""] * len(table)
    return [(path.parent / own, label) for own, label in zip(table["path"], labels, strict=True)]


def split_training(
    train: Path | None, root: Path, known: dict[str, tuple[int, str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photographs for training, and those held back for validation; none of no folder."""
    if train is None:
        return pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=COLUMNS)
    table = listed(train, root, known)
    held = min(VALIDATION, len(table) // 5)
    if held < 1:
        raise ValueError(f"{train} holds {len(table)} photographs: expected at least 5 to train on")
    mixed = shuffled(table)
    return mixed.iloc[held:], mixed.iloc[:held]


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    """Rows in a seeded order: expensive explainers and metrics take the first ones."""
    return table.sample(frac=1, random_state=seed_of(0, "new") % 2**32)


def specs_of(backbones: list[str]) -> dict[str, Backbone]:
    """The networks by what they are called in the profile.

    Raises:
        ValueError: two have one name.
    """
    specs: dict[str, Backbone] = {}
    for given in backbones:
        name = given.rpartition(":")[2].replace(".", "_")
        if name in specs:
            raise ValueError(f"two backbones are called {name!r}: expected names of their own")
        specs[name] = spec_of(given)
    return specs


def spec_of(given: str) -> Backbone:
    """Network, layers and normalisation of a name."""
    if given in PACKAGED_LAYERS:
        return Params.model_validate(read_yaml(root_file(PARAMS).read_text())).backbones[given]
    return suggest(given)


def root_file(path: str | Path) -> Path:
    """A file of this suite."""
    return path_of("benchmark").parent.parent / path


def explainers_of(
    given: list[str] | None, settings: str, trains: bool
) -> dict[str, dict[str, Any]]:
    """The explainers of a profile with their settings; trained ones only where there is a training.

    Raises:
        ValueError: an unknown explainer, or none is left.
    """
    known = read_yaml(root_file(SETTINGS[settings]).read_text())["explainers"]
    chosen: dict[str, dict[str, Any]] = {}
    left_out = []
    for name in given or known:
        entry = {"load": name} if ":" in name else dict(known.get(name) or {})
        if read_explainer(name)["trained"] and not trains:
            left_out.append(name)
        else:
            own = name.rpartition(":")[2]
            if own in chosen:
                raise ValueError(f"two explainers are called {own!r}: expected each once")
            chosen[own] = entry
    if left_out:
        print(f"new: left out, since there is no --train: {', '.join(left_out)}")
    if not chosen:
        raise ValueError("no explainer is left: expected --explainers that are not trained")
    return chosen


def parameters(
    settings: str,
    specs: dict[str, Backbone],
    explainers: dict[str, dict[str, Any]],
    images: int,
    validation: int,
) -> dict[str, Any]:
    """The parameters of a profile, but for its images."""
    raw: dict[str, Any] = read_yaml(root_file(SETTINGS[settings]).read_text())
    raw |= {"launch": "python -m", "code": os.path.relpath(root_file("."), PROFILES / "x")}
    raw["backbones"] = {
        name: own.model_dump(mode="json", exclude_defaults=True, exclude={"explainers", "skip"})
        for name, own in specs.items()
    }
    evaluation = min(images, QUICK["evaluation"]) if settings == "quick" else images
    raw["images"] = {"evaluation": evaluation, "validation": validation}
    most = min(evaluation, QUICK["images"]) if settings == "quick" else evaluation
    raw["explainers"] = {name: fewer(own, most) for name, own in explainers.items()}
    metrics = raw["evaluate"]["metrics"]
    metrics.pop("localisation", None)  # which needs a mask of every image
    raw["evaluate"]["metrics"] = {name: fewer(own, evaluation) for name, own in metrics.items()}
    raw["ablation"] = {}
    raw["tables"]["short"] = []
    return raw


def fewer(entry: dict[str, Any], most: int) -> dict[str, Any]:
    """An entry whose number of images, if it has one, is not above what there is."""
    return entry | {"images": min(entry["images"], most)} if "images" in entry else entry


def images_of(
    first: str, specs: dict[str, Backbone], raw: dict[str, Any], classes: Path | None
) -> dict[str, Any]:
    """The section `images`: how the first network wants its photographs.

    Raises:
        ValueError: the networks want other sizes.
    """
    sizes = {name: spec.size for name, spec in specs.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"the networks take images of several sizes ({said}): expected one size")
    size = next(iter(sizes.values()))
    prepared = preparation_of(first, size)
    if len(specs) > 1 or not isinstance(prepared.resize, int):
        print(
            f"new: photographs are prepared once: the shorter side resized "
            f"({prepared.interpolation}), the centre cropped, in the sizes of {first}"
        )
    resize = prepared.resize if isinstance(prepared.resize, int) else max(prepared.resize)
    images: dict[str, Any] = raw["images"]
    return images | {
        "source": "photographs",
        "folder": "data",
        "resize": resize,
        "size": size,
        "train": None,
        "lists": "own",
        "interpolation": prepared.interpolation,
        "upright": True,
        "classes": "imagenet" if classes is None else "data/classes.txt",
    }


def preparation_of(given: str, size: int) -> Preparation:
    """How a network's photographs are prepared; what most do if nobody says."""
    try:
        found = wrap(given, weights="none").preparation
    except ValueError:  # nobody says mean and std either
        return Preparation(round(size * 8 / 7), size)
    return found if found.crop == size else Preparation(round(size * 8 / 7), size)


def refused(backbone: str, spec: Backbone, raw: dict[str, Any]) -> list[str]:
    """The explainers that a network of this kind cannot have; says why."""
    network = random_backbone(backbone, spec)
    names = []
    for name, entry in raw["explainers"].items():
        cls = methods.load(entry.get("load") or name)
        if network.family not in cls.families:
            continue
        try:
            methods.build(cls, network, entry.get("settings"))
        except ValueError as error:
            names.append(name)
            print(f"new: {backbone} is left without {name}: {error}")
    return names


def write(
    folder: Path,
    raw: dict[str, Any],
    lists: dict[str, pd.DataFrame],
    root: Path,
    classes: Path | None,
) -> None:
    """Write a profile; its parameters last, so that it is whole when they are there."""
    count = raw["images"]["evaluation"]
    written = lists | {"evaluation": lists["evaluation"].iloc[:count]}
    for name in ("validation", "evaluation"):
        checked = {"list": "own", "sha256": checksums(root, written[name], name)}
        written[name] = written[name].assign(**checked)
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root_file(name), folder / name)
    results.write_text(folder / ".gitignore", "\n".join([*IGNORED, ""]))
    for name, table in written.items():
        results.write_csv(folder / "data" / f"{name}.csv", table)
    if classes is not None:
        shutil.copyfile(classes, folder / "data" / "classes.txt")
    labelled = int((lists["evaluation"]["class_index"] >= 0).sum())
    print(
        f"new: {count} photographs to explain, {labelled} of {len(lists['evaluation'])} with a "
        f"known label; {len(lists['train'])} to train on, {len(lists['validation'])} to validate"
    )
    head = (
        f"# Written by `python -m benchmark new {folder.name}`; edit it as you like. What a key\n"
        "# means stands in benchmark/core/params.py.\n"
    )
    order = ["seed", "launch", "code", "mode", "target", "images", "backbones", "explainers"]
    ordered = {key: raw[key] for key in order} | raw
    text = yaml.safe_dump(ordered, sort_keys=False, default_flow_style=None, width=100)
    results.write_text(folder / PARAMS, head + text)


if __name__ == "__main__":
    main()
