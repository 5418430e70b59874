"""Train a trainable explainer: the loop, its optimiser, and what it is watched by."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

import methods
from benchmark.data.seeds import seed_of
from benchmark.data.splits import Batch, Listed, Split, as_pixels
from benchmark.engine import parallel
from benchmark.engine.devices import autocast, clock
from benchmark.engine.recipe import Precision, Recipe
from methods import Backbone, TrainableExplainer
from metrics import Maps
from metrics.confidence import Confidence

CHECKPOINT_SECONDS = 10.0
"""The least time between two points to resume from."""

CHECKPOINT = "checkpoint.pt"
"""The file to resume from."""

LOSS_SCALE = 1024.0
"""Of float16, at first; from torch's 65,536 the first steps would be lost to the search for one."""

FULL = 100.0
"""The level of the validation AD: all pixels kept."""

TIMED_STEPS = 3
"""Training steps that are timed, after one that is not."""


class Keeping(Protocol):
    """Where the unfinished work is kept; see core.store.Unfinished."""

    def path(self, name: str) -> Path:
        """A file of this work, which may exist."""

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to, which becomes that file if the block ends well."""


def build_trainable(name: str, backbone: Backbone, settings: dict[str, Any]) -> TrainableExplainer:
    """An untrained explainer.

    Args:
        name: of methods/, or package.module:Class.
        backbone: that it explains.
        settings: the keyword arguments of its constructor.

    Raises:
        ValueError: the explainer has nothing to train.
    """
    cls = methods.load(name)
    if not issubclass(cls, TrainableExplainer):
        raise ValueError(f"explainer {name!r} has nothing to train: expected a TrainableExplainer")
    explainer = methods.build(cls, backbone, settings)
    assert isinstance(explainer, TrainableExplainer)
    return explainer


def train(
    name: str,
    backbone: Backbone,
    settings: dict[str, Any],
    recipe: Recipe,
    splits: tuple[Split | Listed, Split],
    *,
    seed: int,
    work: Keeping,
    label: str,
) -> tuple[TrainableExplainer, pd.DataFrame]:
    """Build an explainer and train it, see `build_trainable` and `fit`; with its curve.

    Args:
        name: see `build_trainable`.
        backbone: see there.
        settings: see there.
        recipe: of the training.
        splits: the training and the validation images.
        seed: of the batches.
        work: where the unfinished work is kept.
        label: of the progress bar.
    """
    explainer = build_trainable(name, backbone, settings)
    return explainer, fit(explainer, recipe, *splits, seed=seed, work=work, label=label)


def fit(
    explainer: TrainableExplainer,
    recipe: Recipe,
    train: Split | Listed,
    validation: Split,
    *,
    seed: int,
    work: Keeping,
    label: str,
) -> pd.DataFrame:
    """Train in place, from where `work` left off. Several processes share every batch.

    Returns:
        The curve, a row every `log_every` steps and at the end of an epoch: step, epoch, learning
        rate, means of the loss and its terms since the row before; after each epoch (and before
        the first) the AD at 100 % on the validation images.
    """
    images = min(recipe.images or len(train), len(train))
    refuse_batch_size(recipe, images)
    refuse_unsavable(explainer)
    steps = images // recipe.batch_size
    total = steps * recipe.epochs
    trainee = parallel.trainee(explainer)
    optimiser = build_optimiser(explainer.attention, recipe)
    schedule = build_schedule(optimiser, recipe, total)
    scaler = build_scaler(explainer, recipe)
    parts = {"explainer": explainer, "optimiser": optimiser}
    parts |= {"schedule": schedule, "scaler": scaler}
    rows = resume(work, parts) or [untrained(explainer, validation)]
    done, saved, pending = int(rows[-1]["step"]), time.monotonic(), list[dict[str, Tensor]]()
    silent = None if parallel.index() == 0 else True
    with tqdm(total=total, initial=done, desc=label, unit="step", disable=silent) as progress:
        todo = own_parts(batches(images, recipe, seed, skip=done))
        for pixels in train.stream(todo, seed):
            rate = schedule.get_last_lr()[0]
            pending.append(step(trainee, optimiser, pixels, scaler, recipe.precision))
            schedule.step()
            done += 1
            progress.update()
            if done % recipe.log_every and done % steps:
                continue
            row = {"step": done, "epoch": done / steps, "learning_rate": rate} | means(pending)
            pending.clear()
            if done % steps == 0:
                row["validation_ad"] = validation_drop(explainer, validation)
            rows.append(row)
            progress.set_postfix(loss=f"{row['loss']:.3f}")
            if parallel.index() == 0 and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                save(work, parts, rows)
                saved = time.monotonic()
    return pd.DataFrame(rows)


def refuse_batch_size(recipe: Recipe, images: int) -> None:
    """Refuse a batch size that the images or the processes do not allow.

    Raises:
        ValueError: larger than the training split, or no multiple of the number of processes.
    """
    if recipe.batch_size > images:
        raise ValueError(
            f"train.batch_size is {recipe.batch_size}: expected at most the {images} "
            "training images"
        )
    if recipe.batch_size % parallel.count():
        raise ValueError(
            f"train.batch_size is {recipe.batch_size}: expected a multiple of the "
            f"{parallel.count()} processes"
        )


def refuse_unsavable(explainer: TrainableExplainer) -> None:
    """Refuse what cannot be written once it is trained.

    Raises:
        ValueError: tensors that are tied, or not contiguous.
    """
    try:
        safetensors.torch.save(explainer.attention.state_dict())
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the attention mechanism of {type(explainer).__name__} cannot be saved: expected "
            f"contiguous tensors, none of them tied ({' '.join(str(error).split())})"
        ) from error


def means(steps: list[dict[str, Tensor]]) -> dict[str, float]:
    """Means of the loss and its terms over steps and processes.

    Raises:
        ValueError: the loss is NaN or infinite.
    """
    terms = torch.stack([torch.stack(list(step.values())) for step in steps])
    values = parallel.mean(terms.mean(dim=0)).tolist()
    found = dict(zip(steps[0], values, strict=True))
    if not np.isfinite(found["loss"]):
        raise ValueError(f"training diverged, the loss is {found['loss']}: lower train.max_lr")
    return found


def untrained(explainer: TrainableExplainer, validation: Split) -> dict[str, Any]:
    """The row of a training curve before the first step."""
    return {"step": 0, "epoch": 0, "validation_ad": validation_drop(explainer, validation)}


def build_optimiser(attention: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe; weight decay on weights, none on biases and batch norms."""
    weights = [p for p in attention.parameters() if p.ndim > 1]
    others = [p for p in attention.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    match recipe.optimiser:
        case "adam":
            return torch.optim.Adam(groups, lr=recipe.max_lr)
        case "adamw":
            return torch.optim.AdamW(groups, lr=recipe.max_lr)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=recipe.max_lr, momentum=recipe.momentum)
        case "sgd":
            momentum = recipe.momentum
            return torch.optim.SGD(
                groups, lr=recipe.max_lr, momentum=momentum, nesterov=momentum > 0
            )


