"""Every path and file format under results/.

Files are written beside their place and renamed, so that a file that exists is whole. Pandas and
torch are imported where they are needed: a stage with nothing to do needs neither.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core import processes

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

RESULTS = Path("results")
CHECK = RESULTS / "check.json"
SPLITS = RESULTS / "splits"
STATES = RESULTS / "states"
CURVES = RESULTS / "curves"
MAPS = RESULTS / "maps"
COST = RESULTS / "cost"
TARGETS = RESULTS / "targets"
SCORES = RESULTS / "scores"
DELTA = RESULTS / "delta"
RANDOMISATION = RESULTS / "randomisation"
ABLATION = RESULTS / "ablation"
VARIANTS = RESULTS / "variants"
TABLES = RESULTS / "tables"
SUMMARY = RESULTS / "summary.json"
PLOTS = RESULTS / "plots"
PAGE = RESULTS / "index.html"
PICTURES = RESULTS / "page"
RUNTIME = RESULTS / "runtime"
SPEED = RESULTS / "speed"
REPORTED = RESULTS / "reported"

DIGITS = 4
"""Significant digits of the value of an image: those that another processor hardly changes."""

SCORE_COLUMNS = ["backbone", "explainer", "image", "metric", "level", "value", "weights"]
"""One row an image and value. `level` is in per cent, empty for a measure without levels;
`weights` is the digest of the backbone's weights and preprocessing."""


def split_path(split: str) -> Path:
    """Pixels, masks and labels of `train`, `validation` or `evaluation`."""
    return SPLITS / f"{split}.safetensors"


def split_table_path(split: str) -> Path:
    """Id, class and provenance of each image of a split."""
    return SPLITS / f"{split}.csv"


def state_path(backbone: str, explainer: str) -> Path:
    """The trained attention mechanism."""
    return STATES / backbone / f"{explainer}.safetensors"


def curve_path(backbone: str, explainer: str) -> Path:
    """The training curve."""
    return CURVES / backbone / f"{explainer}.csv"


def maps_path(backbone: str, explainer: str) -> Path:
    """Maps (N, h, w), float32, in the order of the evaluation split."""
    return MAPS / backbone / f"{explainer}.npy"


def other_maps_path(backbone: str, explainer: str) -> Path:
    """Maps (n, h, w) of the first images in the other mode, where they are others."""
    return MAPS / backbone / f"{explainer}.other_mode.npy"


def cost_path(backbone: str, explainer: str) -> Path:
    """What the maps of a cell cost, wherever they are made: images through the network."""
    return COST / backbone / f"{explainer}.json"


def targets_path(backbone: str) -> Path:
    """The explained class of each evaluation image: index, name and probability, in per cent."""
    return TARGETS / f"{backbone}.csv"


def scores_path(backbone: str, explainer: str) -> Path:
    """The per-image scores of a cell."""
    return SCORES / backbone / f"{explainer}.csv"


def delta_path(backbone: str, explainer: str) -> Path:
    """What the mode `reference` changes in the scores of a cell."""
    return DELTA / backbone / f"{explainer}.csv"


def randomisation_path(backbone: str, explainer: str) -> Path:
    """How alike the maps of a cell are when the network's weights are shuffled."""
    return RANDOMISATION / backbone / f"{explainer}.csv"


def ablation_path(backbone: str, variant: str) -> Path:
    """The per-image scores of a variant of the ablation study, seed by seed."""
    return ABLATION / backbone / f"{variant}.csv"


def variant_path(backbone: str, variant: str, seed: int) -> Path:
    """The trained attention mechanism of a variant."""
    return VARIANTS / backbone / f"{variant}-{seed}.safetensors"


