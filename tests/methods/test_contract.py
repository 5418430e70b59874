"""Every explainer keeps every promise of methods.Explainer, on a small CNN and a small ViT."""

from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from methods import Backbone, Explainer, check_maps

FAST: dict[str, dict[str, Any]] = {
    "rise": {"masks": 20, "batch_size": 8},
    "integrated_gradients": {"steps": 4},
}
"""Settings that keep the test short; other explainers run with their defaults."""

TARGETS = torch.tensor([0, 3, 3])


@pytest.fixture(params=methods.names())
def cls(request: pytest.FixtureRequest) -> type[Explainer]:
    return methods.load(request.param)


@pytest.fixture
def explainer(cls: type[Explainer], tiny: Backbone) -> Explainer:
    if tiny.family not in cls.families:
        pytest.skip(f"{cls.label} does not support a {tiny.family}")
    return methods.build(cls, tiny, FAST.get(cls.__module__.removeprefix("methods."), {}))


def snapshot(backbone: Backbone) -> dict[str, Any]:
    """Everything an explainer may borrow."""
    modules = list(backbone.modules())
    return {
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules],
        "backward hooks": [(len(m._backward_hooks), len(m._backward_pre_hooks)) for m in modules],
        "modes": [m.training for m in modules],
        "requires_grad": [p.requires_grad for p in backbone.parameters()],
        "gradients": [p.grad is None for p in backbone.parameters()],
        "weights": [p.clone() for p in backbone.state_dict().values()],
        "random state": torch.random.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_metadata(cls: type[Explainer]) -> None:
    assert cls.label
    assert cls.paper
    assert cls.families <= {"cnn", "transformer"}
    assert cls.__doc__


def test_maps_are_as_promised(explainer: Explainer, pixels: Tensor) -> None:
    maps = explainer(pixels, TARGETS)
    check_maps(maps, pixels)
    assert not maps.requires_grad
    assert maps.shape[1] <= pixels.shape[2]


def test_same_maps_again(explainer: Explainer, pixels: Tensor) -> None:
    torch.manual_seed(5)
    first = explainer(pixels, TARGETS)
    torch.manual_seed(6)
    assert torch.equal(explainer(pixels, TARGETS), first)


def test_same_maps_from_a_new_instance(
    cls: type[Explainer], explainer: Explainer, pixels: Tensor
) -> None:
    settings = FAST.get(cls.__module__.removeprefix("methods."), {})
    torch.manual_seed(7)
    again = methods.build(cls, explainer.backbone, settings)
    assert torch.equal(again(pixels, TARGETS), explainer(pixels, TARGETS))


def test_alone_as_in_a_batch(explainer: Explainer, pixels: Tensor) -> None:
    together = explainer(pixels, TARGETS)
    alone = torch.cat([explainer(pixels[i : i + 1], TARGETS[i : i + 1]) for i in range(3)])
    backwards = explainer(pixels.flip(0), TARGETS.flip(0)).flip(0)
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, backwards, atol=1e-4)


def test_borrowed_state_goes_back(explainer: Explainer, pixels: Tensor) -> None:
    before, given = snapshot(explainer.backbone), pixels.clone()
    explainer(pixels, TARGETS)
    after = snapshot(explainer.backbone)
    assert [key for key in before if not same(before[key], after[key])] == []
    assert torch.equal(pixels, given)
    assert pixels.grad is None
    assert not pixels.requires_grad


def test_building_leaves_no_trace(cls: type[Explainer], tiny: Backbone) -> None:
    if tiny.family not in cls.families:
        pytest.skip(f"{cls.label} does not support a {tiny.family}")
    before = snapshot(tiny)
    methods.build(cls, tiny, {})
    after = snapshot(tiny)
    assert [key for key in before if not same(before[key], after[key])] == []
    assert tiny.passes == methods.Passes()


def test_state_goes_back_after_an_exception(explainer: Explainer, pixels: Tensor) -> None:
    class BrokenError(RuntimeError):
        pass

    def fail(_module: object, _inputs: object) -> None:
        raise BrokenError

    network = explainer.backbone.network
    handle = network.register_forward_pre_hook(fail)
    before = snapshot(explainer.backbone)
    try:
        explainer(pixels, TARGETS)
    except BrokenError:
        asked = True
    else:
        asked = False
    after = snapshot(explainer.backbone)
    handle.remove()
    explainer.backbone.passes = methods.Passes()
    explainer(pixels, TARGETS)
    assert asked == (explainer.backbone.passes.forward > 0)
    assert [key for key in before if not same(before[key], after[key])] == []
