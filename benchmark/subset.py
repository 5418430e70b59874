"""Compose the images of the sample: training, validation and evaluation."""

from collections import Counter
from collections.abc import Iterator
from typing import Never

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmark import backbones
from benchmark.compose import Composition, Cutout, compose, load_cutouts
from benchmark.images import Split, as_pixels, write_split
from benchmark.params import Params, given
from benchmark.stage import run, seed_of
from methods import Backbone

CANDIDATES = 32
"""Compositions made and classified at a time."""

MAX_TRIES = 20
"""Compositions tried for each image wanted before a classifier is held to be wrong."""


def main(params: Params) -> None:
    """Write the three splits of the sample."""
    sample = given(params.subset, "subset")
    cutouts = load_cutouts(sample.cutouts)
    spec = params.backbones[sample.classifier]
    classifier = backbones.build(sample.classifier, spec)
    counts = {
        "train": sample.images.train,
        "validation": sample.images.validation,
        "evaluation": sample.images.evaluation,
    }
    splits = {}
    with tqdm(total=sum(counts.values()), desc="subset", unit="image", disable=None) as progress:
        for name, count in counts.items():
            splits[name] = make_split(
                name,
                count,
                cutouts,
                classifier,
                seed=params.seed,
                size=sample.size,
                progress=progress,
            )
    refuse_repeats(splits)
    for name, split in splits.items():
        write_split(name, split)


def make_split(
    name: str,
    count: int,
    cutouts: list[Cutout],
    classifier: Backbone,
    *,
    seed: int,
    size: int,
    progress: "tqdm[Never]",
) -> Split:
    """The first `count` compositions of a split.

    Held-out splits take only compositions whose object the classifier names; training takes all.

    Raises:
        ValueError: the classifier hardly ever names the object.
    """
    compositions = candidates(name, cutouts, seed, size)
    rows: list[dict[str, object]] = []
    kept: list[Composition] = []
    tried = 0
    while len(kept) < count:
        if tried >= MAX_TRIES * count:
            raise ValueError(
                f"{classifier.name} names the object on {len(kept)} of {tried} compositions: "
                f"expected {count} for {name}, check its weights and preprocessing"
            )
        tried += CANDIDATES
        block = [next(compositions) for _ in range(CANDIDATES)]
        pixels = torch.from_numpy(np.stack([c.pixels for _, c in block]))
        scores = classifier.probabilities(as_pixels(pixels).to(classifier.device)).cpu()
        for (index, composition), score in zip(block, scores, strict=True):
            prediction = int(score.argmax())
            wrong = prediction != composition.class_index
            if (name != "train" and wrong) or len(kept) == count:
                continue
            kept.append(composition)
            rows.append(
                {"id": f"{name}-{index:05d}"}
                | composition.provenance()
                | {"prediction": prediction, "confidence": float(score.max())}
            )
            progress.update()
    return Split(
        table=pd.DataFrame(rows),
        pixels=torch.from_numpy(np.stack([c.pixels for c in kept])),
        objects=torch.from_numpy(np.stack([c.mask for c in kept])),
        labels=torch.tensor([c.class_index for c in kept]),
    )


def candidates(
    name: str, cutouts: list[Cutout], seed: int, size: int
) -> Iterator[tuple[int, Composition]]:
    """Endless compositions of a split, numbered: every object once, in a new order, again."""
    index = 0
    while True:
        order = np.random.default_rng(seed_of(seed, name, "order", index))
        for which in order.permutation(len(cutouts)):
            rng = np.random.default_rng(seed_of(seed, name, index))
            yield index, compose(cutouts[which], rng, size)
            index += 1


def refuse_repeats(splits: dict[str, Split]) -> None:
    """Refuse a composition that stands in two places.

    Raises:
        ValueError: names one.
    """
    seen = Counter(image.numpy().tobytes() for split in splits.values() for image in split.pixels)
    repeated = sum(count - 1 for count in seen.values())
    if repeated:
        raise ValueError(f"{repeated} compositions occur twice: expected none, change the seed")


if __name__ == "__main__":
    run(main)
