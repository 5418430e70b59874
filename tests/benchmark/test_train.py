"""Training: the optimiser, the order of the images, and going on after a kill."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark import store, train
from benchmark.images import write_split
from benchmark.params import Head, Params, Recipe
from methods import Backbone
from methods.ttame import TTAME

RECIPE = Recipe(epochs=3, batch_size=8, max_lr=0.05, momentum=0.9, weight_decay=5e-4)


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_split: MakeSplit) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count in (("train", 35), ("validation", 6)):
        write_split(name, make_split(name, count))


def fit(cnn: Backbone) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    explainer = TTAME(cnn)
    curve = train.fit(explainer, RECIPE, seed=0, work=store.Work("train", [], []), label="test")
    return curve, {name: t.clone() for name, t in explainer.attention.state_dict().items()}


@pytest.mark.usefixtures("splits")
def test_loss_falls_and_the_curve_is_whole(cnn: Backbone) -> None:
    curve, _ = fit(cnn)
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


@pytest.mark.usefixtures("splits")
@pytest.mark.parametrize("killed_at", [3, 9])
def test_goes_on_to_the_same_bytes_after_a_kill(
    cnn: Backbone, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    undisturbed, weights = fit(cnn)
    store.Work("train", [], []).done()
    steps, real = [0], train.step

    def step(*args: object) -> dict[str, Tensor]:
        if steps[0] == killed_at:
            raise KeyboardInterrupt
        steps[0] += 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "step", step)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(cnn)
    counted = [0]

    def count(*args: object) -> dict[str, Tensor]:
        counted[0] += 1
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "step", count)
    curve, again = fit(cnn)
    assert 0 < counted[0] < 12
    assert curve.to_csv() == undisturbed.to_csv()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_every_image_once_an_epoch_in_a_new_order() -> None:
    batches = list(train.batches(35, RECIPE, seed=0, skip=0))
    assert [epoch for epoch, _ in batches] == [0] * 4 + [1] * 4 + [2] * 4
    epochs = [torch.cat([b for _, b in batches[i : i + 4]]) for i in (0, 4, 8)]
    assert all(len(set(e.tolist())) == 32 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    rest = list(train.batches(35, RECIPE, seed=0, skip=5))
    assert [b.tolist() for _, b in rest] == [b.tolist() for _, b in batches[5:]]


def test_weight_decay_on_weights_only(cnn: Backbone) -> None:
    attention = TTAME(cnn).attention
    decayed, free = train.build_optimiser(attention, RECIPE).param_groups
    names = {id(p): name for name, p in attention.named_parameters()}
    assert decayed["weight_decay"] == 5e-4
    assert free["weight_decay"] == 0
    assert {names[id(p)] for p in decayed["params"]} == {
        "fuser.weight",
        *(f"convs.{i}.weight" for i in range(3)),
    }


@pytest.mark.usefixtures("splits")
def test_too_large_a_batch_is_refused(cnn: Backbone) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 64})
    with pytest.raises(ValueError, match="batch_size is 64: expected at most the 35"):
        train.fit(TTAME(cnn), recipe, seed=0, work=store.Work("t", [], []), label="")


@pytest.mark.usefixtures("splits")
def test_divergence_is_refused(cnn: Backbone) -> None:
    explainer = TTAME(cnn)
    with torch.no_grad():
        explainer.attention.fuser.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"training diverged, the loss is nan: lower train.max_lr"):
        train.fit(explainer, RECIPE, seed=0, work=store.Work("t", [], []), label="")


@pytest.mark.usefixtures("splits")
def test_a_sparser_curve_has_means_and_the_same_training(cnn: Backbone) -> None:
    whole, weights = fit(cnn)
    explainer, recipe = TTAME(cnn), RECIPE.model_copy(update={"log_every": 3})
    sparse = train.fit(explainer, recipe, seed=0, work=store.Work("sparse", [], []), label="")
    assert sparse["step"].tolist() == [0, 3, 4, 6, 8, 9, 12]
    expected = [whole["loss"][a:b].mean() for a, b in ((1, 4), (4, 5), (5, 7), (7, 9), (9, 10))]
    assert np.allclose(sparse["loss"][1:6], expected, rtol=1e-5)
    again = explainer.attention.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.usefixtures("splits")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_trains_alike(cnn: Backbone, precision: str) -> None:
    whole, weights = fit(cnn)
    explainer, recipe = TTAME(cnn), RECIPE.model_copy(update={"precision": precision})
    curve = train.fit(explainer, recipe, seed=0, work=store.Work("half", [], []), label="")
    assert 0 < (curve["loss"] - whole["loss"]).abs().max() < 0.2
    found = explainer.attention.state_dict()
    assert all(t.dtype == weights[name].dtype for name, t in found.items())
    assert not torch.equal(found["fuser.weight"], weights["fuser.weight"])


@pytest.mark.usefixtures("splits")
def test_too_little_memory_names_the_batch_size(
    cnn: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise torch.OutOfMemoryError

    explainer = TTAME(cnn)
    monkeypatch.setattr(explainer, "losses", full)
    with pytest.raises(ValueError, match="out of memory with 8 training images a process: lower"):
        train.fit(explainer, RECIPE, seed=0, work=store.Work("t", [], []), label="")


@pytest.mark.usefixtures("splits")
def test_a_checkpoint_is_taken_instead_of_training(
    settings: Params, monkeypatch: pytest.MonkeyPatch, cnn: Backbone
) -> None:
    given = TTAME(cnn, seed=5)
    with torch.no_grad():
        given.attention.fuser.bias.fill_(0.25)
    save_file(given.attention.state_dict(), "given.safetensors")
    monkeypatch.setattr(train.backbones, "build", lambda *_: cnn)
    head = Head(
        backbone="efficientnet_lite0",
        explainer="ttame",
        needs=Path("given.safetensors"),
        checkpoint=Path("given.safetensors"),
    )
    train.main(settings.model_copy(update={"heads": {"x": head}}), "x")
    state = load_file(store.state_path("efficientnet_lite0", "ttame"))
    assert all(torch.equal(state[k], t) for k, t in given.attention.state_dict().items())
    curve = pd.read_csv(store.curve_path("efficientnet_lite0", "ttame"))
    assert list(curve["step"]) == [0]
    assert curve["validation_ad"].between(0, 100).all()


def test_a_checkpoint_is_what_the_head_needs() -> None:
    with pytest.raises(ValueError, match=r"needs is a: expected the checkpoint, b\.safetensors"):
        Head(backbone="x", explainer="y", needs=Path("a"), checkpoint=Path("b.safetensors"))
