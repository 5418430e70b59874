"""AD and IC: exact values, limits, and the formula written out."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.confidence import Confidence, average_drop, increase_in_confidence


def score(pixels: Tensor) -> Tensor:
    """A linear model of the mean colour: probabilities (B, 3)."""
    return (8 * pixels.mean(dim=(2, 3))).softmax(dim=1)


def test_exact_values() -> None:
    before, after = torch.tensor([0.5, 0.8, 0.4]), torch.tensor([0.25, 0.8, 0.6])
    assert average_drop(before, after).tolist() == [50.0, 0.0, 0.0]
    assert increase_in_confidence(before, after).tolist() == [0.0, 0.0, 100.0]


def test_whole_map_keeps_the_image() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(Confidence([100]).perturb(pixels, torch.ones(2, 4, 4), [0, 1])[:, 0], pixels)


def test_empty_map_is_a_black_image_and_no_gain() -> None:
    metric, pixels = (
        Confidence([100]),
        torch.rand(1, 3, 8, 8) * torch.tensor([1, 0.1, 0.1]).view(3, 1, 1),
    )
    black = metric.perturb(pixels, torch.zeros(1, 8, 8), [0])
    assert float(black.abs().max()) == 0
    drop, increase = metric.judge(score(pixels), score(black[:, 0])[:, None], torch.tensor([0]))
    assert float(drop.per_image) > 0
    assert float(increase.per_image) == 0


def test_pixels_kept_are_soft_and_exact() -> None:
    ramp = torch.arange(16.0).view(1, 4, 4) / 15
    kept = Confidence([100, 50, 25]).perturb(torch.ones(1, 3, 4, 4), ramp, [0])[0, :, 0]
    expected = ramp[0].repeat(3, 1, 1)
    expected[1].view(-1)[:8] = 0
    expected[2].view(-1)[:12] = 0
    assert torch.equal(kept, expected)


def test_binary_map_keeps_the_asked_share() -> None:
    """The reference keeps 70 % at both 50 and 15 % of a map that is 70 % ones."""
    maps = (torch.arange(400).view(1, 20, 20) < 280).float()
    kept = Confidence([50, 15]).perturb(torch.ones(1, 3, 20, 20), maps, [3])[0, :, 0]
    assert kept.sum(dim=(1, 2)).tolist() == [200, 60]


def test_against_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(5, 3, 16, 16, generator=generator)
    maps = torch.rand(5, 16, 16, generator=generator)
    metric = Confidence([100, 50, 15])
    before = score(pixels)
    targets = before.argmax(dim=1)
    after = score(metric.perturb(pixels, maps, range(5)).flatten(0, 1)).unflatten(0, (5, 3))
    found = {
        (v.measure, v.level): v.per_image.numpy() for v in metric.judge(before, after, targets)
    }
    for level, kept in ((100, 256), (50, 128), (15, 38)):
        for i in range(5):
            m = maps[i].numpy().astype(np.float64)
            m = np.where(m >= np.sort(m, axis=None)[-kept], m, 0)
            s = float(before[i, targets[i]])
            masked = torch.tensor(m * pixels[i].numpy(), dtype=torch.float32)[None]
            new = float(score(masked)[0, targets[i]])
            assert found["average_drop", level][i] == pytest.approx(
                100 * max(0, s - new) / s, abs=1e-3
            )
            assert found["increase_in_confidence", level][i] == 100 * (new > s)


def test_batch_and_order_change_nothing() -> None:
    pixels, maps, seeds = torch.rand(4, 3, 12, 12), torch.rand(4, 3, 3).round(), [5, 6, 7, 8]
    metric = Confidence([50])
    together = metric.perturb(pixels, maps, seeds)
    for i in range(4):
        own = slice(i, i + 1)
        assert torch.equal(metric.perturb(pixels[own], maps[own], seeds[own])[0], together[i])
