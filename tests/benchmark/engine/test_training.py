"""Training: the optimiser, the order of the images, and going on after a kill."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit
from torch import Tensor

from benchmark.core.store import Key, Unfinished
from benchmark.data.splits import Split
from benchmark.engine import training
from benchmark.engine.recipe import Recipe
from methods import Backbone
from methods.ttame import TTAME

RECIPE = Recipe(epochs=3, batch_size=8, max_lr=0.05, momentum=0.9, weight_decay=5e-4)


@pytest.fixture
def splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_split: MakeSplit
) -> tuple[Split, Split]:
    monkeypatch.chdir(tmp_path)
    return make_split("train", 35), make_split("validation", 6)


def unfinished(key: str = "") -> Unfinished:
    return Unfinished("train", Key(key, ""))


def fit(cnn: Backbone, splits: tuple[Split, Split]) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """The curve of a training, its state, and with it how many images of each class it saw."""
    explainer = TTAME(cnn)
    curve = training.fit(explainer, RECIPE, *splits, seed=0, work=unfinished(), label="test")
    state = {name: t.clone() for name, t in explainer.attention.state_dict().items()}
    return curve, state | {"counts": torch.tensor(explainer.origin()["class_counts"])}


def test_loss_falls_and_the_curve_is_whole(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    curve, _ = fit(cnn, splits)
    assert list(curve["step"]) == list(range(13))
    assert curve["loss"].iloc[1:5].mean() > curve["loss"].iloc[-4:].mean()
    assert curve["validation_ad"].notna().tolist() == [i % 4 == 0 for i in range(13)]
    weighted = 1.5 * curve["cross_entropy"] + 2 * curve["area"] + 0.01 * curve["smoothness"]
    assert np.allclose(curve["loss"].iloc[1:], weighted.iloc[1:], rtol=1e-5)
    rates = curve["learning_rate"].iloc[1:].tolist()
    assert rates[0] == pytest.approx(0.05 / 25)
    assert rates[-1] == pytest.approx(0.05 / 25 / 1e4)
    assert 0.049 < max(rates) <= 0.05
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)


@pytest.mark.parametrize("killed_at", [3, 9])
def test_goes_on_to_the_same_bytes_after_a_kill(
    cnn: Backbone,
    splits: tuple[Split, Split],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
) -> None:
    undisturbed, weights = fit(cnn, splits)
    unfinished().forget()
    steps, real = [0], training.step

    def step(*args: object) -> dict[str, Tensor]:
        if steps[0] == killed_at:
            raise KeyboardInterrupt
        steps[0] += 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "step", step)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(cnn, splits)
    counted = [0]

    def count(*args: object) -> dict[str, Tensor]:
        counted[0] += 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "step", count)
    curve, again = fit(cnn, splits)
    assert 0 < counted[0] < 12
    assert curve.to_csv() == undisturbed.to_csv()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_classes_are_counted_image_by_image(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    """Each by the network's own prediction, once in each of three epochs of 32 of 35 images."""
    _, state = fit(cnn, splits)
    predicted = cnn.predict(splits[0].images(slice(35)))
    every = torch.cat([batch for _, batch in training.batches(35, RECIPE, seed=0, skip=0)])
    assert len(every) == 3 * 32
    assert torch.equal(state["counts"], predicted[every].bincount(minlength=cnn.classes))