def measures_path() -> Path:
    """What the measures in the scores are."""
    return TABLES / "measures.json"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` if the block ends well and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{processes.index()}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as beside:
        beside.write_text(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_if_changed(path: Path, value: Any) -> None:
    """Write readable JSON, unless the file holds just that."""
    text = json.dumps(value, indent=2) + "\n"
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text())


def write_markdown(path: Path, table: "pd.DataFrame", left: int = 1) -> None:
    """Write a table of texts as Markdown, all but the first `left` columns to the right."""
    sides = ["left"] * left + ["right"] * (len(table.columns) - left)
    text = table.to_markdown(index=False, colalign=sides, disable_numparse=True)
    write_text(path, text + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table, floats with six significant digits."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def write_scores(path: Path, table: "pd.DataFrame", backbone: str, explainer: str) -> None:
    """Write a table of one cell, with the names of the cell in front, and values of DIGITS."""
    names = {"backbone": backbone, "explainer": explainer}
    columns = [*names, *(column for column in table.columns if column not in names)]
    table = table.assign(**names)
    if "value" in table:
        table["value"] = [float(f"{value:.{DIGITS}g}") for value in table["value"]]
    write_csv(path, table[columns])


def write_array(path: Path, array: "NDArray[Any]") -> None:
    """Write an array as .npy."""
    write_parts(path, [array], len(array))


def write_parts(path: Path, parts: "Iterable[NDArray[Any]]", rows: int) -> None:
    """Write an array as .npy, part after part, so that all of it is never in memory.

    Args:
        path: of the file.
        parts: (n, ...) each, of one shape and type but for n, in order.
        rows: of all parts together.
    """
    import numpy as np

    with replacing(path) as beside:
        rest = iter(parts)
        first = next(rest)
        whole = np.lib.format.open_memmap(beside, "w+", first.dtype, (rows, *first.shape[1:]))
        start = 0
        for part in chain([first], rest):
            end = start + len(part)
            if end > rows or (part.dtype, part.shape[1:]) != (whole.dtype, whole.shape[1:]):
                raise ValueError(
                    f"a part of {path} is {part.dtype} {part.shape} from row {start} on: expected "
                    f"{whole.dtype} of {whole.shape}"
                )
            whole[start:end] = part
            start = end
        if start != rows:
            raise ValueError(f"{path} has {start} rows: expected {rows}")
        whole.flush()


def read_array(path: Path) -> "NDArray[np.float32]":
    """An array that stays in its file until it is looked at; it cannot be written to.

    Raises:
        ValueError: the file is missing or damaged.
    """
    import numpy as np

    try:
        array: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}; run `dvc repro` to make it") from error
    return array


def write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors."""
    from safetensors.torch import save_file

    with replacing(path) as beside:
        save_file(dict(tensors), beside, metadata)


def read_table(path: Path, dtype: dict[str, type] | None = None) -> "pd.DataFrame":
    """Read a table; columns are what they look like, or of the types given.

    Raises:
        ValueError: missing.
    """
    import pandas as pd

    try:
        return pd.read_csv(path, dtype=dtype)
    except FileNotFoundError as error:
        raise ValueError(f"{path} not found: run `dvc repro` to make it") from error


def read_scores(path: Path) -> "pd.DataFrame":
    """Read per-image scores.

    Raises:
        ValueError: missing, or with other columns.
    """
    return read_columns(path, SCORE_COLUMNS)


def read_ablation(path: Path) -> "pd.DataFrame":
    """Read the per-image scores of a variant, which have a column `seed`.

    Raises:
        ValueError: missing, or with other columns.
    """
    return read_columns(path, [*SCORE_COLUMNS, "seed"])


def read_columns(path: Path, columns: list[str]) -> "pd.DataFrame":
    """Read a table of an image a row.

    Raises:
        ValueError: missing, or with other columns than these.
    """
    table = read_table(path, dtype={"image": str, "weights": str})
    if list(table.columns) != columns:
        found, expected = ", ".join(table.columns), ", ".join(columns)
        raise ValueError(f"{path} has the columns {found}: expected {expected}")
    return table
