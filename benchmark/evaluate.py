"""Score the maps of one cell: one row an image, measure and level; in both modes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import metrics
from benchmark import backbones, explain, processes, store
from benchmark.devices import in_memory
from benchmark.images import Split, read_split
from benchmark.params import Cell, Evaluate, Params
from benchmark.stage import run_shared, seed_of
from methods import Backbone
from metrics import MODES, Maps, Metric, Perturbation, Reading, Values

CHUNK = 8
"""Images scored between two points to resume from; the same for any number of processes."""

PERTURBED = 256
"""Perturbed images held at a time, unless a single image has more versions."""

Row = tuple[str, str, float | None, float]
"""Image, measure, level and value."""

KEY = ["image", "metric", "level"]
"""What a value is of."""


@dataclass(frozen=True)
class View:
    """Maps (n, h, w) of a split's first n images, and the metrics that score them in one mode."""

    mode: str
    suite: list[Metric]
    maps: NDArray[np.float32]

    def part(self, chosen: slice) -> "View":
        """The view of some of the images."""
        return View(self.mode, self.suite, self.maps[chosen])

    @property
    def perturbing(self) -> list[Perturbation]:
        """The metrics that ask the network."""
        return [metric for metric in self.suite if isinstance(metric, Perturbation)]


def main(params: Params, cell: str) -> None:
    """Write the scores of a cell of params.yaml, and what the other mode changes in them."""
    spec: Cell = params.entry("cells", cell)
    split = read_split("evaluation")
    maps = read_maps(spec, len(split), count_nan=params.explain.nan_maps == "count")
    backbone = backbones.build(spec.backbone, params.backbones[spec.backbone])
    settings = [spec, params.backbones[spec.backbone], params.explain, params.evaluate]
    work = store.Work(
        "evaluate",
        [cell, params.seed, params.mode, *settings],
        [*explain.inputs(spec), store.maps_path(spec.backbone, spec.explainer)],
    )
    other = "reference" if params.mode == "corrected" else "corrected"
    some = split.first(params.evaluate.delta_images)
    others = maps[: len(some)]
    if spec.reference:  # its explainer has other settings, and so other maps, in the other mode
        explainer = explain.assemble(params, spec, other, backbone)
        others, _ = explain.explain(
            explainer,
            some,
            params.explain,
            work,
            f"{cell} ({other})",
            precision=spec.precision,
        )

    def view(mode: str, maps: NDArray[np.float32]) -> View:
        suite = build_suite(params.evaluate, mode, backbone, trained=cell in params.heads)
        return View(mode, [m for m in suite if mode == params.mode or m.in_reference], maps)

    views = [view(params.mode, maps), view(other, others)]
    seeds = image_seeds(params.seed, split)
    size = params.evaluate.batch_size
    if params.evaluate.compile:
        backbone.network.compile()
    scores, changed = evaluate(views, backbone, split, seeds, size, work, cell)
    if processes.first():
        names = spec.backbone, spec.explainer
        write(store.scores_path(*names), scores, *names)
        write(store.delta_path(*names), difference(scores, changed, params.mode, other), *names)
    work.done()


def write(path: Path, table: pd.DataFrame, backbone: str, explainer: str) -> None:
    """Write a table of one cell, with the names of the cell in front."""
    names = {"backbone": backbone, "explainer": explainer}
    store.write_csv(path, table.assign(**names)[[*names, *table.columns]])


def read_maps(cell: Cell, images: int, *, count_nan: bool) -> NDArray[np.float32]:
    """The maps of a cell.

    Raises:
        ValueError: missing, damaged, or not what `refuse_bad_maps` expects.
    """
    path = store.maps_path(cell.backbone, cell.explainer)
    maps = store.read_array(path)
    refuse_bad_maps(maps, images, str(path), count_nan=count_nan)
    return maps


