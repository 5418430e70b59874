"""Deletion and insertion: areas known in closed form, limits, and a plain loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods import Backbone
from metrics import Maps
from metrics.deletion_insertion import BASELINES, DeletionInsertion, area


def judged(
    metric: DeletionInsertion, score: object, pixels: Tensor, maps: Maps
) -> dict[str, float]:
    """Areas of the only image, by measure; `score` maps pixels to probabilities (B, K)."""
    before = score(pixels)
    perturbed = metric.perturb(pixels, maps)
    assert perturbed.shape[1] == metric.versions
    after = score(perturbed.flatten(0, 1)).unflatten(0, perturbed.shape[:2])
    values = metric.judge(before, after, torch.zeros(len(pixels), dtype=torch.int64))
    return {v.measure: float(v.per_image[0]) for v in values}


def test_area_is_the_trapezoidal_rule() -> None:
    assert area(torch.tensor([[1.0, 0.0]])).tolist() == [50]
    curve = torch.tensor([[1.0, 0.5, 0.2, 0.1]])
    assert float(area(curve)) == pytest.approx(100 * ((1 + 0.1) / 2 + 0.5 + 0.2) / 3)
    assert float(area(curve)) == pytest.approx(100 * np.trapezoid(curve[0], dx=1 / 3))


def test_linear_score_has_a_known_area() -> None:
    """The score is the share of white that is left: a straight line, whatever the order."""

    def white(pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(1, 2, 3))[:, None]

    pixels, maps = torch.ones(1, 3, 8, 8), Maps(torch.rand(1, 8, 8), (8, 8), [0])
    found = judged(DeletionInsertion(["black"], ["black"], 16), white, pixels, maps)
    assert found == pytest.approx({"deletion_black": 50, "insertion_black": 50}, abs=1e-4)


def test_a_quarter_that_matters() -> None:
    """Right order: gone after a quarter of the steps. Wrong order: it stays for three quarters."""

    def corner(pixels: Tensor) -> Tensor:
        return pixels[:, :, :4, :4].mean(dim=(1, 2, 3))[:, None]

    native = torch.zeros(1, 8, 8)
    native[:, :4, :4] = 1
    metric = DeletionInsertion(["black"], ["black"], 4)
    right = judged(metric, corner, torch.ones(1, 3, 8, 8), Maps(native, (8, 8), [0]))
    assert right == pytest.approx({"deletion_black": 12.5, "insertion_black": 87.5}, abs=1e-4)
    wrong = judged(metric, corner, torch.ones(1, 3, 8, 8), Maps(1 - native, (8, 8), [0]))
    assert wrong == pytest.approx({"deletion_black": 87.5, "insertion_black": 12.5}, abs=1e-4)


def baseline(name: str, image: Tensor) -> Tensor:
    """By hand: the blur as a convolution with an 11 x 11 Gaussian over the mirrored image."""
    if name == "black":
        return image * 0
    if name == "mean":
        return torch.stack([torch.full_like(c, float(c.mean())) for c in image])
    x = torch.arange(-5, 6).double()
    kernel = torch.exp(-(x[:, None] ** 2 + x**2) / 50)
    kernel = (kernel / kernel.sum()).float()
    padded = F.pad(image[None], (5, 5, 5, 5), mode="reflect")[0]
    return F.conv2d(padded[:, None], kernel[None, None])[:, 0]


def test_against_a_plain_loop(tiny: Backbone, pixels: Tensor) -> None:
    steps, native = 5, torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4))
    metric, maps = DeletionInsertion(steps=steps), Maps(native, (32, 32), [0, 1, 2])
    before = tiny.probabilities(pixels)
    targets = before.argmax(dim=1)
    perturbed = metric.perturb(pixels, maps)
    after = tiny.probabilities(perturbed.flatten(0, 1)).unflatten(0, perturbed.shape[:2])
    found = {v.measure: v.per_image for v in metric.judge(before, after, targets)}
    assert set(found) == {m.name for m in DeletionInsertion.measures}
    for i, image in enumerate(pixels):
        order = np.argsort(-maps.resized[i].numpy().ravel(), kind="stable")
        for name in BASELINES:
            bare = baseline(name, image)
            deleted, inserted = [], []
            for step in range(steps + 1):
                first = torch.zeros(1024, dtype=torch.bool)
                first[order[: int(1024 * step / steps + 0.5)]] = True
                first = first.view(32, 32)
                for curve, picture in (
                    (deleted, image.where(~first, bare)),
                    (inserted, image.where(first, bare)),
                ):
                    curve.append(float(tiny.probabilities(picture[None])[0, targets[i]]))
            for kind, curve in (("deletion", deleted), ("insertion", inserted)):
                expected = 100 * np.trapezoid(curve, dx=1 / steps)
                assert float(found[f"{kind}_{name}"][i]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", BASELINES)
def test_ends_of_the_curves(name: str) -> None:
    pixels, maps = torch.rand(1, 3, 16, 16), Maps(torch.rand(1, 4, 4), (16, 16), [0])
    versions = DeletionInsertion([name], [name], 4).perturb(pixels, maps)[0]
    bare = baseline(name, pixels[0])
    assert torch.allclose(versions[3], bare, atol=1e-6)
    assert torch.allclose(versions[4], bare, atol=1e-6)
    changed = (versions[0] != pixels[0]).any(dim=0)
    assert int(changed.sum()) == 64
    kept = (versions[7] == pixels[0]).all(dim=0)
    assert int(kept.sum()) == 192


def test_small_images_are_blurred_too() -> None:
    pixels = torch.rand(1, 3, 4, 5)
    blurred = DeletionInsertion(["blur"], [], 1).perturb(pixels, Maps(pixels[:, 0], (4, 5), [0]))
    assert float(blurred.std()) < float(pixels.std())


def test_refuses_senseless_settings() -> None:
    with pytest.raises(ValueError, match=r"unknown baseline 'white'.*black, mean, blur"):
        DeletionInsertion(["white"])
    with pytest.raises(ValueError, match="0 baselines and 224 steps"):
        DeletionInsertion([], [])
    with pytest.raises(ValueError, match="6 baselines and 0 steps"):
        DeletionInsertion(steps=0)
