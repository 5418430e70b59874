"""From maps to values: the passes that metrics share, and a table of what they say."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from metrics._base import Metric, Perturbation, Reading, Values
from metrics._maps import MODES, Maps

Predict = Callable[[Tensor], Tensor]
"""From pixels (n, 3, H, W) in [0, 1] to the probabilities (n, K) of the classes."""

SUMS_TO_ONE = 1e-3
"""How far from 1 the sum of the probabilities of an image may be."""


def score_maps(
    suite: Sequence[Metric],
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    probabilities: Predict,
    *,
    objects: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    mode: str = "corrected",
    batch_size: int = 32,
) -> pd.DataFrame:
    """See metrics.score; of metrics that are built."""
    _refuse_bad_input(maps, images, targets, mode)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1")
    if seeds is not None and len(seeds) != len(images):
        raise ValueError(f"there are {len(seeds)} seeds: expected {len(images)}, one an image")
    blank = torch.zeros_like(images[:, 0], dtype=torch.bool)
    if objects is not None and (objects.shape, objects.dtype) != (blank.shape, torch.bool):
        raise ValueError(
            f"objects are {objects.dtype} of shape {tuple(objects.shape)}: expected torch.bool of "
            f"{tuple(blank.shape)}"
        )
    seen = MODES[mode](maps.float(), images.shape[2:], seeds_of(images) if seeds is None else seeds)
    with torch.no_grad():
        answers = answers_of(probabilities, _versions(suite, images, seen), batch_size)
        before = next(answers)
        _refuse_no_probabilities(before, targets)
        found = read_values(
            suite, seen, before, targets, blank if objects is None else objects, answers
        )
    rows = [
        (image, values.measure, values.level, value)
        for values in found
        for image, value in enumerate(values.per_image.tolist())
    ]
    table = pd.DataFrame(rows, columns=["image", "metric", "level", "value"])
    return table.astype({"level": float})  # None becomes NaN


def perturbing(suite: Iterable[Metric]) -> list[Perturbation]:
    """The metrics that ask the network."""
    return [metric for metric in suite if isinstance(metric, Perturbation)]


def read_values(
    suite: Sequence[Metric],
    maps: Maps,
    before: Tensor,
    targets: Tensor,
    objects: Tensor,
    answers: Iterator[Tensor],
) -> list[Values]:
    """What metrics say of the maps of a batch.

    Args:
        suite: the metrics.
        maps: of the images.
        before: (B, K), the probabilities of the images.
        targets: (B,), the explained classes.
        objects: (B, H, W), bool, where the object of each image is.
        answers: the probabilities of the perturbed versions for each metric that asks, in order.

    Returns:
        the values; of a measure of agreement NaN where the explained class is not the predicted
        one.
    """
    found: list[Values] = []
    for asking in perturbing(suite):
        found += asking.judge(before, next(answers).unflatten(0, (len(before), -1)), targets)
    for metric in suite:
        found += metric.read(maps, objects) if isinstance(metric, Reading) else []
    agreeing = {m.name for metric in suite for m in metric.measures if m.agreement}
    named = before.argmax(dim=1) == targets
    return [
        Values(
            v.measure,
            v.level,
            maps.settle(v.per_image).where(named | (v.measure not in agreeing), torch.nan),
        )
        for v in found
    ]


def answers_of(predict: Predict, parts: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Class probabilities (n, K) of each of `parts` (n, 3, H, W), one part after the other.

    Batches go on from one part to the next. A part is yielded as soon as all of it has been through
    the network.
    """
    lengths: deque[int] = deque()
    answered: list[Tensor] = []

    def finished() -> Iterator[Tensor]:
        while lengths and lengths[0] <= sum(map(len, answered)):
            done, rest = torch.cat(answered).tensor_split([lengths.popleft()])
            answered[:] = [rest]
            yield done

    for batch, count in full_batches(parts, batch_size, lengths):
        answered.append(predict(batch)[:count])
        yield from finished()
    yield from finished()


