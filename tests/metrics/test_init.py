"""What every metric promises, found by name: measures, bounds, exact repetition."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metrics
from methods import Backbone
from metrics import MODES, Perturbation, Reading, Values

SMALL = {"deletion_insertion": {"steps": 3}}
"""Settings for a quick test."""


def test_names_are_the_files() -> None:
    folder = Path(metrics.__file__).parent
    assert set(metrics.names()) == {
        p.stem for p in folder.glob("*.py") if not p.name.startswith("_")
    }


def test_measures_have_names_of_their_own() -> None:
    listed = [m.name for name in metrics.names() for m in metrics.load(name).measures]
    assert len(listed) == len(set(listed))
    assert set(metrics.measures()) == set(listed)


def test_unknown_metric_and_setting() -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'rode': expected one of complexity"):
        metrics.build("rode", {})
    with pytest.raises(ValueError, match=r"unknown setting 'sigma' of metric 'road'.*removed"):
        metrics.build("road", {"sigma": 1})


@pytest.mark.parametrize(("metric", "setting"), [("road", "removed"), ("confidence", "kept")])
@pytest.mark.parametrize("levels", [[], [-1], [50, 101], [20, 20.0], [float("nan")]])
def test_levels_are_per_cent(metric: str, setting: str, levels: list[Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{setting} is \[.*expected per cent of the pixels"):
        metrics.build(metric, {setting: levels})
    assert metrics.build(metric, {setting: [0, 100]})


@pytest.mark.parametrize(
    ("metric", "settings", "message"),
    [
        (
            "road",
            {"removed": ["all"]},
            "setting 'removed' of metric 'road' is .*: expected a valid",
        ),
        ("road", {"noise": "little"}, "setting 'noise' of metric 'road' is 'little': expected a v"),
        ("confidence", {"kept": 50}, "setting 'kept' of metric 'confidence' is 50: expected a"),
    ],
)
def test_settings_are_of_their_types(metric: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.build(metric, settings)


def test_a_baseline_stands_once() -> None:
    with pytest.raises(ValueError, match="are black, black: expected each once"):
        metrics.build("deletion_insertion", {"insertion": ["black", "black"]})


def values_of(
    name: str, backbone: Backbone, pixels: Tensor, native: Tensor, mode: str = "corrected"
) -> list[Values]:
    metric = metrics.build(name, SMALL.get(name, {}))
    maps = MODES[mode](native, pixels.shape[2:], range(len(native)))
    if isinstance(metric, Reading):
        return metric.read(maps, native_objects(pixels))
    assert isinstance(metric, Perturbation)
    perturbed = metric.perturb(pixels, maps)
    assert perturbed.shape == (len(pixels), metric.versions, *pixels.shape[1:])
    before = backbone.probabilities(pixels)
    after = backbone.probabilities(perturbed.flatten(0, 1)).unflatten(0, perturbed.shape[:2])
    return metric.judge(before, after, before.argmax(dim=1))


def native_objects(pixels: Tensor) -> Tensor:
    objects = torch.zeros(len(pixels), *pixels.shape[2:], dtype=torch.bool)
    objects[:, 8:20, 10:25] = True
    return objects


NATIVE = {
    "random": torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "binary": (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.7).float(),
    "constant": torch.full((3, 8, 8), 0.5),
    "nan": torch.full((3, 8, 8), torch.nan),
}


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("name", metrics.names())
def test_values_are_finite_and_within_their_bounds(
    name: str, kind: str, tiny: Backbone, pixels: Tensor
) -> None:
    known = {m.name: m for m in metrics.load(name).measures}
    found = values_of(name, tiny, pixels, NATIVE[kind])
    assert {v.measure for v in found} == set(known)
    for values in found:
        low, high = known[values.measure].bounds
        assert values.per_image.shape == (3,)
        assert bool(((values.per_image >= low) & (values.per_image <= high)).all()), values
        assert (values.level is None) == (known[values.measure].levels is None)


@pytest.mark.parametrize("name", metrics.names())
def test_inputs_and_random_state_are_left_alone(name: str, cnn: Backbone, pixels: Tensor) -> None:
    native = NATIVE["random"].clone()
    copies, state = (pixels.clone(), native.clone()), torch.get_rng_state()
    first = values_of(name, cnn, pixels, native)
    assert torch.equal(pixels, copies[0])
    assert torch.equal(native, copies[1])
    assert torch.equal(torch.get_rng_state(), state)
    for one, again in zip(first, values_of(name, cnn, pixels, native), strict=True):
        assert torch.equal(one.per_image, again.per_image)


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("name", [n for n in metrics.names() if metrics.load(n).in_reference])
def test_reference_mode_takes_any_map(name: str, kind: str, cnn: Backbone, pixels: Tensor) -> None:
    found = values_of(name, cnn, pixels, NATIVE[kind], "reference")
    assert {v.measure for v in found} == {m.name for m in metrics.load(name).measures}
