"""Splits of compositions: balanced, held-out images recognised, no composition twice."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import load_script
from safetensors.torch import save_file
from torch import Tensor

from benchmark.data import compositions
from benchmark.data.compositions import Cutout, load_cutouts
from benchmark.data.splits import Split, mapped, read_split
from methods import Backbone

SAMPLE = Path(__file__).parents[3] / "data" / "sample"


@pytest.fixture(scope="module")
def cutouts() -> list[Cutout]:
    return load_cutouts(SAMPLE)


def make(name: str, count: int, *, seed: int = 0) -> Split:
    return compositions.make_splits(SAMPLE, {name: count}, seed=seed, size=224)[name]


def test_the_list_is_what_the_classifier_names(lite0: Backbone, cutouts: list[Cutout]) -> None:
    recognise = load_script("recognise")
    table = pd.read_csv(SAMPLE / compositions.RECOGNISED)
    assert table.groupby("split")["number"].nunique().to_dict() == recognise.COUNTS
    for split in recognise.COUNTS:
        found = list(recognise.recognised(split, cutouts, lite0, 0, 224, 64))
        listed = table[(table["split"] == split) & (table["number"] < 64)]
        assert (listed["seed"] == 0).all()
        assert (listed["size"] == 224).all()
        assert len(set(listed["number"]) ^ set(found)) <= 1  # another processor may flip one
        assert 0 < len(found) < 64


def test_held_out_images_are_the_listed_ones(lite0: Backbone) -> None:
    split = make("evaluation", 20)
    listed = compositions.chosen(SAMPLE, "evaluation", 20, 0, 224)
    assert split.ids == [f"evaluation-{number:05d}" for number in listed]
    assert torch.equal(lite0.predict(split.images(slice(20))), split.labels)
    assert split.table["object"].is_unique
    assert split.objects.flatten(1).any(dim=1).all()
    assert not {"prediction", "confidence"} & set(split.table)  # they differ between processors


@pytest.mark.parametrize(("count", "seed", "listed"), [(1001, 0, 1000), (1, 7, 0)])
def test_what_is_not_listed_is_refused(count: int, seed: int, listed: int) -> None:
    message = f"lists {listed} images of evaluation for seed {seed} and size 224: expected {count},"
    with pytest.raises(ValueError, match=message):
        make("evaluation", count, seed=seed)


def test_training_takes_every_composition(lite0: Backbone) -> None:
    split = make("train", 40, seed=5)
    assert list(split.ids) == [f"train-{i:05d}" for i in range(40)]
    assert not torch.equal(lite0.predict(split.images(slice(40))), split.labels)


def test_same_seed_same_bytes() -> None:
    first, again = (make("validation", 6) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert first.table.equals(again.table)


def test_every_object_once_before_any_twice(cutouts: list[Cutout]) -> None:
    made = [compositions.compose_numbered("train", n, cutouts[:9], 0, 64) for n in range(27)]
    names = [one.cutout.name for one in made]
    assert [len(set(names[i : i + 9])) for i in (0, 9, 18)] == [9, 9, 9]
    assert names[:9] != names[9:18]


def test_a_repeated_composition_is_refused() -> None:
    split = make("validation", 4)
    compositions.refuse_repeats({"validation": split})
    with pytest.raises(ValueError, match="4 compositions occur twice"):
        compositions.refuse_repeats({"validation": split, "evaluation": split})


def test_a_split_may_be_empty() -> None:
    """A run that trains nothing wants no validation images."""
    made = compositions.make_splits(SAMPLE, {"train": 1, "validation": 0}, seed=0, size=32)
    empty = made["validation"]
    assert (empty.pixels.shape, empty.objects.shape) == ((0, 3, 32, 32), (0, 32, 32))
    assert (len(empty), empty.labels.dtype) == (0, torch.int64)


@pytest.mark.parametrize("count", [0, 3])
def test_a_split_in_a_file_is_that_in_memory(count: int, tmp_path: Path) -> None:
    """And its file is what safetensors writes."""

    def place(name: str, count: int, side: int) -> dict[str, Tensor]:
        return mapped(tmp_path / f"{name}.safetensors", count, side)

    counts = {"train": count}
    own = compositions.make_splits(SAMPLE, counts, seed=0, size=32)["train"]
    made = compositions.make_splits(SAMPLE, counts, seed=0, size=32, place=place)["train"]
    made.table.to_csv(tmp_path / "train.csv", index=False)
    read = read_split(tmp_path, "train")
    for split in (made, read):
        assert torch.equal(split.pixels, own.pixels)
        assert torch.equal(split.objects, own.objects)
        assert torch.equal(split.labels, own.labels)
    tensors = {"pixels": own.pixels, "objects": own.objects, "labels": own.labels}
    save_file(tensors, tmp_path / "expected.safetensors")
    written = (tmp_path / "train.safetensors").read_bytes()
    assert written == (tmp_path / "expected.safetensors").read_bytes()
