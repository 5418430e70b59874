"""AD, IC and AG: exact values, limits, the formula written out, and pytorch-grad-cam's masking."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import (
    DropInConfidence,
    IncreaseInConfidence,
    multiply_tensor_with_cam,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor

from methods import Backbone
from metrics import Maps
from metrics.confidence import Confidence, average_drop, average_gain, increase_in_confidence


def score(pixels: Tensor) -> Tensor:
    """A linear model of the mean colour: probabilities (B, 3)."""
    return (8 * pixels.mean(dim=(2, 3))).softmax(dim=1)


def perturb(metric: Confidence, pixels: Tensor, native: Tensor, seeds: list[int]) -> Tensor:
    return metric.perturb(pixels, Maps(native, pixels.shape[2:], seeds))


def test_exact_values() -> None:
    before, after = torch.tensor([0.5, 0.8, 0.4]), torch.tensor([0.25, 0.8, 0.7])
    assert average_drop(before, after).tolist() == [50.0, 0.0, 0.0]
    assert increase_in_confidence(before, after).tolist() == [0.0, 0.0, 100.0]
    assert average_gain(before, after).tolist() == pytest.approx([0.0, 0.0, 50.0])


def test_limits() -> None:
    one, half, nothing = torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0.0])
    assert float(average_drop(half, nothing)) == 100
    assert float(average_gain(half, one)) == 100
    assert float(average_gain(one, one)) == 0
    assert float(average_gain(one, half)) == 0
    assert float(increase_in_confidence(half, half)) == 0


def test_whole_map_keeps_the_image() -> None:
    pixels, native = torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8)
    native[:, 0, 0] = 0
    kept = perturb(Confidence([100]), pixels, native, [0, 1])[:, 0]
    assert torch.equal(kept[:, :, 1:], pixels[:, :, 1:])
    assert float(kept[:, :, 0, 0].abs().max()) == 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, torch.nan])
def test_a_map_that_says_nothing_is_a_black_image_and_no_gain(value: float) -> None:
    metric = Confidence([100, 15])
    pixels = torch.rand(1, 3, 8, 8) * torch.tensor([1, 0.1, 0.1]).view(3, 1, 1)
    black = perturb(metric, pixels, torch.full((1, 8, 8), value), [0])
    assert float(black.abs().max()) == 0
    after = score(black.flatten(0, 1)).unflatten(0, (1, 2))
    for values in metric.judge(score(pixels), after, torch.tensor([0])):
        if values.measure == "average_drop":
            assert float(values.per_image) > 0
        else:
            assert float(values.per_image) == 0


def test_pixels_kept_are_soft_and_exact() -> None:
    ramp = torch.arange(16.0).view(1, 4, 4) / 15
    kept = perturb(Confidence([100, 50, 25]), torch.ones(1, 3, 4, 4), ramp, [0])[0, :, 0]
    expected = ramp[0].repeat(3, 1, 1)
    expected[1].view(-1)[:8] = 0
    expected[2].view(-1)[:12] = 0
    assert torch.equal(kept, expected)


def test_against_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(5, 3, 16, 16, generator=generator, dtype=torch.float64)
    native = torch.rand(5, 16, 16, generator=generator, dtype=torch.float64)
    metric = Confidence([100, 50, 15])
    before = score(pixels)
    targets = before.argmax(dim=1)
    after = score(perturb(metric, pixels, native, list(range(5))).flatten(0, 1))
    judged = metric.judge(before, after.unflatten(0, (5, 3)), targets)
    found = {(v.measure, v.level): v.per_image.numpy() for v in judged}
    assert len(found) == 9
    for level, kept in ((100, 256), (50, 128), (15, 38)):
        for i in range(5):
            m = native[i].numpy()
            m = (m - m.min()) / (m.max() - m.min())
            m = np.where(m >= np.sort(m, axis=None)[-kept], m, 0)
            s = float(before[i, targets[i]])
            new = float(score(torch.tensor(m * pixels[i].numpy())[None])[0, targets[i]])
            drop, gain = 100 * max(0, s - new) / s, 100 * max(0, new - s) / (1 - s)
            assert found["average_drop", level][i] == pytest.approx(drop, abs=1e-6)
            assert found["average_gain", level][i] == pytest.approx(gain, abs=1e-6)
            assert found["increase_in_confidence", level][i] == 100 * (new > s)


def test_masking_at_100_per_cent_is_pytorch_grad_cams() -> None:
    pixels, native = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16)
    maps = Maps(native, (16, 16), [0, 1])
    ours = Confidence([100]).perturb(pixels, maps)[:, 0]
    for image, resized, own in zip(pixels, maps.resized, ours, strict=True):
        assert torch.equal(multiply_tensor_with_cam(image, resized), own)


def test_scores_at_100_per_cent_are_pytorch_grad_cams(tiny: Backbone, pixels: Tensor) -> None:
    """Its drop is absolute: times 100 / s it is AD."""
    maps = Maps(torch.rand(3, 8, 8), pixels.shape[2:], [0, 1, 2])
    before = tiny.probabilities(pixels)
    targets = before.argmax(dim=1)
    metric = Confidence([100])
    after = tiny.probabilities(metric.perturb(pixels, maps)[:, 0])[:, None]
    drop, increase, _ = (v.per_image.numpy() for v in metric.judge(before, after, targets))
    named = [ClassifierOutputSoftmaxTarget(int(t)) for t in targets]
    theirs = DropInConfidence()(pixels, maps.resized.numpy(), named, tiny)
    old = before.amax(dim=1).numpy()
    assert np.allclose(100 * theirs / old, drop, atol=1e-4)
    rises = IncreaseInConfidence()(pixels, maps.resized.numpy(), named, tiny)
    assert (100 * rises).tolist() == increase.tolist()


def test_batch_and_order_change_nothing() -> None:
    pixels, native, seeds = torch.rand(4, 3, 12, 12), torch.rand(4, 3, 3).round(), [5, 6, 7, 8]
    metric = Confidence([50])
    together = perturb(metric, pixels, native, seeds)
    for i in range(4):
        own = slice(i, i + 1)
        assert torch.equal(perturb(metric, pixels[own], native[own], seeds[own])[0], together[i])
