"""Splits of compositions: balanced, held-out images recognised, no composition twice."""

from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from benchmark.data import compositions
from benchmark.data.compositions import Cutout, load_cutouts
from benchmark.data.splits import Split
from methods import Backbone

SAMPLE = Path(__file__).parents[3] / "data" / "sample"


@pytest.fixture(scope="module")
def cutouts() -> list[Cutout]:
    return load_cutouts(SAMPLE)


def make(name: str, count: int, cutouts: list[Cutout], classifier: Backbone) -> Split:
    with tqdm(disable=True) as progress:
        return compositions.make_split(
            name, count, cutouts, classifier, seed=0, size=224, progress=progress
        )


def test_held_out_images_are_recognised(lite0: Backbone, cutouts: list[Cutout]) -> None:
    split = make("evaluation", 20, cutouts, lite0)
    assert torch.equal(lite0.predict(split.images(slice(20))), split.labels)
    assert split.table["object"].is_unique
    assert split.objects.flatten(1).any(dim=1).all()
    assert not {"prediction", "confidence"} & set(split.table)  # they differ between processors


def test_training_takes_every_composition(lite0: Backbone, cutouts: list[Cutout]) -> None:
    split = make("train", 40, cutouts, lite0)
    assert list(split.ids) == [f"train-{i:05d}" for i in range(40)]
    assert not torch.equal(lite0.predict(split.images(slice(40))), split.labels)


def test_same_seed_same_bytes(lite0: Backbone, cutouts: list[Cutout]) -> None:
    first, again = (make("validation", 6, cutouts, lite0) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert first.table.equals(again.table)


def test_every_object_once_before_any_twice(cutouts: list[Cutout]) -> None:
    stream = compositions.candidates("train", cutouts[:9], 0, 64)
    names = [next(stream)[1].cutout.name for _ in range(27)]
    assert [len(set(names[i : i + 9])) for i in (0, 9, 18)] == [9, 9, 9]
    assert names[:9] != names[9:18]


def test_a_repeated_composition_is_refused(lite0: Backbone, cutouts: list[Cutout]) -> None:
    split = make("validation", 4, cutouts, lite0)
    compositions.refuse_repeats({"validation": split})
    with pytest.raises(ValueError, match="4 compositions occur twice"):
        compositions.refuse_repeats({"validation": split, "evaluation": split})