def full_batches(
    parts: Iterable[Tensor], batch_size: int, lengths: deque[int]
) -> Iterator[tuple[Tensor, int]]:
    """The rows of `parts` in batches of `batch_size`, and how many rows of each batch count.

    The last batch is filled with its last row: a network's rounding depends on the size of a batch.
    The length of each part is appended to `lengths` when the part is taken.
    """
    rest: list[Tensor] = []
    for part in parts:
        lengths.append(len(part))
        missing = batch_size - sum(map(len, rest))
        for piece in (part[:missing], *part[missing:].split(batch_size)):
            if len(piece):
                rest.append(piece)
            if sum(map(len, rest)) == batch_size:
                yield (torch.cat(rest) if len(rest) > 1 else piece), batch_size
                rest = []
    if rest:
        last = torch.cat(rest)
        filling = last[-1:].expand(batch_size - len(last), *last.shape[1:])
        yield torch.cat([last, filling]), len(last)


def seeds_of(images: Tensor) -> list[int]:
    """A seed of 63 bits for each image (B, 3, H, W), from its pixels alone."""
    pixels = images.detach().cpu().contiguous().numpy()
    return [
        int.from_bytes(hashlib.blake2b(p.tobytes(), digest_size=8).digest()) >> 1 for p in pixels
    ]


def _versions(suite: Sequence[Metric], images: Tensor, maps: Maps) -> Iterator[Tensor]:
    """The images, and then the perturbed ones for each metric that asks."""
    yield images
    for metric in perturbing(suite):
        yield metric.perturb(images, maps).flatten(0, 1)


def _refuse_bad_input(maps: Any, images: Any, targets: Any, mode: str) -> None:
    """Refuse what cannot be scored.

    Raises:
        ValueError: names what is wrong, and what was expected.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: expected one of {', '.join(MODES)}")
    for name, given in (("maps", maps), ("images", images), ("targets", targets)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} are of type {type(given).__name__}: expected a tensor")
    good = images.dtype == torch.float32 and images.ndim == 4 and images.shape[1] == 3
    if not good or not images.numel():
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}: expected torch.float32 of "
            "(B, 3, H, W)"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(
            f"pixels range from {float(images.min()):.3g} to {float(images.max()):.3g}: expected "
            "[0, 1], and `probabilities` to normalise them itself"
        )
    where = {str(given.device) for given in (maps, images, targets)}
    if len(where) > 1:
        raise ValueError(
            f"maps, images and targets are on {', '.join(sorted(where))}: expected one device"
        )
    if maps.ndim != 3 or len(maps) != len(images) or not maps.is_floating_point():
        raise ValueError(
            f"maps are {maps.dtype} of shape {tuple(maps.shape)}: expected floats of "
            f"({len(images)}, h, w), a map an image"
        )
    if targets.shape != (len(images),) or targets.dtype != torch.int64:
        raise ValueError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}: expected torch.int64 of "
            f"({len(images)},), a class an image"
        )


def _refuse_no_probabilities(before: Tensor, targets: Tensor) -> None:
    """Refuse answers that are no probabilities, such as logits, and targets without one.

    Raises:
        ValueError: not (B, K), below 0 or not of sum 1; or a class is none of theirs.
    """
    if before.ndim != 2 or len(before) != len(targets):
        raise ValueError(
            f"`probabilities` gives {tuple(before.shape)}: expected ({len(targets)}, classes)"
        )
    outside = (targets < 0) | (targets >= before.shape[1])
    if bool(outside.any()):
        raise ValueError(
            f"class {int(targets[outside][0])} is among the targets: expected 0 to "
            f"{before.shape[1] - 1}"
        )
    sums = before.sum(dim=1)
    bad = (before < 0).any(dim=1) | ~((sums - 1).abs() <= SUMS_TO_ONE)
    if bool(bad.any()):
        first = before[bad][0]
        raise ValueError(
            f"`probabilities` gives values from {float(first.min()):.3g} on that sum to "
            f"{float(first.sum()):.3g}: expected from 0 on, of sum 1, a softmax such as "
            "Backbone.probabilities"
        )
