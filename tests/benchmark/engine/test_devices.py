"""Precision and memory."""

import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

import methods
from benchmark.engine import devices
from benchmark.engine.explaining import explain_batch
from benchmark.engine.recipe import Precision
from methods import Backbone, Explainer
from methods.rise import RISE
from methods.scorecam import ScoreCAM


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes = []

    def work(images: Tensor, targets: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError
        return images * targets

    images, targets = torch.arange(11.0), torch.arange(11.0)
    with pytest.warns(UserWarning, match="out of memory with 11 images at a time: going on with 5"):
        found = devices.in_memory(work, images, targets)
    assert torch.equal(found, images * targets)
    assert sizes == [11, 5, 2, 2, 1, 5, 2, 2, 1, 1]


def test_one_image_that_does_not_fit_is_refused() -> None:
    def work(_images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    with (
        pytest.warns(UserWarning, match="going on with 1"),
        pytest.raises(ValueError, match="out of memory with one image: expected a smaller"),
    ):
        devices.in_memory(work, torch.zeros(2))


def test_other_errors_pass() -> None:
    def work(_images: Tensor) -> Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        devices.in_memory(work, torch.zeros(2))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("cls", "settings"), [(RISE, {"masks": 20}), (ScoreCAM, {})])
def test_lower_precision_is_close_and_is_float32_again(
    precision: Precision,
    cls: type[Explainer],
    settings: dict[str, int],
    cnn: Backbone,
    make_split: MakeSplit,
) -> None:
    images = make_split("evaluation", 3).images(slice(None))
    explainer = methods.build(cls, cnn, settings)
    maps = {
        chosen: explain_batch(explainer, images, count_nan=False, precision=chosen)["maps"]
        for chosen in ("float32", precision)
    }
    assert maps[precision].dtype == "float32"
    assert 0 < abs(maps[precision] - maps["float32"]).max() < 0.1
