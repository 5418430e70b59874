"""Make the images of all splits: the sample's are composed, photographs are decoded."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Compositions, Params
from benchmark.core.stage import run
from benchmark.core.store import Shelf

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.data.splits import Listed, Place, Split


def main(params: Params) -> None:
    """Write the three splits, if anything they are made of has changed."""
    made = Project(params).splits()
    shelf = Shelf(results.SPLITS)
    if shelf.due([made]):
        from benchmark.data.splits import Listed, mapped

        with ExitStack() as files:

            def place(name: str, count: int, side: int) -> "dict[str, Tensor]":
                path = results.split_path(name)
                return mapped(files.enter_context(results.replacing(path)), count, side)

            splits = make_splits(params, place)
        for name, split in splits.items():
            if isinstance(split, Listed):
                results.write_tensors(results.split_path(name), split.tensors)
            results.write_csv(results.split_table_path(name), split.table)
        shelf.record([made])


def make_splits(params: Params, place: "Place") -> "dict[str, Split | Listed]":
    """The splits by name, from where the parameters say, put where `place` says."""
    from benchmark.data import compositions, photographs
    from benchmark.data.decoding import Crop

    images = params.images
    if not isinstance(images, Compositions):
        return dict(photographs.make_splits(images.folder, Crop(**images.crop), place))
    counts = {name: getattr(images, name) for name in ("train", "validation", "evaluation")}
    where = {"seed": params.seed, "size": images.size}
    return dict(compositions.make_splits(images.folder, counts, **where, place=place))


if __name__ == "__main__":
    run(main)