def refuse_bad_maps(
    maps: NDArray[np.float32], images: int, source: str, *, count_nan: bool
) -> None:
    """Refuse maps that are not one finite map an image, or let those with NaN be counted.

    Raises:
        ValueError: names the file, the value and what was expected.
    """
    if maps.ndim != 3 or len(maps) != images:
        raise ValueError(f"{source} has shape {maps.shape}: expected ({images}, h, w)")
    bad = ~np.isfinite(maps).all(axis=(1, 2))
    if bad.any() and not count_nan:
        raise ValueError(
            f"{source}: {int(bad.sum())} of {images} maps hold NaN or infinite values, the first "
            f"is map {int(bad.argmax())}: expected finite values, run `dvc repro` to make them "
            "anew, or set explain.nan_maps to count"
        )
    good = maps[~bad]
    if good.size and (good.min() < 0 or good.max() > 1):
        raise ValueError(f"{source} ranges from {good.min()} to {good.max()}: expected [0, 1]")


def image_seeds(seed: int, split: Split) -> list[int]:
    """The seed of each image of a split for ties and noise; from its id alone."""
    return [seed_of(seed, "evaluate", image) for image in split.ids]


def build_suite(
    settings: Evaluate, mode: str, backbone: Backbone, *, trained: bool
) -> list[Metric]:
    """The metrics of params.yaml in a mode; in `reference` those its code has.

    Args:
        settings: the metrics and their settings.
        mode: `corrected` or `reference`.
        backbone: whose normalisation the reference adds ROAD's noise in.
        trained: whether the explainer is trained: on CNNs the reference adds their noise to raw
            pixels, everybody else's to normalised ones.
    """
    chosen = {
        name: given
        for name, given in settings.metrics.items()
        if mode == "corrected" or metrics.load(name).in_reference
    }
    if mode == "reference" and "road" in chosen:
        raw = trained and backbone.family == "cnn"
        chosen["road"] = chosen["road"] | reference_noise(chosen["road"], backbone, raw=raw)
    return [metrics.build(name, given) for name, given in chosen.items()]


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


def evaluate(
    views: list[View],
    backbone: Backbone,
    split: Split,
    seeds: list[int],
    batch_size: int,
    work: store.Work,
    label: str,
) -> list[pd.DataFrame]:
    """Scores of each view, with the columns image, metric, level, value, weights; see `score`.

    From where `work` left off. Several processes share the images; all of them return all scores.
    """
    chunks = list(split.batches(CHUNK))
    with tqdm(total=len(split), desc=label, unit="image", disable=processes.silent()) as progress:
        for chunk in processes.own(chunks):
            path = chunk_path(work, chunk)
            if not path.exists():
                parts = [view.part(chunk) for view in views]
                tables = score(parts, backbone, split.part(chunk), seeds[chunk], batch_size)
                store.write_json(path, [table.to_dict("list") for table in tables])
            progress.update((chunk.stop - chunk.start) * processes.count())
    processes.wait()
    saved = [store.read_json(chunk_path(work, chunk)) for chunk in chunks]
    return [joined(parts) for parts in zip(*saved, strict=True)]


def joined(parts: Sequence[dict[str, list[Any]]]) -> pd.DataFrame:
    """One table of the columns of several, see `in_order`."""
    columns = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    return in_order(pd.DataFrame(columns))


def chunk_path(work: store.Work, chunk: slice) -> Path:
    """The scores of a chunk of the images, of each view."""
    return work.path(f"scores-{chunk.start:06d}.json")


