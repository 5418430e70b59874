"""The search tries every trained explainer with the same settings, and keeps what is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.commands import search
from benchmark.core.params import Params
from benchmark.core.store import WORK
from benchmark.data import splits
from benchmark.engine import training

BEST, WORST = search.TRIALS[3], search.TRIALS[5]
ROOT = Path(__file__).parents[3]


@dataclass
class Images:
    """A split of which nothing is read."""

    split: str
    images: int = 2560

    def __len__(self) -> int:
        return self.images


def test_every_head_is_tried_alike_and_a_stopped_search_goes_on(
    settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, float, float]] = []

    def train(name: str, *given: Any, **others: Any) -> tuple[None, pd.DataFrame]:
        _, own, recipe, splits = given
        assert [split.split for split in splits] == ["train", "validation"]
        assert others["seed"] == settings.seed
        assert recipe.images == search.STEPS * recipe.batch_size
        assert recipe.epochs == 1
        tried.append((name, own["gain"], recipe.max_lr))
        if len(tried) == 8:
            raise KeyboardInterrupt
        if (own["gain"], recipe.max_lr) == WORST:
            raise ValueError("training diverged")
        best = (own["gain"], recipe.max_lr) == BEST
        return None, pd.DataFrame({"validation_ad": [80.0, 12.34 if best else 50.0]})

    monkeypatch.setattr(splits, "read_split", lambda _, split: Images(split))
    monkeypatch.setattr(splits, "read_training", lambda _: Images("train"))
    monkeypatch.setattr(training, "train", train)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search.main(settings)
    search.main(settings)
    heads = ["ttame", "lcam_img", "lcam_fm", "ttame", "tame"]
    every = [(head, *trial) for head in heads for trial in search.TRIALS]
    assert [t for i, t in enumerate(tried) if i != 7] == every
    text = (search.SEARCH / "efficientnet_lite0.md").read_text()
    assert text.count("**12.3**") == text.count("failed") == 3
    assert pd.read_csv(search.SEARCH / "vit_sample.csv")["Explainer"].tolist() == ["T-TAME", "TAME"]
    assert not list(WORK.glob("search*"))


def test_too_few_images_and_trials_that_all_fail_are_refused(
    settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any, **__: Any) -> None:
        raise ValueError("training diverged")

    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(splits, "read_split", lambda _, split: Images(split))
    monkeypatch.setattr(splits, "read_training", lambda _: Images("train", 1279))
    with pytest.raises(ValueError, match=r"images.train is 1279: expected at least 1280"):
        search.main(settings)
    monkeypatch.setattr(splits, "read_training", lambda _: Images("train"))
    with pytest.raises(ValueError, match="no trial of efficientnet_lite0/ttame succeeded"):
        search.main(settings)
