"""The thousand classes of ImageNet, in the order of their WordNet ids."""

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
