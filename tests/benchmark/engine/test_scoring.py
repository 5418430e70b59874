"""Scoring: one row an image and value, whatever the batches, the order and the images beside."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

from benchmark.core.params import Params
from benchmark.core.store import Key, Unfinished
from benchmark.data.splits import Split
from benchmark.engine import scoring
from methods import Backbone, Passes
from metrics import MODES, Maps, Metric, Values, _score
from metrics.complexity import Complexity
from metrics.confidence import Confidence
from metrics.deletion_insertion import DeletionInsertion
from metrics.localisation import Localisation
from metrics.road import ROAD

TOLERANCE = 1e-3
"""1e-5 of the 100 per cent that scores are in: the network's own rounding."""


def suite() -> list[Metric]:
    return [
        Confidence([100, 50]),
        ROAD([10, 90]),
        DeletionInsertion(["black"], ["blur"], 3),
        Localisation(),
        Complexity(),
    ]


def with_objects(split: Split) -> Split:
    objects = torch.zeros_like(split.objects)
    objects[:, 4:20, 9:30] = True
    return Split(split.table, split.pixels, objects, split.labels)


def score_views(
    views: list[scoring.View], backbone: Backbone, split: Split, seeds: list[int], batch_size: int
) -> list[pd.DataFrame]:
    blocks = scoring.blocks(split, views).values()
    images = scoring.predict(backbone, split, batch_size)
    pieces = list(
        scoring.score_blocks(views, backbone, images, seeds, batch_size, "predicted", blocks)
    )
    return [scoring.joined_scores(pieces, backbone, number) for number in range(len(views))]


def score(
    backbone: Backbone, split: Split, maps: np.ndarray, seeds: list[int], batch_size: int = 32
) -> pd.DataFrame:
    view = scoring.View("corrected", suite(), maps)
    (scores,) = score_views([view], backbone, split, seeds, batch_size)
    return scores


