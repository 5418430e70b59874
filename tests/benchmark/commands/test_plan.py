"""The plan: counts that can be computed by hand, and every stage in it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import stand_in
import torch
from conftest import tiny_cnn, tiny_spec

from benchmark.commands import index, plan
from benchmark.core.cells import Project
from benchmark.core.params import Ablate, Explainer, Params, Photographs, Scored, Variant
from benchmark.data import splits


@pytest.fixture
def profile(settings: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Params:
    """Two explainers, one of them trained, on the tiny CNN."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "build_backbone", lambda *_, **__: tiny_cnn())
    spec = tiny_spec()
    explainers = {"ttame": Explainer(), "rise": Explainer(settings={"masks": 9}, images=50)}
    ablation = {"tiny_cnn": {"one": Variant(label="one layer", settings={"layers": ["2"]})}}
    chosen = Photographs(
        source="photographs", folder=Path("lists"), resize=64, size=32, train=640, validation=10,
        evaluation=100, lists="seeded",
    )  # fmt: skip
    recipe = settings.train.model_copy(update={"epochs": 3, "batch_size": 16})
    metrics = {
        "confidence": Scored(settings={"kept": [100, 50]}),
        "road": Scored(settings={"removed": [10]}, images=60),
    }
    return settings.model_copy(
        update={
            "images": chosen,
            "backbones": {"tiny_cnn": spec},
            "explainers": explainers,
            "ablation": ablation,
            "train": recipe,
            "ablate": Ablate(
                **recipe.model_dump() | {"images": 64, "epochs": 1, "seeds": 3, "scored": 9}
            ),
            "evaluate": settings.evaluate.model_copy(
                update={"metrics": metrics, "delta_images": 20}
            ),
            "randomise": settings.randomise.model_copy(
                update={"images": 5, "layers": [10, 100], "seed_images": 8}
            ),
            "runtime": settings.runtime.model_copy(update={"batch": 4, "rounds": 2, "warmup": 1}),
        }
    )


def test_counts_are_those_of_the_parameters(profile: Params) -> None:
    rows = {row.stage: row for row in plan.of_backbone(Project(profile), "tiny_cnn", lambda: None)}
    assert {stage: row.cells for stage, row in rows.items()} == {
        "train": 1, "explain": 2, "randomise": 2, "runtime": 2, "evaluate": 2, "ablate": 3,
    }  # fmt: skip
    per_image = 1 + 9
    assert rows["explain"].images == 1 * 100 + 9 * 50
    assert rows["randomise"].images == per_image * 5 * 2 + 9 * 8
    assert rows["runtime"].images == per_image * (2 + 1) * (1 + 4)
    ttame = 2 * (100 + 20) + 2 * (60 + 20)
    rise = 2 * (50 + 20) + 2 * (50 + 20)
    assert rows["evaluate"].images == 100 + ttame + rise  # the images themselves go once
    assert rows["train"].images == 2 * 640 * 3
    assert rows["ablate"].images == 3 * 2 * 64
    assert rows["explain"].bytes == 4 * (100 * 16 * 16 + 50 * 32 * 32)
    assert all(row.seconds > 0 for row in rows.values())


def listing(profile: Params, **counts: int | None) -> Photographs:
    """The photographs of a profile with other counts."""
    assert isinstance(profile.images, Photographs)
    return profile.images.model_copy(update=counts)


def test_listed_training_images_count(profile: Params, settings: Params) -> None:
    folder = listing(profile).folder
    folder.mkdir()
    pd.DataFrame({"id": range(320)}).to_csv(folder / "train.csv")
    assert plan.training_images(profile) == 320
    (folder / "train.csv").unlink()
    assert plan.training_images(profile) == 640
    every = listing(profile, train=None)
    assert plan.training_images(profile.model_copy(update={"images": every})) == 1_281_167
    assert plan.training_images(settings) == settings.images.train


def test_a_checkpoint_is_not_trained(profile: Params) -> None:
    released = Explainer(checkpoint=Path("released.safetensors"))
    changed = profile.model_copy(update={"explainers": {"ttame": released}})
    rows = {row.stage: row for row in plan.of_backbone(Project(changed), "tiny_cnn", lambda: None)}
    assert (rows["train"].cells, rows["train"].images, rows["train"].seconds) == (1, 0, 0)
    assert rows["train"].bytes > 0
    assert rows["ablate"].images == 3 * 2 * 64


def test_the_table_ends_with_sums(profile: Params, capsys: pytest.CaptureFixture[str]) -> None:
    plan.main(profile)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("|")[4].strip() == "images through the network"
    body = [line.split("|")[1:-1] for line in lines[2:] if line.startswith("|")]
    count = [int(cells[3].replace(",", "")) for cells in body]
    assert body[-1][0].strip() == "all"
    assert count[-1] == sum(count[:-1])
    assert torch.__version__ in lines[-1]


def test_decoding_is_measured_where_photographs_are_listed(
    profile: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("imagenet")
    stand_in.build(folder, "torchvision", train=3, held=9)
    monkeypatch.setenv(splits.ROOT, str(folder))
    few = listing(profile, train=None, validation=4, evaluation=5)
    listed = profile.model_copy(update={"images": few})
    index.main(listed, str(folder))
    assert plan.decoding_rate(few) > 0
    enough = profile.train.model_copy(update={"batch_size": 1})
    plan.main(listed.model_copy(update={"train": enough, "ablation": {}}))
    assert "photographs a second by all CPUs" in capsys.readouterr().out
