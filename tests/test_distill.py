"""The sample's vision transformer: how it learns, and how well it agrees with its teacher."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import load_script
from torch import Tensor

from benchmark.core.params import Params
from benchmark.core.store import Key, Unfinished
from benchmark.data.compositions import load_cutouts
from methods import Backbone

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"


distill = load_script("distill")


@pytest.fixture
def settings_tiny() -> Any:
    return distill.Settings(images=12, epochs=2, batch_size=4, hints={"1": "blocks.0"})


@pytest.fixture
def pool(cnn: Backbone) -> Any:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 32, 32), generator=generator, dtype=torch.uint8)
    with torch.no_grad(), cnn.tap(["1"]) as features:
        probabilities = cnn.probabilities(images / 255)
    return {"images": images, "probabilities": probabilities.half(), "1": features["1"].half()}


def test_dropped_keeps_the_prefix_and_remembers_the_rest() -> None:
    tokens = torch.arange(2 * 17).view(2, 17, 1).float()
    dropped = distill.Dropped(0.75, prefix_tokens=1)
    found = dropped(tokens)
    assert found.shape == (2, 5, 1)
    assert torch.equal(found[:, 0], tokens[:, 0])
    assert torch.equal(found[:, 1:], distill.taken(tokens[:, 1:], dropped.kept))
    assert all(len(set(row)) == 4 for row in dropped.kept.tolist())
    dropped.share = 0.0
    assert torch.equal(dropped(tokens).sort(dim=1).values, tokens)


def test_random_masks() -> None:
    masks = distill.random_masks(200, 28, torch.Generator().manual_seed(0))
    assert masks.shape == (200, 28, 28)
    assert float(masks.min()) == 0.0
    assert float(masks.max()) == 1.0
    assert 0.4 < float(masks.mean()) < 0.6


def test_hints_by_hand(vit: Backbone, pool: Any, settings_tiny: Any) -> None:
    hints = distill.Hints(vit, settings_tiny, pool)
    kept = torch.tensor([[0, 5], [15, 2]])
    tokens = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))
    own = {name: tensor[:2] for name, tensor in pool.items()}
    found = hints({"blocks.0": tokens}, kept, own, prefix=1)
    features = pool["1"].float()
    mean = features.mean((0, 2, 3), keepdim=True)
    standard = (features - mean) / (features.std((0, 2, 3), keepdim=True) + 1e-6)
    grid = F.interpolate(standard[:2], size=(4, 4), mode="bilinear").flatten(2)
    errors = [
        (hints.heads[0](tokens[b, 1 + i]) - grid[b, :, kept[b, i]]).square()
        for b in range(2)
        for i in range(2)
    ]
    assert torch.allclose(found, torch.stack(errors).mean(), atol=1e-5)


def weights(backbone: Backbone) -> list[Tensor]:
    return [p.clone() for p in backbone.network.parameters()]


def test_training_resumes_where_it_stopped(
    pool: Any,
    settings_tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from conftest import tiny_vit

    monkeypatch.chdir(tmp_path)
    whole, stopped, resumed = tiny_vit(), tiny_vit(), tiny_vit()
    work = [Unfinished("distill", Key(str(i), "")) for i in range(2)]
    torch.manual_seed(0)
    curve = distill.fit(whole, pool, settings_tiny, 0, work[0])
    batches, epochs = distill.batches, []

    def killed(images: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        epochs.append(epoch)
        if epoch == 1:
            raise KeyboardInterrupt
        return batches(images, batch_size, seed, epoch)

    torch.manual_seed(0)
    monkeypatch.setattr(distill, "batches", killed)
    with pytest.raises(KeyboardInterrupt):
        distill.fit(stopped, pool, settings_tiny, 0, work[1])
    assert epochs == [0, 1]
    monkeypatch.setattr(distill, "batches", batches)
    again = distill.fit(resumed, pool, settings_tiny, 0, work[1])
    assert curve.equals(again)
    assert all(map(torch.equal, weights(whole), weights(resumed)))
    assert not all(map(torch.equal, weights(whole), weights(tiny_vit())))
    assert not any(p.requires_grad for p in whole.network.parameters())


def test_the_shipped_transformer_agrees_with_its_teacher(
    vit_sample: Backbone, lite0: Backbone
) -> None:
    """What is written down, and once more on a few compositions of another seed."""
    written = json.loads((SAMPLE / "agreement.json").read_text())
    assert written["images"] >= 1000
    assert written["agreement"] >= 90
    cutouts = load_cutouts(SAMPLE)
    found = distill.agreement(vit_sample, lite0, cutouts, 100, seed=99)
    standard_error = 100 * np.sqrt(0.1 * 0.9 / found["named"])
    assert found["agreement"] > 90 - 3 * standard_error


def test_the_shipped_weights_are_small(settings: Params) -> None:
    path = ROOT / settings.backbones["vit_sample"].weights
    assert path.stat().st_size <= 8_000_000
