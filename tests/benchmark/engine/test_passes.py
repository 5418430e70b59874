"""What is printed of the passes of a stage: their floor, as a share of the time that went by."""

import pytest
import torch

from benchmark.engine import passes
from methods import Backbone, Passes


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass forward takes two seconds, and three more back."""
    monkeypatch.setattr(
        passes, "seconds_of_passes", lambda _network, _size, *, back: 5.0 if back else 2.0
    )


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize(
    "counted, seconds, expected",
    [
        (
            Passes(1000, 0),
            4000,
            "1,000 images forward take 2000 seconds by themselves, of 4000 (50 %)",
        ),
        (
            Passes(10, 4),
            64,
            "10 images forward and 4 back take 32 seconds by themselves, of 64 (50 %)",
        ),
        (
            Passes(10, 4),
            32,
            "10 images forward and 4 back take 32 seconds by themselves, of 32 (100 %)",
        ),
        (
            Passes(10, 0),
            5,
            "10 images forward take 20 seconds by themselves, of 5 "
            "(more than went by: some stop at a layer)",
        ),
    ],
)
def test_share_of_network(cnn: Backbone, counted: Passes, seconds: float, expected: str) -> None:
    cnn.passes = counted
    assert passes.share_of_network(cnn, 8, seconds) == expected


@pytest.mark.parametrize("back", [False, True])
def test_passes_that_are_timed_are_not_counted(cnn: Backbone, back: bool) -> None:
    cnn.predict(torch.rand(3, 3, cnn.size, cnn.size))
    before = Passes(**vars(cnn.passes))
    assert passes.seconds_of_passes(cnn, 2, back=back) > 0
    assert cnn.passes == before
