"""The promises of methods.Explainer, each a check that says which promise is broken."""

import copy
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import methods
from methods import Backbone, Explainer, Kind, Passes, TrainableExplainer, check_maps


@dataclass(frozen=True)
class Case:
    """An explainer class on a backbone, and images (3, 3, H, W) with the classes to explain."""

    cls: type[Explainer]
    backbone: Backbone
    pixels: Tensor
    targets: Tensor
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Explainer:
        """A new instance; of a trained explainer with initial weights."""
        return self.build_on(self.backbone)

    def build_on(self, backbone: Backbone) -> Explainer:
        """A new instance on another backbone."""
        built = methods.build(self.cls, backbone, self.settings)
        if isinstance(built, TrainableExplainer):
            built.allows_unseen = True
        return built

    def maps(self) -> Tensor:
        """The maps of a new instance."""
        return self.build().explain(self.pixels, self.targets)

    @cached_property
    def first(self) -> Tensor:
        """The maps of one instance, which several promises look at."""
        return self.watched[0]

    @cached_property
    def watched(self) -> tuple[Tensor, list[str], bool]:
        """These maps, what the instance did not give back, and whether it left the images alone."""
        explainer, given = self.build(), self.pixels.clone()
        before = snapshot(self.backbone)
        maps = explainer.explain(self.pixels, self.targets)
        untouched = torch.equal(self.pixels, given) and not self.pixels.requires_grad
        return maps, differences(before, snapshot(self.backbone)), untouched


class BrokenPromiseError(Exception):
    """Says which explainer breaks which promise on which network."""


def promise(kept: bool, case: Case, what: str) -> None:
    """Raise BrokenPromiseError if a promise, in words, is not kept."""
    if not kept:
        name = f"{case.cls.__name__} on {case.backbone.name}"
        raise BrokenPromiseError(f"{name} breaks a promise: {what}")


def metadata(case: Case) -> None:
    """It has what tables and figures need to know."""
    cls = case.cls
    for name in ("label", "paper", "cost"):
        promise(bool(getattr(cls, name, "")), case, f"it has a {name}")
    promise(cls.kind in get_args(Kind), case, "a known kind")
    promise(bool(cls.families) and cls.families <= {"cnn", "transformer"}, case, "known families")
    promise(bool(cls.__doc__), case, "it has a docstring")


def maps_are_maps(case: Case) -> None:
    """Shape, type and range, see methods.check_maps."""
    maps = case.first
    try:
        check_maps(maps, case.pixels)
    except ValueError as error:
        promise(False, case, f"maps (B, h, w), float32 in [0, 1]: {error}")
    promise(not maps.requires_grad, case, "maps carry no graph")
    promise(maps.shape[1] <= case.pixels.shape[2], case, "maps are no larger than the image")


def same_again(case: Case) -> None:
    """The state of the random generators changes nothing."""
    explainer, maps = case.build(), []
    for seed in (5, 6):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        maps.append(explainer.explain(case.pixels, case.targets))
    promise(torch.equal(*maps), case, "seeded: the same call gives the same maps again")


def same_from_a_new_instance(case: Case) -> None:
    """An instance keeps nothing that changes its maps."""
    promise(torch.equal(case.first, case.maps()), case, "a new instance gives the same maps")


def alone_as_in_a_batch(case: Case) -> None:
    """A map depends neither on the images beside it nor on their order."""
    explainer, count = case.build(), len(case.pixels)
    together = case.first
    order = torch.arange(count).flip(0)
    alone = [
        explainer.explain(case.pixels[i : i + 1], case.targets[i : i + 1]) for i in range(count)
    ]
    backwards = explainer.explain(case.pixels[order], case.targets[order])[order]
    for other, what in ((torch.cat(alone), "alone"), (backwards, "in another order")):
        worst = float((together - other).abs().max())
        promise(worst <= 1e-4, case, f"batch-independent: {what}, maps differ by {worst:.2g}")


def borrowed_state_goes_back(case: Case) -> None:
    """Hooks, modes, gradients, random state and images are as before."""
    _, changed, untouched = case.watched
    promise(not changed, case, f"it gives back what it borrows: {', '.join(changed)}")
    promise(untouched and case.pixels.grad is None, case, "images stay as they are")


def building_leaves_no_trace(case: Case) -> None:
    """The constructor changes nothing and counts no pass."""
    before, passes = snapshot(case.backbone), Passes(**vars(case.backbone.passes))
    case.build()
    changed = differences(before, snapshot(case.backbone))
    promise(not changed, case, f"building leaves no trace: {', '.join(changed)}")
    promise(case.backbone.passes == passes, case, "building counts no forward pass")


