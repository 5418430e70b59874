"""Maps are scored by one call, as the stages do it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

import metrics
from benchmark.engine import scoring
from methods import Backbone
from metrics import Maps
from metrics.confidence import Confidence
from metrics.road import ROAD

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MAPS = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))


def mean_brightness(pixels: Tensor) -> Tensor:
    """Two classes: the probability of class 1 is how bright an image is."""
    bright = pixels.mean(dim=(1, 2, 3))
    return torch.stack([1 - bright, bright], dim=1)


def test_drops_are_as_by_hand() -> None:
    """Of white images under a map of half ones, half of the brightness is left."""
    images, targets = torch.ones(2, 3, 8, 8), torch.ones(2, dtype=torch.int64)
    maps = torch.zeros(2, 8, 8)
    maps[:, :4] = 1.0
    table = metrics.score(maps, images, targets, mean_brightness, ["confidence"])
    found = table.set_index(["metric", "level", "image"])["value"]
    assert found["average_drop", 100.0, 0] == pytest.approx(50)
    assert found["average_drop", 50.0, 1] == pytest.approx(50)
    assert found["average_drop", 15.0, 1] == pytest.approx(100 - 100 * 10 / 64)
    assert found["increase_in_confidence", 100.0, 1] == 0


@pytest.mark.parametrize("mode", metrics.MODES)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_it_is_what_the_stages_give(
    batch_size: int, mode: str, cnn: Backbone, make_split: MakeSplit
) -> None:
    split = make_split("evaluation", 3)
    images, maps = split.images(slice(None)), MAPS.numpy()
    settings: dict[str, dict[str, Any]] = {
        "confidence": {"kept": [100, 50]},
        "road": {"removed": [30], "noise": 0.01},
    }
    seeds = scoring.image_seeds(0, split)
    views = scoring.views_of(
        {n: (s, 3) for n, s in settings.items()}, mode, cnn, maps, trained=True
    )
    predicted = scoring.predict(cnn, split, batch_size)
    (piece,) = scoring.score_blocks(
        views, cnn, predicted, seeds, batch_size, "predicted", [slice(0, 3)]
    )
    staged = scoring.joined_scores([piece], cnn)
    if mode == "reference":
        settings["road"]["empty"] = 0.0
    table = metrics.score(
        MAPS, images, cnn.targets(images), cnn.probabilities, list(settings), settings=settings,
        seeds=seeds, mode=mode, batch_size=batch_size,
    )  # fmt: skip
    table["image"] = [split.ids[i] for i in table["image"]]
    order = ["image", "metric", "level"]
    both = [t.sort_values(order, ignore_index=True)[[*order, "value"]] for t in (staged, table)]
    pd.testing.assert_frame_equal(*both)


def test_an_image_is_scored_alone_as_in_a_batch(cnn: Backbone) -> None:
    targets = cnn.targets(PIXELS)
    table = metrics.score(MAPS, PIXELS, targets, cnn.probabilities, ["road", "complexity"])
    last = metrics.score(
        MAPS[2:], PIXELS[2:], targets[2:], cnn.probabilities, ["road", "complexity"]
    )
    expected = table[table["image"] == 2].drop(columns="image").reset_index(drop=True)
    assert np.allclose(last["value"], expected["value"], atol=1e-3)


def test_agreement_is_of_the_predicted_class_alone(cnn: Backbone) -> None:
    """Whether the prediction stays says nothing of a class that was not predicted."""
    targets = cnn.targets(PIXELS)
    targets[1] = cnn.targets(PIXELS, "runner_up")[1]
    table = metrics.score(MAPS, PIXELS, targets, cnn.probabilities)
    known = metrics.measures()
    agreeing = table["metric"].map(lambda name: known[name].agreement)
    missing = table["value"].isna()
    assert set(table[missing]["image"]) == {1}
    assert (missing == (agreeing & (table["image"] == 1))).all()
    assert {name for name, own in known.items() if own.agreement} == {"road_morf", "road_lerf"}


def test_stages_leave_agreement_out_of_other_classes(cnn: Backbone, make_split: MakeSplit) -> None:
    split = make_split("evaluation", 3)
    suite = [Confidence([100]), ROAD([30])]
    view = scoring.View("corrected", list(suite), MAPS.numpy())
    for target, choice in (("predicted", "predicted"), ("runner_up", "runner_up"), (2, 2)):
        (piece,) = scoring.score_blocks(
            [view],
            cnn,
            scoring.predict(cnn, split, 8),
            [0, 1, 2],
            8,
            target,
            [slice(0, 3)],  # type: ignore[arg-type]
        )
        found = scoring.joined_scores([piece], cnn)
        assert ("road_morf" in set(found["metric"])) == (target == "predicted")
        images = split.images(slice(None))
        chosen = cnn.targets(images, choice)  # type: ignore[arg-type]
        before = cnn.probabilities(images)
        masked = suite[0].perturb(images, Maps(MAPS, (32, 32), [0, 1, 2]))
        after = cnn.probabilities(masked[:, 0])[:, None]
        expected = suite[0].judge(before, after, chosen)[0].per_image
        own = found[found["metric"] == "average_drop"]["value"].to_numpy()
        assert np.allclose(own, expected.numpy(), atol=1e-3)


TARGETS = torch.tensor([0, 1, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"maps": MAPS[:2]},
            r"maps are torch.float32 of shape \(2, 4, 4\): expected floats of \(3, h",
        ),
        ({"maps": MAPS.numpy()}, "maps are of type ndarray: expected a tensor"),
        ({"images": PIXELS * 255}, r"pixels range from .*: expected \[0, 1\], and `probabilities`"),
        ({"images": PIXELS[0]}, r"images are torch.float32 of shape \(3, 32, 32\): expected"),
        ({"targets": TARGETS.float()}, "targets are torch.float32 of shape"),
        ({"targets": TARGETS[:1]}, r"targets are torch.int64 of shape \(1,\)"),
        ({"names": "road"}, "names is 'road': expected a list of at least one metric"),
        ({"names": ["raod"]}, "unknown metric 'raod': expected one of"),
        ({"settings": {"road": {"noize": 1}}, "names": ["road"]}, "unknown setting 'noize' of met"),
        (
            {"settings": {"road": {}}, "names": ["confidence"]},
            "settings of 'road', which is not scored: expected of confidence",
        ),
        ({"names": ["localisation"]}, "has no object pixel: expected at least one"),
        ({"mode": "best"}, "mode is 'best': expected one of corrected, reference"),
        ({"targets": torch.tensor([0, -1, 0])}, "class -1 is among the targets: expected 0 to 1"),
        ({"targets": torch.tensor([0, 2, 0])}, "class 2 is among the targets: expected 0 to 1"),
        ({"probabilities": lambda x: mean_brightness(x)[:, 0]}, r"gives \(3,\): expected \(3, cl"),
        ({"probabilities": lambda x: -mean_brightness(x)}, "gives values from -.* on that"),
        ({"objects": torch.ones(3, 4, 4)}, r"objects are torch.float32 of shape \(3, 4, 4\)"),
        ({"seeds": [1]}, "there are 1 seeds: expected 3, one an image"),
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        (
            {"maps": MAPS[:0], "images": PIXELS[:0], "targets": TARGETS[:0]},
            r"images are torch.float32 of shape \(0, 3, 32, 32\): expected",
        ),
        ({"probabilities": lambda x: mean_brightness(x) * torch.nan}, "that sum to nan: expected"),
        (
            {"probabilities": lambda x: 3 * mean_brightness(x)},
            "sum to 3: expected from 0",
        ),
    ],
)
def test_bad_input_is_one_line(change: dict[str, Any], message: str) -> None:
    given = {"maps": MAPS, "images": PIXELS, "targets": TARGETS, "probabilities": mean_brightness}
    with pytest.raises(ValueError, match=message) as raised:
        metrics.score(**(given | change))
    assert "\n" not in str(raised.value)


def test_maps_of_any_floats_are_scored_alike() -> None:
    own = metrics.score(MAPS, PIXELS, TARGETS, mean_brightness, ["confidence"])
    for dtype in (torch.float64, torch.float16):
        maps = MAPS.half().to(dtype)
        found = metrics.score(maps, PIXELS, TARGETS, mean_brightness, ["confidence"])
        assert len(found) == len(own)
        if dtype == torch.float64:
            expected = metrics.score(maps.float(), PIXELS, TARGETS, mean_brightness, ["confidence"])
            assert found.equals(expected)


def test_nan_counts_as_in_the_pipeline() -> None:
    """In mode reference a NaN score is 0, but of another class than the predicted it is none."""
    maps = MAPS.clone()
    maps[:, 0, 0] = torch.nan
    given = maps, PIXELS, TARGETS, mean_brightness, ["confidence", "road"]
    table = metrics.score(*given, mode="reference")
    named = mean_brightness(PIXELS).argmax(dim=1) == TARGETS
    agreeing = table["metric"].str.startswith("road")
    assert not table[~agreeing]["value"].isna().any()
    lost = table[agreeing].groupby("image")["value"].apply(lambda own: own.isna().all())
    assert lost.tolist() == (~named).tolist()


def test_objects_are_what_localisation_is_about() -> None:
    objects = torch.zeros(3, 32, 32, dtype=torch.bool)
    objects[:, :16] = True
    maps = torch.zeros(3, 2, 2)
    maps[:, 0] = 1.0
    table = metrics.score(maps, PIXELS, TARGETS, mean_brightness, ["localisation"], objects=objects)
    found = table.groupby("metric")["value"].mean()
    assert found["pointing_game"] == 100
    assert found["iou_matched"] == pytest.approx(100)
