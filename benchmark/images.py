"""Make the images of all splits: the sample's are composed, photographs are decoded."""

from typing import TYPE_CHECKING

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Compositions, Params
from benchmark.core.stage import run
from benchmark.core.store import Shelf

if TYPE_CHECKING:
    from benchmark.data.splits import Listed, Split


def main(params: Params) -> None:
    """Write the three splits, if anything they are made of has changed."""
    made = Project(params).splits()
    shelf = Shelf(results.SPLITS)
    if shelf.due([made]):
        for name, split in make_splits(params).items():
            results.write_tensors(results.split_path(name), split.tensors)
            results.write_csv(results.split_table_path(name), split.table)
        shelf.record([made])


def make_splits(params: Params) -> "dict[str, Split | Listed]":
    """The splits by name, from where the parameters say."""
    from benchmark.data import compositions, photographs
    from benchmark.data.decoding import Crop

    images = params.images
    if not isinstance(images, Compositions):
        return dict(photographs.make_splits(images.folder, Crop(**images.crop)))
    counts = {name: getattr(images, name) for name in ("train", "validation", "evaluation")}
    return dict(compositions.make_splits(images.folder, counts, seed=params.seed, size=images.size))


if __name__ == "__main__":
    run(main)
