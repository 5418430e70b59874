"""Train a trainable explainer on a backbone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

import methods
from benchmark import backbones, store
from benchmark.images import Split, read_split
from benchmark.params import Head, Params, Recipe
from benchmark.stage import run, seed_of
from methods import TrainableExplainer
from metrics import Maps
from metrics.confidence import Confidence

CHECKPOINT_STEPS = 8
"""Steps between two points to resume from."""

FULL = 100.0
"""The level of the validation AD: all pixels kept."""


def main(params: Params, head: str) -> None:
    """Train the head `head` of params.yaml; write its state and its training curve."""
    spec: Head = params.entry("heads", head)
    explainer = build(params, spec)
    work = store.Work(
        "train",
        [head, params.seed, spec, params.backbones[spec.backbone], params.train],
        [store.split_path("train"), store.split_path("validation")],
    )
    curve = fit(explainer, params.train, seed=params.seed, work=work, label=head)
    with store.replacing(store.state_path(spec.backbone, spec.explainer)) as beside:
        save_file(explainer.attention.state_dict(), beside)
    store.write_csv(store.curve_path(spec.backbone, spec.explainer), curve)
    work.done()


def build(params: Params, head: Head) -> TrainableExplainer:
    """The untrained explainer of a head.

    Raises:
        ValueError: the explainer has nothing to train.
    """
    cls = methods.load(head.explainer)
    if not issubclass(cls, TrainableExplainer):
        raise ValueError(
            f"explainer {head.explainer!r} has nothing to train: expected a TrainableExplainer, "
            "remove it from heads in params.yaml"
        )
    backbone = backbones.build(head.backbone, params.backbones[head.backbone])
    explainer = methods.build(cls, backbone, head.settings)
    assert isinstance(explainer, TrainableExplainer)
    return explainer


def fit(
    explainer: TrainableExplainer, recipe: Recipe, *, seed: int, work: store.Work, label: str
) -> pd.DataFrame:
    """Train in place, from where `work` left off.

    Returns:
        The curve, one row a step: step, epoch, learning rate, the loss and its terms, and after
        each epoch (and before the first) the AD at 100 % on the validation images.
    """
    train, validation = read_split("train"), read_split("validation")
    images = min(recipe.images or len(train), len(train))
    steps = images // recipe.batch_size
    if steps == 0:
        raise ValueError(
            f"train.batch_size is {recipe.batch_size}: expected at most the {images} "
            "training images"
        )
    optimiser = sgd(explainer.attention, recipe)
    total = steps * recipe.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.max_lr, total_steps=total, cycle_momentum=False
    )
    parts = {"attention": explainer.attention, "optimiser": optimiser, "schedule": schedule}
    rows = resume(work.path("checkpoint.pt"), parts)
    if not rows:
        rows = [{"step": 0, "epoch": 0, "validation_ad": validation_drop(explainer, validation)}]
    progress = tqdm(total=total, initial=len(rows) - 1, desc=label, unit="step", disable=None)
    with progress:
        for batch in batches(images, recipe, seed, skip=len(rows) - 1):
            row: dict[str, Any] = {"step": len(rows), "epoch": len(rows) / steps}
            row |= {"learning_rate": schedule.get_last_lr()[0]}
            row |= step(explainer, optimiser, train.images(batch))
            schedule.step()
            if len(rows) % steps == 0:
                row["validation_ad"] = validation_drop(explainer, validation)
            rows.append(row)
            if len(rows) % CHECKPOINT_STEPS == 0:
                save(work.path("checkpoint.pt"), parts, rows)
            progress.update()
            progress.set_postfix(loss=f"{row['loss']:.3f}")
    return pd.DataFrame(rows)


def sgd(attention: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay on weights, none on biases and batch norms."""
    weights = [p for p in attention.parameters() if p.ndim > 1]
    others = [p for p in attention.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.max_lr, momentum=recipe.momentum, nesterov=nesterov)


def batches(images: int, recipe: Recipe, seed: int, skip: int) -> Iterator[Tensor]:
    """Indices of every batch of every epoch but the first `skip`; a short last batch is dropped."""
    steps = images // recipe.batch_size
    for epoch in range(recipe.epochs):
        order = np.random.default_rng(seed_of(seed, "train", epoch)).permutation(images)
        for at in range(steps):
            if epoch * steps + at >= skip:
                start = at * recipe.batch_size
                yield torch.from_numpy(order[start : start + recipe.batch_size])


def step(
    explainer: TrainableExplainer, optimiser: torch.optim.Optimizer, images: Tensor
) -> dict[str, float]:
    """One step on a batch of images in [0, 1].

    Returns:
        The loss and its terms.

    Raises:
        ValueError: the loss is NaN or infinite.
    """
    explainer.attention.train()
    losses = explainer.losses(images.to(explainer.backbone.device))
    optimiser.zero_grad()
    losses["loss"].backward()
    optimiser.step()
    explainer.attention.eval()
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not np.isfinite(values["loss"]):
        raise ValueError(f"training diverged, the loss is {values['loss']}: lower train.max_lr")
    return values


def validation_drop(explainer: TrainableExplainer, split: Split, batch_size: int = 32) -> float:
    """Mean Average Drop at 100 % of the pixels over a split, in per cent."""
    metric = Confidence(kept=[FULL])
    backbone = explainer.backbone
    drops = []
    for batch in split.batches(batch_size):
        images = split.images(batch).to(backbone.device)
        before = backbone.probabilities(images)
        targets = before.argmax(dim=1)
        maps = Maps(explainer(images, targets), images.shape[2:], seeds=[0] * len(images))
        masked = metric.perturb(images, maps)
        after = backbone.probabilities(masked[:, 0])
        drops.append(metric.judge(before, after[:, None], targets)[0].per_image)
    return float(torch.cat(drops).mean())


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
    run(main, "head")
