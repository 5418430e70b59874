"""Run an explainer over images, and count what that takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import methods
from benchmark.data.splits import Split
from benchmark.engine.devices import autocast, in_memory
from benchmark.engine.recipe import Precision
from methods import Backbone, Choice, Explainer, TrainableExplainer, check_maps, choose_targets


def assemble(
    name: str, backbone: Backbone, settings: dict[str, Any], state: Path | None = None
) -> Explainer:
    """An explainer on a backbone, with its trained state if it has one.

    Somebody's own gets a copy of the backbone, which it may alter.

    Args:
        name: of methods/, or package.module:Class.
        backbone: that it explains.
        settings: the keyword arguments of its constructor.
        state: the file of its trained state; of a trainable explainer only.

    Raises:
        ValueError: an unknown explainer or setting, a state that does not fit.
    """
    own = backbone.alterable() if ":" in name else backbone
    explainer = methods.build(methods.load(name), own, settings)
    if isinstance(explainer, TrainableExplainer) and state is not None:
        explainer.load_state(state)
    return explainer


def choose(
    backbone: Backbone, split: Split, batch_size: int, target: Choice
) -> tuple[torch.Tensor, torch.Tensor]:
    """The explained class (N,) of each image, before an explainer has seen it.

    Returns:
        the classes, and their probabilities (N,).
    """
    targets = torch.empty(len(split), dtype=torch.int64, device=backbone.device)
    probabilities = torch.empty(len(split), device=backbone.device)
    for batch in split.batches(batch_size):
        found = backbone.probabilities(split.images(batch).to(backbone.device))
        targets[batch] = choose_targets(found, target, split.labels[batch])
        probabilities[batch] = found.gather(1, targets[batch, None])[:, 0]
    return targets, probabilities


class Keeping(Protocol):
    """Where the pieces of unfinished work are kept; see core.store.Unfinished."""

    def pieces(
        self, items: Mapping[str, slice], compute: Callable[[slice], dict[str, Any]]
    ) -> Sequence[dict[str, Any]]:
        """What `compute` makes of each item; what was computed before is read."""


def explain(
    explainer: Explainer,
    split: Split,
    targets: torch.Tensor,
    work: Keeping,
    *,
    batch_size: int,
    count_nan: bool,
    count_unseen: bool = False,
    precision: Precision = "float32",
    name: str = "maps",
) -> Sequence[dict[str, Any]]:
    """Explain every image of a split, from where `work` left off.

    Args:
        explainer: the explainer.
        split: the images.
        targets: (N,), the explained classes, see `choose`.
        work: where finished batches are kept.
        batch_size: images at a time.
        count_nan: see `explain_batch`.
        count_unseen: see there.
        precision: see `explain_batch`.
        name: of the pieces.

    Returns:
        what `explain_batch` gives of each batch; see `joined_maps` and `cost_of`.
    """

    def compute(batch: slice) -> dict[str, Any]:
        return explain_batch(
            explainer,
            split.images(batch),
            targets[batch],
            count_nan=count_nan,
            count_unseen=count_unseen,
            precision=precision,
        )

    named = {f"{name}-{batch.start:06d}": batch for batch in split.batches(batch_size)}
    return work.pieces(named, compute)


def explain_batch(
    explainer: Explainer,
    images: torch.Tensor,
    targets: torch.Tensor | None = None,
    *,
    count_nan: bool,
    count_unseen: bool = False,
    precision: Precision = "float32",
) -> dict[str, Any]:
    """Maps of a batch, with their cost; refuses maps that break a promise.

    Args:
        explainer: the explainer.
        images: (B, 3, H, W) in [0, 1].
        targets: (B,), the explained classes; the backbone's predictions if None.
        count_nan: let NaN and infinite values pass, for evaluate to count.
        count_unseen: let classes pass that a trained explainer never saw, see TrainableExplainer.
        precision: of the explainer's forward passes.

    Returns:
        `maps` (B, h, w); the images that went `forward` and `backward` for them, and the `seconds`;
        of a trained explainer that knows, whether the class of each is `unseen` (B,).
    """
    backbone = explainer.backbone
    images = images.to(backbone.device)
    targets = backbone.predict(images) if targets is None else targets.to(backbone.device)
    counted: dict[str, Any] = {}
    if isinstance(explainer, TrainableExplainer):
        explainer.allows_unseen = count_unseen
        if explainer.class_counts is not None:
            counted["unseen"] = explainer.unseen(targets).cpu().numpy()
    before = backbone.passes.forward, backbone.passes.backward
    start = time.perf_counter()
    with autocast(backbone.device, precision), methods.failing_in_one_line(type(explainer)):
        maps = in_memory(explainer, images, targets)
    methods.check_tensor(maps)
    array = maps.cpu().numpy()
    seconds = time.perf_counter() - start
    check_maps(maps.nan_to_num(0.0, 0.0, 0.0) if count_nan else maps, images)
    return {
        "maps": array,
        "forward": backbone.passes.forward - before[0],
        "backward": backbone.passes.backward - before[1],
        "seconds": seconds,
    } | counted


def joined_maps(pieces: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
    """The maps (N, h, w) of batches."""
    return np.concatenate([piece["maps"] for piece in pieces])


def unseen_images(explainer: Explainer, pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of a trained explainer, which images of the pieces are of a class that training never saw.

    Returns:
        `unseen`: the positions of the images, None if nobody counted; nothing of other explainers.
    """
    if not isinstance(explainer, TrainableExplainer):
        return {}
    if explainer.class_counts is None:
        return {"unseen": None}
    flags = np.concatenate([piece["unseen"] for piece in pieces])
    return {"unseen": np.flatnonzero(flags).tolist()}


def cost_of(explainer: Explainer, pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What an explanation costs, the same on every machine, from the batches of a cell.

    Returns:
        label and kind of the explainer; of one explanation the images through the network, forward
        and backward; how many images it is the mean of.
    """
    images = sum(len(piece["maps"]) for piece in pieces)
    return {
        "label": explainer.label,
        "kind": explainer.kind,
        "images": images,
        "images_forward": sum(int(piece["forward"]) for piece in pieces) / images,
        "images_backward": sum(int(piece["backward"]) for piece in pieces) / images,
    }
