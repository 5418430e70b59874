"""Score maps: one row an image, measure and level; in one mode or in both."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import metrics
from benchmark.data.seeds import seed_of
from benchmark.data.splits import Split
from benchmark.engine.devices import in_memory
from methods import Backbone, Choice, choose_targets
from metrics import MODES, Maps, Metric, Values

PERTURBED = 64
"""Perturbed images made at a time, unless a single image has more versions; a batch of the network
may join several such. Also how many maps are checked at a time."""

Row = tuple[str, str, float | None, float]
"""Image, measure, level and value."""

VALUE = ["image", "metric", "level"]
"""What a value is of."""


@dataclass(frozen=True)
class View:
    """Maps (n, h, w) of a split's first n images, and the metrics that score them in one mode."""

    mode: str
    suite: list[Metric]
    maps: NDArray[np.float32]


def refuse_bad_maps(
    maps: NDArray[np.float32], images: int, source: str, *, count_nan: bool
) -> None:
    """Refuse maps that are not one finite map an image, or let those with NaN be counted.

    Raises:
        ValueError: names the file, the value and what was expected.
    """
    if maps.ndim != 3 or len(maps) != images:
        raise ValueError(f"{source} has shape {maps.shape}: expected ({images}, h, w)")
    bad = np.empty(images, np.bool_)
    low, high = np.inf, -np.inf
    for start in range(0, images, PERTURBED):
        own = slice(start, start + PERTURBED)
        bad[own] = ~np.isfinite(maps[own]).all(axis=(1, 2))
        good = maps[own][~bad[own]]
        low, high = float(good.min(initial=low)), float(good.max(initial=high))
    if bad.any() and not count_nan:
        raise ValueError(
            f"{source}: {int(bad.sum())} of {images} maps hold NaN or infinite values, the first "
            f"is map {int(bad.argmax())}: expected finite values, or explain.nan_maps: count"
        )
    if low < 0 or high > 1:
        raise ValueError(f"{source} ranges from {low:.3g} to {high:.3g}: expected [0, 1]")


def image_seeds(seed: int, split: Split) -> list[int]:
    """The seed of each image of a split for ties and noise; from its id alone."""
    return [seed_of(seed, "evaluate", image) for image in split.ids]


def build_suite(
    settings: dict[str, dict[str, Any]], mode: str, backbone: Backbone, *, trained: bool
) -> list[Metric]:
    """Metrics in a mode; in `reference` those that its code has.

    Args:
        settings: of each metric, by its name.
        mode: `corrected` or `reference`.
        backbone: whose normalisation the reference adds ROAD's noise in.
        trained: whether the explainer is trained: on CNNs the reference adds their noise to raw
            pixels, everybody else's to normalised ones.
    """
    chosen = {
        name: given
        for name, given in settings.items()
        if mode == "corrected" or metrics.load(name).in_reference
    }
    if mode == "reference" and "road" in chosen:
        raw = trained and backbone.family == "cnn"
        chosen["road"] = chosen["road"] | reference_noise(chosen["road"], backbone, raw=raw)
    return [metrics.build(name, given) for name, given in chosen.items()]


def views_of(
    suites: dict[str, tuple[dict[str, Any], int]],
    mode: str,
    backbone: Backbone,
    maps: NDArray[np.float32],
    *,
    trained: bool,
) -> list[View]:
    """Views in a mode, one for the metrics that score the same number of maps.

    Args:
        suites: the settings of each metric by its name, and how many maps it scores, the first.
        mode: see `build_suite`.
        backbone: see `build_suite`.
        maps: (n, h, w).
        trained: see `build_suite`.
    """
    views = []
    for count in sorted({number for _, number in suites.values()}, reverse=True):
        settings = {name: own for name, (own, number) in suites.items() if number == count}
        suite = build_suite(settings, mode, backbone, trained=trained)
        views.append(View(mode, suite, maps[:count]))
    return views


def reference_noise(road: dict[str, Any], backbone: Backbone, *, raw: bool) -> dict[str, Any]:
    """ROAD's noise and its empty image as in the reference, in pixels of [0, 1].

    There an image without any known pixel is zero before the noise: black in raw pixels, the mean
    colour in normalised ones.
    """
    if raw:
        return {"empty": 0.0}
    std = backbone.std.flatten().tolist()
    return {
        "noise": [road.get("noise", 0.01) * s for s in std],
        "empty": backbone.mean.flatten().tolist(),
    }