def build_schedule(
    optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """The learning rate of each of so many steps."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.max_lr, total_steps=steps, cycle_momentum=False
    )


def build_scaler(explainer: TrainableExplainer, recipe: Recipe) -> torch.amp.GradScaler:
    """What scales the loss in float16, and does nothing otherwise."""
    where, scaled = explainer.backbone.device.type, recipe.precision == "float16"
    return torch.amp.GradScaler(where, init_scale=LOSS_SCALE, enabled=scaled)


def batches(images: int, recipe: Recipe, seed: int, skip: int) -> Iterator[Batch]:
    """Every batch of every epoch but the first `skip`; a short last one is dropped."""
    steps = images // recipe.batch_size
    for epoch in range(recipe.epochs):
        order = np.random.default_rng(seed_of(seed, "train", epoch)).permutation(images)
        for at in range(steps):
            if epoch * steps + at >= skip:
                start = at * recipe.batch_size
                yield epoch, torch.from_numpy(order[start : start + recipe.batch_size])


def own_parts(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The part of each batch that this process works on."""
    for epoch, batch in batches:
        yield epoch, batch.view(parallel.count(), -1)[parallel.index()]


def step(
    trainee: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    scaler: torch.amp.GradScaler,
    precision: Precision,
) -> dict[str, Tensor]:
    """One step on a batch of uint8 images (B, 3, H, W), or on this process's part of one.

    Returns:
        The loss and its terms, scalars on the device: nothing waits for it.

    Raises:
        ValueError: the batch does not fit into memory.
    """
    where = next(trainee.parameters()).device
    trainee.train()
    try:
        with autocast(where, precision):
            pixels = as_pixels(images.to(where, non_blocking=True))
            losses: dict[str, Tensor] = trainee(pixels)
        optimiser.zero_grad()
        scaler.scale(losses["loss"]).backward()
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"out of memory with {len(images)} training images a process: lower train.batch_size "
            "(a smaller one is another recipe), use more processes, or precision bfloat16"
        ) from error
    scaler.step(optimiser)
    scaler.update()
    trainee.eval()
    return {name: value.detach().float() for name, value in losses.items()}