def state_goes_back_after_an_exception(case: Case) -> None:
    """The same if the network fails."""

    class BrokenError(RuntimeError):
        pass

    def fail(_module: object, _inputs: object) -> None:
        raise BrokenError

    explainer = case.build()
    handle = case.backbone.network.register_forward_pre_hook(fail)
    try:
        before = snapshot(case.backbone)
        with suppress(BrokenError):
            explainer.explain(case.pixels, case.targets)
        changed = differences(before, snapshot(case.backbone))
    finally:
        handle.remove()
    promise(not changed, case, f"it gives back after an exception: {', '.join(changed)}")


def cost_is_as_said(case: Case) -> None:
    """`cost` is what passes through the network."""
    said = re.fullmatch(r"none|(\d+) forward(?:, (\d+) backward)?", case.cls.cost)
    if said is None:
        return  # it depends on the settings, see each explainer's own test
    explainer = case.build()
    case.backbone.passes = Passes()
    explainer.explain(case.pixels, case.targets)
    expected = [int(count or 0) * len(case.pixels) for count in said.groups()]
    found = [case.backbone.passes.forward, case.backbone.passes.backward]
    promise(found == expected, case, f"cost {case.cls.cost}: {found} images, expected {expected}")


def what_is_not_finite_is_not_hidden(case: Case) -> None:
    """Of a network that gives NaN there is no map that looks sound."""
    if case.cls.cost == "none":
        return  # it does not ask the network
    case.build()  # which probes the layers
    broken = copy.deepcopy(case.backbone)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    explainer = case.build_on(broken)
    try:
        check_maps(explainer.explain(case.pixels, case.targets), case.pixels)
    except ValueError:
        return
    promise(False, case, "a network that gives NaN gives no finite maps")


def half_precision_gives_maps(case: Case) -> None:
    """Within autocast the maps are maps."""
    explainer = case.build()
    with torch.autocast("cpu", torch.bfloat16):
        maps = explainer.explain(case.pixels, case.targets)
    try:
        check_maps(maps, case.pixels)
    except ValueError as error:
        promise(False, case, f"maps in bfloat16: {error}")


def images_need_not_be_square(case: Case) -> None:
    """Where the network takes such images, maps have their shape."""
    wide = torch.cat([case.pixels, case.pixels.flip(3)], dim=3)
    try:
        case.backbone.predict(wide)
    except (ValueError, RuntimeError):
        return  # the network takes images of one size
    maps = case.build().explain(wide, case.targets)
    try:
        check_maps(maps, wide)
    except ValueError as error:
        promise(False, case, f"maps of images that are not square: {error}")
    if case.cls.cost != "none":  # which may have a grid of its own
        promise(maps.shape[2] == 2 * maps.shape[1], case, "maps have the shape of the images")


PROMISES: list[Callable[[Case], None]] = [
    metadata,
    maps_are_maps,
    same_again,
    same_from_a_new_instance,
    alone_as_in_a_batch,
    borrowed_state_goes_back,
    building_leaves_no_trace,
    state_goes_back_after_an_exception,
    cost_is_as_said,
    what_is_not_finite_is_not_hidden,
    half_precision_gives_maps,
    images_need_not_be_square,
]


def broken_promises(case: Case) -> list[str]:
    """What an explainer does not keep, a line a promise; also what fails when it is looked at."""
    broken = []
    label = f"promises of {case.cls.__name__}"
    for look in tqdm(PROMISES, desc=label, unit="promise", leave=False, disable=None):
        try:
            look(case)
        except BrokenPromiseError as error:
            broken.append(str(error))
        except Exception as error:
            what, said = look.__name__.replace("_", " "), " ".join(str(error).split())
            broken.append(
                f"{case.cls.__name__} on {case.backbone.name} fails where {what} is looked at: "
                f"{type(error).__name__}: {said}"
            )
    return broken


def snapshot(backbone: Backbone) -> dict[str, Any]:
    """Everything an explainer may borrow."""
    modules = list(backbone.modules())
    return {
        "forward hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules],
        "backward hooks": [(len(m._backward_hooks), len(m._backward_pre_hooks)) for m in modules],
        "attributes of modules": [sorted(set(vars(m)) - set(vars(nn.Module()))) for m in modules],
        "modules": [type(m).__name__ for m in modules],
        "training mode": [m.training for m in modules],
        "requires_grad": [p.requires_grad for p in backbone.parameters()],
        "gradients": [p.grad is None for p in backbone.parameters()],
        "weights": [p.clone() for p in backbone.state_dict().values()],
        "torch's random state": torch.random.get_rng_state(),
        "numpy's random state": np.random.get_state()[1].tolist(),  # type: ignore[index] # noqa: NPY002
        "Python's random state": random.getstate()[1],
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, by name."""
    return [key for key in before if not same(before[key], after[key])]


def same(a: Any, b: Any) -> bool:
    """Whether two values of a snapshot are equal, element by element."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