def equal(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """The same rows, with values that differ by the network's rounding."""
    pd.testing.assert_frame_equal(first.drop(columns="value"), second.drop(columns="value"))
    assert float((first["value"] - second["value"]).abs().max()) <= TOLERANCE


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(0).random((9, 8, 8), np.float32)


SEEDS = list(range(70, 79))


def test_one_row_an_image_and_value(cnn: Backbone, make_split: MakeSplit, maps: np.ndarray) -> None:
    scores = score(cnn, with_objects(make_split("evaluation", 9)), maps, SEEDS)
    assert len(scores) == 9 * (3 * 2 + 5 * 2 + 2 + 4 + 2)
    assert not scores.duplicated(["image", "metric", "level"]).any()
    assert set(scores["weights"]) == {cnn.digest[:12]}


@pytest.mark.parametrize("perturbed", [1, 40, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_change_nothing(
    tiny: Backbone,
    make_split: MakeSplit,
    maps: np.ndarray,
    batch_size: int,
    perturbed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = with_objects(make_split("evaluation", 9))
    whole = score(tiny, split, maps, SEEDS)
    monkeypatch.setattr(scoring, "PERTURBED", perturbed)
    equal(whole, score(tiny, split, maps, SEEDS, batch_size))


def chosen(split: Split, which: list[int]) -> Split:
    """Some of the images of a split, in another order."""
    return Split(
        split.table.iloc[which].reset_index(drop=True),
        split.pixels[which],
        split.objects[which],
        split.labels[which],
    )


def test_order_changes_nothing(tiny: Backbone, make_split: MakeSplit, maps: np.ndarray) -> None:
    split = with_objects(make_split("evaluation", 9))
    order = [4, 0, 8, 2, 7, 1, 3, 6, 5]
    seeds = [SEEDS[i] for i in order]
    turned = score(tiny, chosen(split, order), maps[order], seeds, batch_size=7)
    equal(score(tiny, split, maps, SEEDS), turned)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """MKL has other kernels for the rows that are left over when threads share a small product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("size", [1, 4, 32])
def test_all_at_once_and_one_by_one_give_the_same_bytes(
    tiny: Backbone, make_split: MakeSplit, maps: np.ndarray, size: int
) -> None:
    """Metric by metric and image by image, through batches of one size."""
    split = with_objects(make_split("evaluation", 9))
    whole = score(tiny, split, maps, SEEDS, size)
    for metric in suite():
        for i in range(9):
            check_alone(whole, tiny, split, maps, SEEDS, i, metric, size)


@pytest.mark.parametrize("name", ["lite0", "vit_sample"])
def test_the_same_bytes_on_the_samples_networks(
    name: str, request: pytest.FixtureRequest, photographs: tuple[Tensor, Tensor]
) -> None:
    """With as many threads as there are, in the sample's batches of 32."""
    backbone = request.getfixturevalue(name)
    split = Split(
        pd.DataFrame({"id": ["a", "b"]}),
        (photographs[0][:2] * 255).round().byte(),
        torch.ones(2, 224, 224, dtype=torch.bool),
        photographs[1][:2],
    )
    maps = np.random.default_rng(1).random((2, 7, 7), np.float32)
    whole = score(backbone, split, maps, [1, 2], 32)
    for metric, i in ((Confidence([100, 50]), 1), (ROAD([10, 90]), 0)):
        check_alone(whole, backbone, split, maps, [1, 2], i, metric, 32)


def check_alone(
    whole: pd.DataFrame,
    backbone: Backbone,
    split: Split,
    maps: np.ndarray,
    seeds: list[int],
    i: int,
    metric: Metric,
    size: int,
) -> None:
    """The scores of one image by one metric are those among all."""
    view = scoring.View("corrected", [metric], maps[[i]])
    (alone,) = score_views([view], backbone, split.part(slice(i, i + 1)), [seeds[i]], size)
    own = whole["metric"].isin(set(alone["metric"])) & (whole["image"] == split.ids[i])
    pd.testing.assert_frame_equal(whole[own].reset_index(drop=True), alone, check_exact=True)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_change_nothing_on_a_real_network(
    lite0: Backbone, photographs: tuple[Tensor, Tensor], batch_size: int
) -> None:
    pixels = (photographs[0][:3] * 255).round().byte()
    split = Split(
        pd.DataFrame({"id": ["a", "b", "c"]}),
        pixels,
        torch.ones(3, 224, 224, dtype=torch.bool),
        photographs[1][:3],
    )
    maps = np.random.default_rng(1).random((3, 7, 7), np.float32)
    metrics: list[Metric] = [Confidence([50]), ROAD([30])]
    view = scoring.View("corrected", metrics, maps)
    one, other = (
        score_views([view], lite0, split, [1, 2, 3], size)[0] for size in (64, batch_size)
    )
    equal(one, other)


def test_views_share_a_pass_and_nothing_else(
    tiny: Backbone, make_split: MakeSplit, maps: np.ndarray
) -> None:
    split = with_objects(make_split("evaluation", 9))
    views = [
        scoring.View("corrected", suite(), maps),
        scoring.View("reference", [ROAD([50]), Confidence([15])], maps.round()),
        scoring.View("corrected", [Complexity()], maps),
    ]
    before = tiny.passes.forward
    together = score_views(views, tiny, split, SEEDS, 7)
    asked = 9, 9 * (2 + 4 + 6 + 2 + 1)  # the images, and what is made of them
    assert tiny.passes.forward - before == sum(-(-n // 7) * 7 for n in asked)  # filled batches
    for view, scores in zip(views, together, strict=True):
        (alone,) = score_views([view], tiny, split, SEEDS, 32)
        equal(scores, alone)


@pytest.mark.parametrize("lengths", [[3], [5, 5], [1, 2, 9, 4], [4, 4, 4], [1] * 7])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_batches_are_full(lengths: list[int], batch_size: int) -> None:
    rows = torch.arange(sum(lengths))
    taken: deque[int] = deque()
    batches = list(_score.full_batches(iter(rows.split(lengths)), batch_size, taken))
    assert torch.equal(torch.cat([batch[:count] for batch, count in batches]), rows)
    assert {len(batch) for batch, _ in batches} == {batch_size}
    assert all(count == batch_size for _, count in batches[:-1])
    last, count = batches[-1]
    assert (last[count:] == rows[-1]).all()
    assert list(taken) == lengths


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_probabilities_come_part_by_part(cnn: Backbone, batch_size: int) -> None:
    pixels = torch.rand(12, 3, 32, 32)
    parts = pixels.split([1, 2, 0, 9, 0])
    found = list(_score.answers_of(cnn.probabilities, iter(parts), batch_size))
    assert [len(f) for f in found] == [1, 2, 0, 9, 0]
    assert torch.allclose(torch.cat(found), cnn.probabilities(pixels), atol=1e-6)


def test_in_reference_mode_only_what_the_reference_has(settings: Params, cnn: Backbone) -> None:
    corrected = scoring.build_suite(settings.evaluate.settings, "corrected", cnn, trained=False)
    reference = scoring.build_suite(settings.evaluate.settings, "reference", cnn, trained=False)
    assert len(corrected) == len(settings.evaluate.settings)
    assert {type(m) for m in reference} == {Confidence, ROAD}


def bad(value: float) -> np.ndarray:
    maps = np.full((3, 4, 4), 0.5, np.float32)
    maps[1, 2, 2] = value
    return maps


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (bad(np.nan), r"maps.npy: 1 of 3 maps hold NaN or infinite values, the first is map 1"),
        (bad(np.inf), "NaN or infinite"),
        (bad(2.0), r"ranges from 0.5 to 2: expected \[0, 1\]"),
        (bad(0.1)[:2], r"has shape \(2, 4, 4\): expected \(3, h, w\)"),
    ],
)
def test_bad_maps_are_refused(maps: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scoring.refuse_bad_maps(maps, 3, "maps.npy", count_nan=False)


def test_nan_maps_can_be_counted() -> None:
    scoring.refuse_bad_maps(bad(np.nan), 3, "maps.npy", count_nan=True)
    scoring.refuse_bad_maps(np.full((3, 4, 4), np.nan, np.float32), 3, "", count_nan=True)
    with pytest.raises(ValueError, match="ranges from"):
        scoring.refuse_bad_maps(bad(2.0), 3, "maps.npy", count_nan=True)


def rows(values: list[float], metric: str = "average_drop") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"i{i}" for i in range(len(values))],
            "metric": metric,
            "level": 50.0,
            "value": values,
        }
    )


def test_reference_minus_corrected() -> None:
    corrected, reference = rows([10, 20, 30, 40]), rows([10, 0, 30, 80])
    for stored, scores, mode, other in (
        (corrected, reference, "corrected", "reference"),
        (reference, corrected, "reference", "corrected"),
    ):
        table = scoring.difference(stored, scores, mode, other)
        (row,) = table.to_dict("records")
        assert row == {
            "metric": "average_drop",
            "level": 50,
            "corrected": 25,
            "reference": 30,
            "delta": 5,
            "changed": 50,
            "n": 4,
        }


def test_measures_of_one_mode_only_are_left_out() -> None:
    stored = pd.concat([rows([1, 2]), rows([1, 2], "gini")])
    table = scoring.difference(stored, rows([1, 2]), "corrected", "reference")
    assert table["metric"].tolist() == ["average_drop"]


def test_over_the_images_that_both_modes_scored() -> None:
    table = scoring.difference(rows([1, 2, 30]), rows([1, 4]), "corrected", "reference")
    (row,) = table.to_dict("records")
    assert (row["n"], row["corrected"], row["reference"]) == (2, 1.5, 2.5)


@pytest.mark.parametrize("missing", ["image", "level"])
def test_an_image_with_scores_in_one_mode_only_is_refused(missing: str) -> None:
    scores = pd.concat([rows([1, 2]), rows([1, 2]).assign(level=15.0)])
    image, level = scores["image"] == "i1", scores["level"] == 15.0
    stored = scores[~image] if missing == "image" else scores
    scores = scores[~(image & level)] if missing == "level" else scores
    with pytest.raises(ValueError, match=r"average_drop at 15.0 of image i1 has a score in one"):
        scoring.difference(stored, scores, "corrected", "reference")


@pytest.mark.parametrize("ties", [False, True])
def test_tied_maps_are_what_changes(cnn: Backbone, make_split: MakeSplit, ties: bool) -> None:
    split, rng = make_split("evaluation", 4), np.random.default_rng(0)
    native = np.stack([rng.permutation(1024).reshape(32, 32) for _ in range(4)]) / 1023.0
    native = native.astype(np.float32)
    if ties:
        native[native < 0.6] = 0
    suite: list[Metric] = [Confidence([50]), ROAD([25, 75])]
    views = [scoring.View(mode, suite, native) for mode in MODES]
    scores = score_views(views, cnn, split, [1, 2, 3, 4], 32)
    table = scoring.difference(*scores, *MODES)
    changed = table.set_index(["metric", "level"])["changed"]
    assert (changed["comprehensiveness", 75] > 0) == ties
    assert (changed["sufficiency", 75] > 0) == ties
    assert changed["comprehensiveness", 25] == 0
    assert changed["average_drop", 50] == 0


@pytest.mark.parametrize("perturbed", [1, 40, 1000])
def test_a_view_of_the_first_images(
    cnn: Backbone,
    make_split: MakeSplit,
    maps: np.ndarray,
    perturbed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A view with fewer maps scores the first images, as it would alone; the other scores all."""
    monkeypatch.setattr(scoring, "PERTURBED", perturbed)
    split = with_objects(make_split("evaluation", 9))
    views = [
        scoring.View("corrected", suite(), maps),
        scoring.View("reference", [m for m in suite() if m.in_reference], maps[:4]),
    ]
    whole, some = score_views(views, cnn, split, SEEDS, 5)
    equal(whole, score(cnn, split, maps, SEEDS))
    alone = scoring.View("reference", views[1].suite, maps[:4])
    (expected,) = score_views([alone], cnn, split.first(4), SEEDS[:4], 32)
    equal(some, expected)
    delta = scoring.difference(whole, some, "corrected", "reference")
    assert set(delta["n"]) == {4}
    first = whole[whole["image"].isin(split.ids[:4])].groupby(["metric", "level"])["value"].mean()
    means = delta.set_index(["metric", "level"])["corrected"]
    assert np.allclose(means, first.loc[means.index])


def test_goes_on_after_a_kill_without_repeating_images(
    cnn: Backbone, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scoring, "PERTURBED", 40)
    split = with_objects(make_split("evaluation", 9))
    maps = np.random.default_rng(0).random((len(split), 8, 8), np.float32)
    seeds = list(range(len(split)))
    views = [
        scoring.View("corrected", suite(), maps),
        scoring.View("reference", [m for m in suite() if m.in_reference], maps[:4]),
    ]
    blocks = scoring.blocks(split, views)
    assert len(blocks) > 3
    whole = score_views(views, cnn, split, seeds, 32)
    images = scoring.predict(cnn, split, 32)
    scored: list[slice] = []

    def run(stop: int) -> list[pd.DataFrame]:
        def compute(todo: dict[str, slice]) -> object:
            for piece, block in zip(
                scoring.score_blocks(views, cnn, images, seeds, 32, "predicted", todo.values()),
                todo.values(),
                strict=True,
            ):
                if len(scored) == stop:
                    raise KeyboardInterrupt
                scored.append(block)
                yield piece

        work = Unfinished("evaluate", Key("", ""))
        pieces = work.streamed(blocks, compute)  # type: ignore[arg-type]
        return [scoring.joined_scores(pieces, cnn, number) for number in range(2)]

    with pytest.raises(KeyboardInterrupt):
        run(2)
    for found, expected in zip(run(100), whole, strict=True):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert scored == list(blocks.values())


def test_what_is_said_of_the_images_is_asked_once(cnn: Backbone, make_split: MakeSplit) -> None:
    split = make_split("evaluation", 7)
    cnn.passes = Passes()
    found = scoring.predict(cnn, split, 4)
    assert cnn.passes.forward == 8  # the last batch is filled
    expected = torch.cat([cnn.probabilities(split.images(slice(i, i + 1))) for i in range(7)])
    assert torch.allclose(found.before, expected, atol=1e-6)
    assert torch.equal(found.part(slice(2, 5)).before, found.before[2:5])
    assert found.part(slice(2, 5)).split.ids == split.ids[2:5]
    maps = np.random.default_rng(0).random((7, 8, 8), np.float32)
    cnn.passes = Passes()
    views = [scoring.View("corrected", [Confidence([50])], maps)]
    list(scoring.score_blocks(views, cnn, found, [0] * 7, 7, "predicted", [slice(0, 7)]))
    assert cnn.passes.forward == 7


def test_metrics_that_only_read_ask_nothing(cnn: Backbone, make_split: MakeSplit) -> None:
    split = with_objects(make_split("evaluation", 5))
    maps = np.random.default_rng(0).random((5, 8, 8), np.float32)
    images = scoring.predict(cnn, split, 5)
    cnn.passes = Passes()
    views = [scoring.View("corrected", [Localisation()], maps)]
    blocks = [slice(0, 3), slice(3, 5)]
    pieces = list(scoring.score_blocks(views, cnn, images, [0] * 5, 4, "predicted", blocks))
    assert cnn.passes.forward == 0
    scores = scoring.joined_scores(pieces, cnn)
    assert sorted(set(scores["image"])) == split.ids


def test_blocks_are_scored_as_they_come(cnn: Backbone, make_split: MakeSplit) -> None:
    """Also those that nothing is asked of: a killed run loses one, and memory holds a few."""
    split = with_objects(make_split("evaluation", 12))
    maps = np.random.default_rng(0).random((12, 8, 8), np.float32)
    looked: list[int] = []

    class Watched(Localisation):
        def read(self, maps: Maps, objects: Tensor) -> list[Values]:
            looked.append(len(looked))
            return super().read(maps, objects)

    images = scoring.predict(cnn, split, 4)
    views = [
        scoring.View("corrected", [Confidence([50])], maps[:4]),
        scoring.View("corrected", [Watched()], maps),
    ]
    blocks = [slice(at, at + 2) for at in range(0, 12, 2)]
    pieces = scoring.score_blocks(views, cnn, images, [0] * 12, 4, "predicted", blocks)
    for number in range(1, 7):
        next(pieces)
        assert len(looked) == number