@dataclass(frozen=True)
class Predicted:
    """Images, and what a backbone says of them: the same for all maps that are scored on it.

    Attributes:
        split: the images.
        before: (N, K), the probabilities of each, before anything is done to it.
    """

    split: Split
    before: Tensor

    def part(self, chosen: slice) -> "Predicted":
        """Some of the images, and what is said of them."""
        return Predicted(self.split.part(chosen), self.before[chosen])


def predict(backbone: Backbone, split: Split, batch_size: int) -> Predicted:
    """What a backbone says of images, so many at a time; the probabilities lie in a file.

    Each of several processes asks for itself.
    """
    parts = (split.images(block).to(backbone.device) for block in split.batches(batch_size))
    answers = metrics.answers_of(partial(in_memory, backbone.probabilities), parts, batch_size)
    with TemporaryFile(dir=Path.cwd()) as file:
        shape = len(split), backbone.classes
        before = np.memmap(file, np.float32, "w+", shape=shape)
        for block, answer in zip(split.batches(batch_size), answers, strict=True):
            before[block] = answer.cpu().numpy()
    return Predicted(split, torch.from_numpy(before))


def blocks(split: Split, views: Sequence[View], name: str = "scores") -> dict[str, slice]:
    """The images scored at a time, by the names of their pieces."""
    count = sum(metric.versions for view in views for metric in metrics.perturbing(view.suite))
    size = max(1, PERTURBED // max(1, count))
    return {f"{name}-{block.start:06d}": block for block in split.batches(size)}


class Keeping(Protocol):
    """Where the pieces of unfinished work are kept; see core.store.Unfinished."""

    def streamed(
        self,
        items: Mapping[str, slice],
        compute: Callable[[Mapping[str, slice]], Iterable[dict[str, Any]]],
        unit: str,
    ) -> Sequence[dict[str, Any]]:
        """What `compute` yields for each item that is to do; what was computed before is read."""


def score(
    views: list[View],
    backbone: Backbone,
    images: Predicted,
    work: Keeping,
    *,
    seed: int,
    batch_size: int,
    target: Choice = "predicted",
    name: str = "scores",
) -> list[pd.DataFrame]:
    """Scores of each view, from where `work` left off.

    Args:
        views: maps and metrics.
        backbone: that is asked.
        images: with what it says of them, see `predict`.
        work: where finished blocks are kept.
        seed: of ties and noise, see `image_seeds`.
        batch_size: images through the network at a time.
        target: which class was explained; measures of agreement are left out of others than the
            predicted one.
        name: of the blocks.

    Returns:
        a table a view, with the columns image, metric, level, value, weights.
    """
    seeds = image_seeds(seed, images.split)
    streamed = work.streamed(
        blocks(images.split, views, name),
        lambda todo: score_blocks(
            views, backbone, images, seeds, batch_size, target, todo.values()
        ),
        "block",
    )
    pieces = list(streamed)
    return [joined_scores(pieces, backbone, number) for number in range(len(views))]


def score_blocks(
    views: list[View],
    backbone: Backbone,
    images: Predicted,
    seeds: list[int],
    batch_size: int,
    target: Choice,
    chosen: Iterable[slice],
) -> Iterator[dict[str, Any]]:
    """Scores of each view, block after block of the images.

    The perturbed versions of the images for all metrics and views share their forward passes, in
    batches of one size: nothing depends on which images, metrics or views are scored together.

    Args:
        views: maps and metrics.
        backbone: that is asked.
        images: all of them, see `predict`.
        seeds: of all images, see `image_seeds`.
        batch_size: images through the network at a time.
        target: which class was explained, see `score`.
        chosen: blocks of the images, see `blocks`.

    Returns:
        the columns of `joined_scores` for each block, their names after the number of the view.
    """
    split, todo = images.split, list(chosen)
    looked = Looked(views, split, seeds, backbone.device)
    answers = metrics.answers_of(
        partial(in_memory, backbone.probabilities), looked.versions(todo), batch_size
    )
    for block in todo:
        _, every = looked.at(block)
        before = images.before[block].to(backbone.device)
        objects = split.objects[block].to(backbone.device)
        targets = choose_targets(before, target, split.labels[block])
        found: dict[str, Any] = {}
        for number, (view, maps) in enumerate(zip(views, every, strict=True)):
            rows: list[Row] = []
            if maps is not None:
                own = slice(len(maps))
                batch = maps, before[own], targets[own], objects[own], answers
                values = without_agreement(metrics.read_values(view.suite, *batch), target)
                rows = as_rows(split.ids[block][own], values)
            found |= as_columns(rows, number)
        looked.forget(block)
        yield found


class Looked:
    """Blocks of images with the maps of each view, which are made once and kept until forgotten."""

    def __init__(
        self, views: Sequence[View], split: Split, seeds: Sequence[int], device: torch.device
    ) -> None:
        self._views, self._split, self._seeds, self._device = views, split, seeds, device
        self._known: dict[int, tuple[Tensor, list[Maps | None]]] = {}

    def at(self, block: slice) -> tuple[Tensor, list[Maps | None]]:
        """The pixels (n, 3, H, W) of a block, and the maps of each view, see `maps_of`."""
        if block.start not in self._known:
            pixels = self._split.images(block).to(self._device)
            maps = [maps_of(view, block, pixels, self._seeds) for view in self._views]
            self._known[block.start] = pixels, maps
        return self._known[block.start]

    def forget(self, block: slice) -> None:
        """Do not keep a block any longer."""
        del self._known[block.start]

    def versions(self, blocks: Iterable[slice]) -> Iterator[Tensor]:
        """The perturbed images for each metric of each view, block after block that has any."""
        for block in blocks:
            asked = [bool(metrics.perturbing(v.suite)) and len(v.maps[block]) for v in self._views]
            pixels, every = self.at(block) if any(asked) else (torch.empty(0), [])
            for view, maps in zip(self._views, every, strict=False):
                if maps is not None:
                    for metric in metrics.perturbing(view.suite):
                        yield metric.perturb(pixels[: len(maps)], maps).flatten(0, 1)


def maps_of(view: View, batch: slice, pixels: Tensor, seeds: Sequence[int]) -> Maps | None:
    """The maps of a view in a batch of images, or None if it scores none of them."""
    maps = torch.from_numpy(np.array(view.maps[batch])).to(pixels.device)
    if not len(maps):
        return None
    return MODES[view.mode](maps, pixels.shape[2:], seeds[batch][: len(maps)])


def without_agreement(found: list[Values], target: Choice) -> list[Values]:
    """Values without measures of agreement, unless the explained class is the predicted one."""
    known = metrics.measures()
    return [v for v in found if target == "predicted" or not known[v.measure].agreement]


def as_rows(images: list[str], found: list[Values]) -> list[Row]:
    """Values of images as rows."""
    return [
        (image, values.measure, values.level, value)
        for values in found
        for image, value in zip(images, values.per_image.tolist(), strict=True)
    ]


COLUMNS = {"image": str, "metric": str, "level": np.float64, "value": np.float64}
"""The columns of scores, with their types."""


def as_columns(rows: list[Row], number: int) -> dict[str, NDArray[Any]]:
    """Rows of the view `number` as arrays."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    return {
        f"{number} {name}": np.array(list(values), dtype)
        for (name, dtype), values in zip(COLUMNS.items(), columns, strict=True)
    }


def joined_scores(
    pieces: Sequence[dict[str, Any]], backbone: Backbone, number: int = 0
) -> pd.DataFrame:
    """The scores of the view `number`, with the columns image, metric, level, value, weights."""
    columns = {
        name: np.concatenate([piece[f"{number} {name}"] for piece in pieces]) for name in COLUMNS
    }
    return in_order(pd.DataFrame(columns).assign(weights=backbone.digest[:12]))


def in_order(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores in the order of image, metric and level."""
    return scores.sort_values(VALUE, kind="stable", ignore_index=True)


def difference(stored: pd.DataFrame, scores: pd.DataFrame, mode: str, other: str) -> pd.DataFrame:
    """Means of both modes over the images that have scores in both, by measure and level.

    Args:
        stored: per-image scores.
        scores: per-image scores of the same images, or of some of them, in the other mode.
        mode: of `stored`.
        other: of `scores`.

    Returns:
        columns metric, level, corrected, reference, delta (reference - corrected), changed (per
        cent of the images whose value differs by more than rounding) and n.

    Raises:
        ValueError: the images, measures or levels of the two are not the same.
    """
    own = stored[
        stored["metric"].isin(set(scores["metric"])) & stored["image"].isin(set(scores["image"]))
    ]
    both = own.merge(scores, on=VALUE, how="outer", suffixes=("_own", "_other"), indicator=True)
    if (both["_merge"] != "both").any():
        lone = both[both["_merge"] != "both"].iloc[0]
        raise ValueError(
            f"{lone['metric']} at {lone['level']} of image {lone['image']} has a score in one mode "
            "only: expected the same images, measures and levels, run `dvc repro`"
        )
    both = both.rename(columns={"value_own": mode, "value_other": other})
    both["delta"] = both["reference"] - both["corrected"]
    both["changed"] = 100.0 * (both["delta"].abs() > 1e-3)
    columns = ["corrected", "reference", "delta", "changed"]
    groups = both.groupby(["metric", "level"], sort=True)
    return groups[columns].mean().assign(n=groups.size()).reset_index()
