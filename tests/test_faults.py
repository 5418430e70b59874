"""The ten faults of the reference (its code, commit 92499e7) that this suite does not have.

Numbered as in docs/measures.md, which has faults of the training as well (tested in
tests/benchmark/engine/test_training.py). Where the mode `reference` repeats one, that is tested
too.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor, nn

from benchmark.core.params import Params, Tables
from benchmark.core.store import Key, Unfinished
from benchmark.data.splits import Split
from benchmark.engine import explaining, scoring
from benchmark.report import summaries
from methods import Backbone, Explainer
from methods.rise import RISE
from metrics import Maps, Metric, Perturbation, Values
from metrics._maps import ReferenceMaps
from metrics.confidence import Confidence
from metrics.road import ROAD


def score(
    backbone: Backbone,
    make_split: MakeSplit,
    native: np.ndarray,
    *,
    mode: str = "corrected",
    batch_size: int = 32,
) -> pd.DataFrame:
    """AD, IC, AG and ROAD of maps of random images."""
    suite: list[Metric] = [Confidence([100, 50]), ROAD([10, 70])]
    split = make_split("evaluation", len(native))
    seeds = list(range(len(native)))
    return scored(scoring.View(mode, suite, native), backbone, split, seeds, batch_size)


def scored(
    view: scoring.View, backbone: Backbone, split: Split, seeds: list[int], batch_size: int
) -> pd.DataFrame:
    """The scores of one view."""
    blocks = scoring.blocks(split, [view])
    images = scoring.predict(backbone, split, batch_size)
    pieces = scoring.score_blocks(
        [view], backbone, images, seeds, batch_size, "predicted", blocks.values()
    )
    return scoring.joined_scores(list(pieces), backbone)


@pytest.fixture
def native() -> np.ndarray:
    return np.random.default_rng(0).random((3, 8, 8), np.float32)


def test_1_every_image_counts_once() -> None:
    """The reference's running average of [0, 1, 1] is 1.0."""
    scores = pd.DataFrame(
        {
            "backbone": "net",
            "explainer": "a",
            "image": ["i0", "i1", "i2"],
            "metric": "road_morf",
            "level": 10.0,
            "value": [0.0, 1.0, 1.0],
            "weights": "w",
        }
    )
    table = summaries.summarise([scores], Tables(resamples=10, confidence=0.95), 0, ["road_morf"])
    assert table["value"].tolist() == pytest.approx([2 / 3] * 3)


def test_2_rows_of_other_weights_are_refused() -> None:
    """The reference's ViT table mixes three models."""
    cells = [
        pd.DataFrame({"backbone": "vit", "explainer": name, "image": ["i0"], "weights": weights})
        for name, weights in (("ttame", "torchvision"), ("gradcam", "deit"))
    ]
    with pytest.raises(ValueError, match="gradcam on vit was scored with weights deit"):
        summaries.refuse_mixture(cells)