def test_training_leaves_unseen_classes_refused(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    """Validation explains them, and is over."""
    explainer = TTAME(cnn)
    explainer.class_counts = torch.zeros(cnn.classes, dtype=torch.int64)
    assert training.validation_drop(explainer, splits[1]) >= 0
    images = splits[1].images(slice(2))
    with pytest.raises(ValueError, match="expected one of the 0 classes that it saw"):
        explainer(images, cnn.predict(images))


def test_every_image_once_an_epoch_in_a_new_order() -> None:
    batches = list(training.batches(35, RECIPE, seed=0, skip=0))
    assert [epoch for epoch, _ in batches] == [0] * 4 + [1] * 4 + [2] * 4
    epochs = [torch.cat([b for _, b in batches[i : i + 4]]) for i in (0, 4, 8)]
    assert all(len(set(e.tolist())) == 32 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    rest = list(training.batches(35, RECIPE, seed=0, skip=5))
    assert [b.tolist() for _, b in rest] == [b.tolist() for _, b in batches[5:]]


def test_weight_decay_on_weights_only(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    attention = TTAME(cnn).attention
    decayed, free = training.build_optimiser(attention, RECIPE).param_groups
    names = {id(p): name for name, p in attention.named_parameters()}
    assert decayed["weight_decay"] == 5e-4
    assert free["weight_decay"] == 0
    assert {names[id(p)] for p in decayed["params"]} == {
        "fuser.weight",
        *(f"convs.{i}.weight" for i in range(3)),
    }


def test_too_large_a_batch_is_refused(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 64})
    with pytest.raises(ValueError, match="batch_size is 64: expected at most the 35"):
        training.fit(TTAME(cnn), recipe, *splits, seed=0, work=unfinished("t"), label="")


def test_divergence_is_refused(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    explainer = TTAME(cnn)
    with torch.no_grad():
        explainer.attention.fuser.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"training diverged, the loss is nan: lower train.max_lr"):
        training.fit(explainer, RECIPE, *splits, seed=0, work=unfinished("t"), label="")


def test_a_sparser_curve_has_means_and_the_same_training(
    cnn: Backbone, splits: tuple[Split, Split]
) -> None:
    whole, weights = fit(cnn, splits)
    explainer, recipe = TTAME(cnn), RECIPE.model_copy(update={"log_every": 3})
    sparse = training.fit(explainer, recipe, *splits, seed=0, work=unfinished("sparse"), label="")
    assert sparse["step"].tolist() == [0, 3, 4, 6, 8, 9, 12]
    expected = [whole["loss"][a:b].mean() for a, b in ((1, 4), (4, 5), (5, 7), (7, 9), (9, 10))]
    assert np.allclose(sparse["loss"][1:6], expected, rtol=1e-5)
    again = explainer.attention.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in again)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_trains_alike(
    cnn: Backbone, splits: tuple[Split, Split], precision: str
) -> None:
    whole, weights = fit(cnn, splits)
    explainer, recipe = TTAME(cnn), RECIPE.model_copy(update={"precision": precision})
    curve = training.fit(explainer, recipe, *splits, seed=0, work=unfinished("half"), label="")
    assert 0 < (curve["loss"] - whole["loss"]).abs().max() < 0.2
    found = explainer.attention.state_dict()
    assert all(t.dtype == weights[name].dtype for name, t in found.items())
    assert not torch.equal(found["fuser.weight"], weights["fuser.weight"])


def test_too_little_memory_names_the_batch_size(
    cnn: Backbone,
    splits: tuple[Split, Split],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> object:
        raise torch.OutOfMemoryError

    explainer = TTAME(cnn)
    monkeypatch.setattr(explainer, "losses", full)
    with pytest.raises(ValueError, match="out of memory with 8 training images a process: lower"):
        training.fit(explainer, RECIPE, *splits, seed=0, work=unfinished("t"), label="")


def test_steps_at_the_peak_rate_say_what_training_does(
    cnn: Backbone, splits: tuple[Split, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(recipe: Recipe) -> tuple[dict[str, Tensor], object]:
        return training.take_steps(TTAME(cnn), recipe, splits[0], seed=0, steps=3)

    first, optimiser = take(RECIPE)
    again, same = take(RECIPE)
    assert optimiser == same
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert float(first["fuser.weight"].abs().max()) > 1e-3
    other, _ = take(RECIPE.model_copy(update={"max_lr": 0.04}))
    assert not torch.allclose(first["fuser.weight"], other["fuser.weight"])
    _, decayed = take(RECIPE.model_copy(update={"weight_decay": 0.1}))
    assert decayed != optimiser
    quicker = partial(torch.optim.lr_scheduler.OneCycleLR, pct_start=0.25)
    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", quicker)
    _, scheduled = take(RECIPE)
    assert scheduled != optimiser


def test_the_schedule_moves_the_rate_and_not_the_momentum(cnn: Backbone) -> None:
    """The reference's cycles the momentum between 0.85 and 0.95."""
    recipe = RECIPE.model_copy(update={"momentum": 0.9, "weight_decay": 0.1})
    optimiser = training.build_optimiser(TTAME(cnn).attention, recipe)
    schedule = training.build_schedule(optimiser, recipe, 10)
    rates, momenta = [], []
    for _ in range(10):
        rates.append(optimiser.param_groups[0]["lr"])
        momenta += [group["momentum"] for group in optimiser.param_groups]
        optimiser.step()
        schedule.step()
    assert set(momenta) == {0.9}
    assert len(set(rates)) > 5
    decays = {g["weight_decay"]: {p.ndim for p in g["params"]} for g in optimiser.param_groups}
    assert decays == {0.1: {4}, 0.0: {1}}


def test_the_frozen_network_stays_in_eval_mode(cnn: Backbone, splits: tuple[Split, Split]) -> None:
    """In the reference its batch norms drift while the mechanism learns."""
    modes: set[bool] = set()
    explainer = TTAME(cnn)
    own: set[bool] = set()

    def look(_module: object, _inputs: object) -> None:
        modes.update(module.training for module in cnn.network.modules())
        own.add(explainer.attention.training)

    cnn.network.register_forward_pre_hook(look)
    before = {name: t.clone() for name, t in cnn.network.state_dict().items()}
    training.fit(explainer, RECIPE, *splits, seed=0, work=unfinished("t"), label="")
    assert modes == {False}
    assert own == {True, False}
    assert any("running_mean" in name for name in before)
    after = cnn.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_how_long_training_takes_is_measured_in_steps(cnn: Backbone) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 1000})
    assert training.step_count(RECIPE, 35) == 12
    assert training.step_count(RECIPE.model_copy(update={"images": 16}), 35) == 6
    once = training.seconds_of_training(TTAME(cnn), RECIPE, 35)
    assert 0 < once < training.seconds_of_training(TTAME(cnn), recipe, 35)


@pytest.mark.parametrize("kind", ["tied", "channels last"])
def test_what_cannot_be_saved_is_refused_before_the_first_step(
    cnn: Backbone, splits: tuple[Split, Split], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = TTAME(cnn)
    if kind == "tied":
        first, second, _ = explainer.attention.convs  # type: ignore[misc, union-attr]
        first.bias = second.bias = torch.nn.Parameter(torch.zeros(8))
    else:
        weight = explainer.attention.output.weight
        turned = torch.zeros(weight.shape[1], weight.shape[0], 1, 1).transpose(0, 1)
        explainer.attention.output.weight = torch.nn.Parameter(turned)
    steps: list[object] = []
    monkeypatch.setattr(training, "step", lambda *given: steps.append(given))
    with pytest.raises(ValueError, match="attention mechanism of TTAME cannot be saved: expect"):
        training.fit(explainer, RECIPE, *splits, seed=0, work=unfinished(), label="")
    assert not steps
