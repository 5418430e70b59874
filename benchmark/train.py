"""Train a trainable explainer on a backbone."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

import methods
from benchmark import backbones, parallel, processes, store
from benchmark.devices import autocast
from benchmark.images import Batch, Split, as_pixels, read_split, read_training
from benchmark.params import Head, Params, Precision, Recipe, Variant
from benchmark.stage import run_shared, seed_of
from methods import Backbone, TrainableExplainer
from metrics import Maps
from metrics.confidence import Confidence

CHECKPOINT_SECONDS = 10.0
"""The least time between two points to resume from."""

LOSS_SCALE = 1024.0
"""Of float16, at first; from torch's 65,536 the first steps would be lost to the search for one."""

FULL = 100.0
"""The level of the validation AD: all pixels kept."""


def main(params: Params, head: str) -> None:
    """Train the head `head` of params.yaml; write its state and its training curve.

    A head with a checkpoint is not trained; its curve is the AD on the validation images.
    """
    spec: Head = params.entry("heads", head)
    explainer = build(spec, backbones.build(spec.backbone, params.backbones[spec.backbone]))
    work = store.Work(
        "train",
        [head, params.seed, spec, params.backbones[spec.backbone], params.train],
        [store.split_path("train"), store.split_path("validation"), spec.needs],
    )
    if spec.checkpoint is None:
        curve = fit(explainer, params.train, seed=params.seed, work=work, label=head)
    else:
        explainer.load_state(spec.checkpoint)
        curve = pd.DataFrame([untrained(explainer, read_split("validation"))])
    if processes.first():
        with store.replacing(store.state_path(spec.backbone, spec.explainer)) as beside:
            save_file(explainer.attention.state_dict(), beside)
        store.write_csv(store.curve_path(spec.backbone, spec.explainer), curve)
    work.done()


def build(head: Head | Variant, backbone: Backbone) -> TrainableExplainer:
    """The untrained explainer of a head, or of a variant of the ablation study.

    Raises:
        ValueError: the explainer has nothing to train.
    """
    cls = methods.load(head.explainer)
    if not issubclass(cls, TrainableExplainer):
        raise ValueError(
            f"explainer {head.explainer!r} has nothing to train: expected a TrainableExplainer, "
            "remove it from heads in params.yaml"
        )
    explainer = methods.build(cls, backbone, head.settings)
    assert isinstance(explainer, TrainableExplainer)
    return explainer


def fit(
    explainer: TrainableExplainer, recipe: Recipe, *, seed: int, work: store.Work, label: str
) -> pd.DataFrame:
    """Train in place, from where `work` left off. Several processes share every batch.

    Returns:
        The curve, a row every `log_every` steps and at the end of an epoch: step, epoch, learning
        rate, means of the loss and its terms since the row before; after each epoch (and before
        the first) the AD at 100 % on the validation images.
    """
    train, validation = read_training(), read_split("validation")
    images = min(recipe.images or len(train), len(train))
    refuse_batch_size(recipe, images)
    steps = images // recipe.batch_size
    total = steps * recipe.epochs
    trainee = parallel.trainee(explainer)
    optimiser = build_optimiser(explainer.attention, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.max_lr, total_steps=total, cycle_momentum=False
    )
    where, scaled = explainer.backbone.device.type, recipe.precision == "float16"
    scaler = torch.amp.GradScaler(where, init_scale=LOSS_SCALE, enabled=scaled)
    parts = {"attention": explainer.attention, "optimiser": optimiser}
    parts |= {"schedule": schedule, "scaler": scaler}
    rows = resume(work.path("checkpoint.pt"), parts) or [untrained(explainer, validation)]
    done, saved, pending = int(rows[-1]["step"]), time.monotonic(), list[dict[str, Tensor]]()
    silent = processes.silent()
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
            if processes.first() and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                save(work.path("checkpoint.pt"), parts, rows)
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
    if recipe.batch_size % processes.count():
        raise ValueError(
            f"train.batch_size is {recipe.batch_size}: expected a multiple of the "
            f"{processes.count()} processes"
        )


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
        yield epoch, batch.view(processes.count(), -1)[processes.index()]


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
    """Mean Average Drop at 100 % of the pixels over a split, in per cent."""
    metric = Confidence(kept=[FULL])
    backbone = explainer.backbone
    drops = []
    for batch in processes.own(list(split.batches(batch_size))):
        images = split.images(batch).to(backbone.device)
        before = backbone.probabilities(images)
        targets = before.argmax(dim=1)
        maps = Maps(explainer(images, targets), images.shape[2:], seeds=[0] * len(images))
        masked = metric.perturb(images, maps)
        after = backbone.probabilities(masked[:, 0])
        drops.append(metric.judge(before, after[:, None], targets)[0].per_image.cpu())
    return float(torch.cat(processes.collected(drops)).mean())


def resume(path: Path, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Restore `parts` from a checkpoint; the rows of the curve so far, if any."""
    if not path.exists():
        return []
    saved = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    rows: list[dict[str, Any]] = saved["rows"]
    return rows


def save(path: Path, parts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write a checkpoint."""
    states = {name: part.state_dict() for name, part in parts.items()}
    with store.replacing(path) as beside:
        torch.save(states | {"rows": rows}, beside)


if __name__ == "__main__":
    run_shared(main, "head")