def validation_drop(explainer: TrainableExplainer, split: Split, batch_size: int = 32) -> float:
    """Mean Average Drop at 100 % of the pixels over a split, in per cent; of all its classes."""
    allowed, explainer.allows_unseen = explainer.allows_unseen, True
    metric = Confidence(kept=[FULL])
    backbone = explainer.backbone
    drops = []
    for batch in parallel.own(list(split.batches(batch_size))):
        images = split.images(batch).to(backbone.device)
        before = backbone.probabilities(images)
        targets = before.argmax(dim=1)
        maps = Maps(explainer(images, targets), images.shape[2:], seeds=[0] * len(images))
        masked = metric.perturb(images, maps)
        after = backbone.probabilities(masked[:, 0])
        drops.append(metric.judge(before, after[:, None], targets)[0].per_image.cpu())
    explainer.allows_unseen = allowed
    return float(torch.cat(parallel.collected(drops)).mean())


def seconds_of_training(explainer: TrainableExplainer, recipe: Recipe, images: int) -> float:
    """How long training takes on this device, from a few steps on random pixels.

    Args:
        explainer: which is trained by these steps: build another one.
        recipe: of the training.
        images: of the training split.
    """
    trainee = parallel.trainee(explainer)
    optimiser = build_optimiser(explainer.attention, recipe)
    where = explainer.backbone.device
    scaler = build_scaler(explainer, recipe)
    side = explainer.backbone.size
    shape = (max(1, recipe.batch_size // parallel.count()), 3, side, side)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    start = 0.0
    for number in range(TIMED_STEPS + 1):
        if number == 1:
            start = clock(where)
        step(trainee, optimiser, pixels, scaler, recipe.precision)
    seconds = (clock(where) - start) / TIMED_STEPS
    return seconds * step_count(recipe, images)


def step_count(recipe: Recipe, images: int) -> int:
    """The number of training steps of a recipe with so many training images."""
    return recipe.epochs * (min(recipe.images or images, images) // recipe.batch_size)


def take_steps(
    explainer: TrainableExplainer, recipe: Recipe, train: Split | Listed, *, seed: int, steps: int
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """What some steps at the peak rate do: each tensor's update; and the optimiser's settings.

    With the settings are the rates of the whole schedule. Two versions of the code that give the
    same here train alike.
    """
    before = {name: t.clone() for name, t in explainer.attention.state_dict().items()}
    optimiser = build_optimiser(explainer.attention, recipe)
    scaler = build_scaler(explainer, recipe)
    images = min(recipe.images or len(train), len(train))
    todo = (batch for batch, _ in zip(batches(images, recipe, seed, 0), range(steps), strict=False))
    trainee = parallel.trainee(explainer)
    for pixels in train.stream(todo, seed):
        step(trainee, optimiser, pixels, scaler, recipe.precision)
    after = explainer.attention.state_dict()
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        | {"parameters": [tuple(p.shape) for p in group["params"]]}
        for group in optimiser.param_groups
    ]
    settings.append({"rates": rates_of(recipe, step_count(recipe, len(train)))})
    return {name: after[name] - before[name] for name in before}, settings


def rates_of(recipe: Recipe, steps: int) -> list[float]:
    """The learning rates of a schedule."""
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=recipe.max_lr)
    schedule = build_schedule(optimiser, recipe, steps)
    rates = []
    for _ in range(steps):
        rates.append(float(schedule.get_last_lr()[0]))
        optimiser.step()
        schedule.step()
    return rates


def resume(work: Keeping, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Restore `parts` from a checkpoint; the rows of the curve, if any."""
    if not work.path(CHECKPOINT).exists():
        return []
    saved = torch.load(work.path(CHECKPOINT), weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    rows: list[dict[str, Any]] = saved["rows"]
    return rows


def save(work: Keeping, parts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write a checkpoint."""
    states = {name: part.state_dict() for name, part in parts.items()}
    with work.replacing(CHECKPOINT) as beside:
        torch.save(states | {"rows": rows}, beside)
