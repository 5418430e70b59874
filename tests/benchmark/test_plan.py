"""The plan: counts that can be computed by hand, and every stage in it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import stand_in
import torch
from conftest import tiny_cnn

from benchmark import plan
from benchmark.params import Ablate, BackboneSpec, Cell, Params, Photographs, Variant
from benchmark.params import Counts as Images


@pytest.fixture
def profile(settings: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Params:
    """Two cells and a head on the tiny CNN."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan.backbones, "build", lambda *_: tiny_cnn())
    cnn = tiny_cnn()
    spec = BackboneSpec(
        source="timm", model="x", weights="none", size=cnn.size, mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5), taps=cnn.taps, cam_layer=cnn.cam_layer,
    )  # fmt: skip
    cells = {
        "tiny_cnn-ttame": Cell(backbone="tiny_cnn", explainer="ttame", needs="x"),
        "tiny_cnn-rise": Cell(
            backbone="tiny_cnn", explainer="rise", needs="x", settings={"masks": 9}
        ),
    }
    head = settings.heads["efficientnet_lite0-ttame"].model_copy(update={"backbone": "tiny_cnn"})
    one = {"backbone": "tiny_cnn", "explainer": "ttame", "needs": "x", "label": "one layer"}
    ablation = {"tiny_cnn-one": Variant(**one, settings={"layers": ["2"]})}
    counts = Images(train=640, validation=10, evaluation=100)
    chosen = Photographs(resize=64, size=32, images=counts, lists="seeded")
    recipe = settings.train.model_copy(update={"epochs": 3, "batch_size": 16})
    metrics = {"confidence": {"kept": [100, 50]}, "road": {"removed": [10]}}
    return settings.model_copy(
        update={
            "subset": None,
            "photographs": chosen,
            "backbones": {"tiny_cnn": spec},
            "heads": {"tiny_cnn-ttame": head},
            "cells": cells,
            "ablation": ablation,
            "train": recipe,
            "ablate": Ablate(**recipe.model_dump() | {"images": 64, "epochs": 1, "seeds": 3}),
            "evaluate": settings.evaluate.model_copy(
                update={"metrics": metrics, "delta_images": 20}
            ),
            "randomise": settings.randomise.model_copy(update={"images": 5, "layers": [10, 100]}),
            "runtime": settings.runtime.model_copy(update={"batch": 4, "rounds": 2, "warmup": 1}),
        }
    )


def test_counts_are_those_of_the_parameters(profile: Params) -> None:
    rows = {row.stage: row for row in plan.of_backbone(profile, "tiny_cnn", lambda: None)}
    assert {stage: row.cells for stage, row in rows.items()} == {
        "train": 1, "explain": 2, "randomise": 2, "runtime": 2, "evaluate": 2, "ablate": 3,
    }  # fmt: skip
    per_image = 1 + 9
    assert rows["explain"].images == per_image * 100
    assert rows["randomise"].images == per_image * 5 * 2
    assert rows["runtime"].images == per_image * (2 + 1) * (1 + 4)
    versions = 1 + 2 + 2
    assert rows["evaluate"].images == 2 * versions * (100 + 20)
    assert rows["train"].images == 2 * 640 * 3
    assert rows["ablate"].images == 3 * 2 * 64
    assert rows["explain"].bytes == 4 * 100 * (16 * 16 + 32 * 32)
    assert all(row.seconds > 0 for row in rows.values())


def test_listed_training_images_count(profile: Params) -> None:
    plan.index.DATA.mkdir()
    pd.DataFrame({"id": range(320)}).to_csv(plan.index.DATA / "train.csv")
    assert plan.training_images(profile) == 320
    (plan.index.DATA / "train.csv").unlink()
    assert profile.photographs is not None
    every = profile.photographs.model_copy(update={"images": Images(validation=1, evaluation=1)})
    assert plan.training_images(profile.model_copy(update={"photographs": every})) == 1_281_167


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
    monkeypatch.setenv(plan.images.ROOT, str(folder))
    assert profile.photographs is not None
    counts = Images(train=None, validation=4, evaluation=5)
    few = profile.photographs.model_copy(update={"images": counts})
    listed = profile.model_copy(update={"photographs": few})
    plan.index.main(listed, str(folder))
    assert plan.decoding_rate(few) > 0
    enough = profile.train.model_copy(update={"batch_size": 1})
    plan.main(listed.model_copy(update={"train": enough, "ablation": {}}))
    assert "photographs a second by all CPUs" in capsys.readouterr().out