def test_3_explained_and_scored_images_are_the_same_pixels(
    cnn: Backbone, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IIA's maps of the reference are made of squashed images and scored on cropped ones."""
    monkeypatch.chdir(tmp_path)
    seen: dict[str, list[Tensor]] = {"explained": [], "scored": []}

    class Watching(Explainer):
        label, paper = "Watching", "none"

        def explain(self, images: Tensor, targets: Tensor) -> Tensor:
            seen["explained"].append(images)
            return images[:, 0]

    class Scored(Perturbation):
        measures = ()
        versions = 1

        def perturb(self, pixels: Tensor, maps: Maps) -> Tensor:
            seen["scored"].append(pixels)
            assert torch.equal(maps.native, pixels[:, 0])
            return pixels[:, None]

        def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
            return []

    split, explainer = make_split("evaluation", 5), Watching(cnn)
    work = Unfinished("explain", Key("", ""))
    targets = explaining.choose(cnn, split, 2, "predicted")[0]
    seen["explained"].clear()
    pieces = explaining.explain(explainer, split, targets, work, batch_size=2, count_nan=False)
    view = scoring.View("corrected", [Scored()], explaining.joined_maps(pieces))
    scored(view, cnn, split, [0] * 5, 3)
    assert sum(map(len, seen["scored"])) == 5
    assert torch.equal(torch.cat(seen["explained"]), torch.cat(seen["scored"]))


class Shifted(nn.Module):
    """Adds a number to all logits that depends on the image: the softmax does not see it."""

    def __init__(self, network: nn.Module, shift: float) -> None:
        super().__init__()
        self.network, self.shift = network, shift

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + self.shift * images[:, :, 8:16].mean(dim=(1, 2, 3))[:, None]


def test_4_rise_weighs_masks_by_probabilities(
    settings: Params, cnn: Backbone, pixels: Tensor
) -> None:
    """The reference weighs them by raw logits."""
    targets = cnn.predict(pixels)
    found = {}
    for scores in ("probabilities", "logits"):
        maps = []
        for shift in (0.0, 5.0):
            network = Shifted(cnn.network, shift)
            backbone = Backbone(
                network, name="shifted", mean=[0.5] * 3, std=[0.5] * 3, size=32, classes=5,
                taps=["network.2"], cam_layer="network.2",
            )  # fmt: skip
            explainer = RISE(backbone, masks=40, scores=scores, fill="black")  # type: ignore[arg-type]
            maps.append(explainer(pixels, targets))
        found[scores] = float((maps[0] - maps[1]).abs().max())
    assert found["probabilities"] < 1e-4
    assert found["logits"] > 0.1
    assert settings.cell("efficientnet_lite0", "rise").reference == {"scores": "logits"}


def test_5_ties_change_no_count() -> None:
    """LeRF 10 % of a map that is 60 % zeros removes 60 % in the reference, MoRF 70 % all."""
    sparse = (torch.arange(400.0) - 239).clamp_min(0).view(1, 20, 20)
    shares = [
        100 * ROAD([10, 70]).masks(kind(sparse, (20, 20), [0])).float().mean(dim=(2, 3))[0]
        for kind in (Maps, ReferenceMaps)
    ]
    assert shares[0].tolist() == pytest.approx([10, 70, 10, 70])
    assert shares[1].tolist() == pytest.approx([10, 100, 60, 100 * 280 / 400], abs=0.3)


def test_5_binary_maps_keep_what_is_asked() -> None:
    """70 % of a map that is 70 % ones are kept at both 50 and 15 % in the reference."""
    binary = (torch.arange(400).view(1, 20, 20) < 280).float()
    kept = [
        Confidence([50, 15]).perturb(torch.ones(1, 3, 20, 20), kind(binary, (20, 20), [3]))
        for kind in (Maps, ReferenceMaps)
    ]
    assert kept[0][0, :, 0].sum(dim=(1, 2)).tolist() == [200, 60]
    assert kept[1][0, :, 0].sum(dim=(1, 2)).tolist() == [280, 280]


def noise_of(suite: list[Metric], pixels: Tensor) -> list[float]:
    """Standard deviation of ROAD's noise in each channel, on a grey image half removed."""
    (road,) = (m for m in suite if isinstance(m, ROAD))
    native = torch.arange(1024.0).view(1, 32, 32)
    maps = Maps(native, (32, 32), [0])
    noise = road.perturb(pixels, maps)[0] - pixels
    return [float(noise[0, c][road.masks(maps)[0, 0]].std()) for c in range(3)]


def test_6_one_noise_for_all_methods(settings: Params, cnn: Backbone) -> None:
    """The reference adds it in raw pixels for T-TAME on CNNs, in normalised ones for its rivals."""
    pixels, given = torch.full((1, 3, 32, 32), 0.5), settings.evaluate.settings
    deviations = {
        (mode, trained): noise_of(
            scoring.build_suite(given, mode, cnn, trained=trained),
            pixels,
        )
        for mode in ("corrected", "reference")
        for trained in (True, False)
    }
    for key in (("corrected", True), ("corrected", False), ("reference", True)):
        assert deviations[key] == pytest.approx([0.01] * 3, rel=0.15)
    normalised = [0.01 * float(s) for s in cnn.std.flatten()]
    assert deviations["reference", False] == pytest.approx(normalised, rel=0.15)


def test_7_twice_the_same(cnn: Backbone, make_split: MakeSplit, native: np.ndarray) -> None:
    """The reference draws RISE's masks, ROAD's noise and training batches without seeds."""
    torch.manual_seed(1)
    first = score(cnn, make_split, native)
    torch.manual_seed(2)
    pd.testing.assert_frame_equal(first, score(cnn, make_split, native))


@pytest.mark.parametrize("value", [np.nan, 0.5])
def test_8_a_map_that_says_nothing_is_never_good(
    cnn: Backbone, make_split: MakeSplit, native: np.ndarray, value: float
) -> None:
    """In the reference a NaN map counts as a drop of 0: AD 25 where without it it is 50."""
    native[1] = value
    drops = {
        mode: scores[scores["metric"] == "average_drop"].groupby("image")["value"].max()
        for mode in ("corrected", "reference")
        if (scores := score(cnn, make_split, native, mode=mode)) is not None
    }
    black = score(cnn, make_split, np.zeros_like(native))
    worst = black[black["metric"] == "average_drop"].groupby("image")["value"].max()
    assert drops["corrected"].iloc[1] == pytest.approx(worst.iloc[1])
    assert worst.iloc[1] > 0
    expected = 0 if np.isnan(value) else worst.iloc[1]
    assert drops["reference"].iloc[1] == pytest.approx(expected)


def test_9_cost_is_counted_in_images(cnn: Backbone, pixels: Tensor) -> None:
    """The reference counts calls: 8,000 masks in batches of 400 are 20."""
    targets = cnn.predict(pixels)
    before = cnn.passes.forward
    RISE(cnn, masks=40, batch_size=8)(pixels, targets)
    assert cnn.passes.forward - before == 3 * 40


@pytest.mark.parametrize("batch_size", [1, 2, 4, 13])
def test_10_a_last_batch_of_one_image(
    cnn: Backbone, make_split: MakeSplit, native: np.ndarray, batch_size: int
) -> None:
    """In the reference it crashes. 3 images of 1 + 2 + 4 versions: 21, so the last batch varies."""
    scores = score(cnn, make_split, native, batch_size=batch_size)
    whole = score(cnn, make_split, native)
    assert np.allclose(scores["value"], whole["value"], rtol=0, atol=1e-3)
    alone = score(cnn, make_split, native[:1], batch_size=batch_size)
    assert len(alone) == len(whole) / 3
