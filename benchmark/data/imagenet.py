"""Names of classes: the thousand of ImageNet, in the order of their WordNet ids, or of a file."""

from pathlib import Path
from typing import Any

from timm.data.imagenet_info import ImageNetInfo


def class_indices() -> dict[str, int]:
    """The index of each WordNet id."""
    info: Any = ImageNetInfo()
    return {name: index for index, name in enumerate(info.label_names())}


def class_names() -> list[str]:
    """A name of each class, by index."""
    info: Any = ImageNetInfo()
    return [name.split(",")[0] for name in info.label_descriptions()]


def read_classes(path: Path) -> list[str]:
    """The names of the classes in a file.

    Raises:
        ValueError: there are none, or a name stands twice.
    """
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path} has {len(names)} names: expected each once, a line a class")
    return names
