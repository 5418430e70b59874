"""The search tries every trained explainer with the same settings, and keeps what is done."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.commands import search
from benchmark.core.params import Params
from benchmark.core.store import WORK
from benchmark.data import splits
from benchmark.engine import training

BEST = search.TRIALS[3]


def test_every_head_is_tried_alike_and_a_stopped_search_goes_on(
    settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, float, float]] = []

    def train(name: str, *given: Any, **others: Any) -> tuple[None, pd.DataFrame]:
        _, own, recipe, _ = given
        assert recipe.images == search.STEPS * recipe.batch_size
        assert recipe.epochs == 1
        tried.append((name, own["gain"], recipe.max_lr))
        if len(tried) == 8:
            raise KeyboardInterrupt
        best = (own["gain"], recipe.max_lr) == BEST
        return None, pd.DataFrame({"validation_ad": [80.0, 12.34 if best else 50.0]})

    for name in ("read_split", "read_training"):
        monkeypatch.setattr(splits, name, lambda *_: None)
    monkeypatch.setattr(training, "train", train)
    monkeypatch.chdir(settings_folder(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        search.main(settings)
    search.main(settings)
    heads = ["ttame", "lcam_img", "lcam_fm", "ttame", "tame"]
    every = [(head, *trial) for head in heads for trial in search.TRIALS]
    assert [t for i, t in enumerate(tried) if i != 7] == every
    text = (search.SEARCH / "efficientnet_lite0.md").read_text()
    assert text.count("**12.3**") == 3
    assert pd.read_csv(search.SEARCH / "vit_sample.csv")["Explainer"].tolist() == ["T-TAME", "TAME"]
    assert not list(WORK.glob("search*"))


def settings_folder(folder: Path) -> Path:
    """A folder from which the sample is read."""
    (folder / "data").symlink_to(Path(__file__).parents[3] / "data")
    return folder