def score(
    views: list[View], backbone: Backbone, split: Split, seeds: list[int], batch_size: int
) -> list[pd.DataFrame]:
    """Scores of each view, with the columns image, metric, level, value, weights.

    The images and their perturbed versions for all metrics and views share their forward passes,
    in full batches. Nothing but the network's own rounding depends on the size of a batch, on the
    order of the images or on which of them are scored together.
    """
    count = 1 + sum(metric.versions for view in views for metric in view.perturbing)
    batches = list(split.batches(max(1, PERTURBED // count)))
    waiting: deque[list[Maps | None]] = deque()

    def versions() -> Iterator[Tensor]:
        for batch in batches:
            pixels = split.images(batch).to(backbone.device)
            seen = [maps_of(view, batch, pixels, seeds) for view in views]
            waiting.append(seen)
            yield pixels
            for view, maps in zip(views, seen, strict=True):
                if maps is not None:
                    for metric in view.perturbing:
                        yield metric.perturb(pixels[: len(maps)], maps).flatten(0, 1)

    rows: list[list[Row]] = [[] for _ in views]
    answers = probabilities(backbone, versions(), batch_size)
    for batch in batches:
        before = next(answers)
        objects = split.objects[batch].to(backbone.device)
        for view, maps, table in zip(views, waiting.popleft(), rows, strict=True):
            if maps is not None:
                own = slice(len(maps))
                found = judged(view, maps, before[own], objects[own], answers)
                table += settled(split.ids[batch][own], found, maps)
    return [as_table(own, backbone) for own in rows]


def maps_of(view: View, batch: slice, pixels: Tensor, seeds: list[int]) -> Maps | None:
    """The maps of a view in a batch of images, or None if it scores none of them."""
    maps = torch.from_numpy(view.maps[batch]).to(pixels.device)
    if not len(maps):
        return None
    return MODES[view.mode](maps, pixels.shape[2:], seeds[batch][: len(maps)])


def judged(
    view: View, maps: Maps, before: Tensor, objects: Tensor, answers: Iterator[Tensor]
) -> list[Values]:
    """What a view's metrics say of a batch; each perturbing one takes the next of `answers`."""
    targets = before.argmax(dim=1)
    found: list[Values] = []
    for metric in view.perturbing:
        found += metric.judge(before, next(answers).unflatten(0, (len(before), -1)), targets)
    for reading in view.suite:
        found += reading.read(maps, objects) if isinstance(reading, Reading) else []
    return found


def settled(images: list[str], found: list[Values], maps: Maps) -> list[Row]:
    """Values of images as rows."""
    return [
        (image, values.measure, values.level, value)
        for values in found
        for image, value in zip(images, maps.settle(values.per_image).tolist(), strict=True)
    ]


def as_table(rows: list[Row], backbone: Backbone) -> pd.DataFrame:
    """Rows as a table, see `in_order`."""
    scores = pd.DataFrame(rows, columns=["image", "metric", "level", "value"])
    return in_order(scores.assign(weights=backbone.digest[:12]))


def in_order(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores in the order of image, metric and level."""
    return scores.sort_values(KEY, kind="stable", ignore_index=True)


def probabilities(backbone: Backbone, parts: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Class probabilities (n, K) of each of `parts` (n, 3, H, W), one part after the other.

    Batches are full: they go on from one part to the next. A part is yielded as soon as all of
    it has been through the network.
    """
    lengths: deque[int] = deque()
    answered: list[Tensor] = []

    def finished() -> Iterator[Tensor]:
        while lengths and lengths[0] <= sum(map(len, answered)):
            done, rest = torch.cat(answered).tensor_split([lengths.popleft()])
            answered[:] = [rest]
            yield done

    for batch in full_batches(parts, batch_size, lengths):
        answered.append(in_memory(backbone.probabilities, batch))
        yield from finished()
    yield from finished()


def full_batches(parts: Iterable[Tensor], batch_size: int, lengths: deque[int]) -> Iterator[Tensor]:
    """The rows of `parts` in batches of `batch_size`, the last as it comes.

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
                yield torch.cat(rest) if len(rest) > 1 else piece
                rest = []
    if rest:
        yield torch.cat(rest)


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
    joined = own.merge(scores, on=KEY, how="outer", suffixes=("_own", "_other"), indicator=True)
    if (joined["_merge"] != "both").any():
        lone = joined[joined["_merge"] != "both"].iloc[0]
        raise ValueError(
            f"{lone['metric']} at {lone['level']} of image {lone['image']} has a score in one mode "
            "only: expected the same images, measures and levels, run `dvc repro`"
        )
    joined = joined.rename(columns={"value_own": mode, "value_other": other})
    joined["delta"] = joined["reference"] - joined["corrected"]
    joined["changed"] = 100.0 * (joined["delta"].abs() > 1e-3)
    columns = ["corrected", "reference", "delta", "changed"]
    groups = joined.groupby(["metric", "level"], sort=True)
    return groups[columns].mean().assign(n=groups.size()).reset_index()


if __name__ == "__main__":
    run_shared(main, "cell")
