"""List the held-out compositions whose object the classifier names.

The list, recognised.csv, is in the repository: what it holds depends on no processor, and composing
needs no network. `make recognised` renews the part of it that is of the seed and the size of
params.yaml, in a few minutes; how many are listed is COUNTS.
"""

from collections.abc import Iterator
from itertools import compress, count, islice
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from benchmark.core import results
from benchmark.core.params import Compositions, Params, refuse_unknown
from benchmark.core.stage import run
from benchmark.data.compositions import RECOGNISED, Cutout, compose_split, load_cutouts
from methods import Backbone, build_backbone

HERE = Path(__file__).parent
CLASSIFIER = "efficientnet_lite0"
COUNTS = {"validation": 500, "evaluation": 1000}
BATCH = 32
TRIES = 20
"""Compositions tried for each that is wanted before the classifier is held to be wrong."""


def main(params: Params) -> None:
    """Write recognised.csv.

    Raises:
        ValueError: the images are no compositions, or the classifier hardly ever names the object.
    """
    if not isinstance(params.images, Compositions):
        raise ValueError("images.source is photographs: expected compositions")
    refuse_unknown("backbones: the classifier", [CLASSIFIER], params.backbones)
    classifier = build_backbone(CLASSIFIER, **params.backbones[CLASSIFIER].spec)
    cutouts, size = load_cutouts(HERE), params.images.size
    rows = []
    for split, wanted in COUNTS.items():
        tried = recognised(split, cutouts, classifier, params.seed, size, TRIES * wanted)
        numbers = list(islice(tqdm(tried, desc=split, total=wanted, disable=None), wanted))
        if len(numbers) < wanted:
            raise ValueError(
                f"{CLASSIFIER} names the object on {len(numbers)} of {TRIES * wanted} "
                f"compositions: expected {wanted}, check its weights and preprocessing"
            )
        rows += [(split, params.seed, size, number) for number in numbers]
    table = pd.DataFrame(rows, columns=["split", "seed", "size", "number"])
    if (HERE / RECOGNISED).exists():
        before = pd.read_csv(HERE / RECOGNISED)
        others = (before["seed"] != params.seed) | (before["size"] != size)
        table = pd.concat([before[others], table], ignore_index=True)
    results.write_csv(HERE / RECOGNISED, table)


def recognised(
    split: str, cutouts: list[Cutout], classifier: Backbone, seed: int, size: int, tries: int
) -> Iterator[int]:
    """The numbers of the compositions of a split whose object the classifier names, in order.

    Args:
        split: its name.
        cutouts: the objects.
        classifier: a backbone.
        seed: of the compositions.
        size: of the images, in pixels.
        tries: how many compositions are tried.
    """
    for start in count(0, BATCH):
        numbers = range(start, min(start + BATCH, tries))
        if not numbers:
            return
        made = compose_split(split, numbers, cutouts, seed, size)
        named = classifier.predict(made.images(slice(None))) == made.labels
        yield from compress(numbers, named.tolist())


if __name__ == "__main__":
    run(main)
