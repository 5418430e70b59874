"""Every path and file format under results/, and the folder of unfinished work.

Files are written beside their place and renamed, so that a file that exists is whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark import processes

RESULTS = Path("results")
WORK = Path("work")
TABLES = RESULTS / "tables"
PLOTS = RESULTS / "plots"
PAGE = RESULTS / "index.html"
RUNTIME = RESULTS / "runtime"
DISTILL = RESULTS / "distill"
SPEED = RESULTS / "speed"

SCORE_COLUMNS = ["backbone", "explainer", "image", "metric", "level", "value", "weights"]
"""One row an image and value. `level` is in per cent, empty for a measure without levels;
`weights` is the digest of the backbone's weights and preprocessing."""


def sources_path(group: Literal["stages", "explainers"], name: str) -> Path:
    """The source files that a stage or an explainer is made of."""
    return RESULTS / "sources" / group / f"{name}.json"


def measures_path() -> Path:
    """What the measures in the scores are."""
    return RESULTS / "sources" / "measures.json"


def split_path(split: str) -> Path:
    """Pixels, masks and labels of `train`, `validation` or `evaluation`."""
    return RESULTS / "splits" / f"{split}.safetensors"


def split_table_path(split: str) -> Path:
    """Id, class and provenance of each image of a split."""
    return RESULTS / "splits" / f"{split}.csv"


def state_path(backbone: str, explainer: str) -> Path:
    """The trained attention mechanism."""
    return RESULTS / "states" / backbone / f"{explainer}.safetensors"


def curve_path(backbone: str, explainer: str) -> Path:
    """The training curve."""
    return RESULTS / "curves" / backbone / f"{explainer}.csv"


def maps_path(backbone: str, explainer: str) -> Path:
    """Maps (N, h, w), float32, in the order of the evaluation split."""
    return RESULTS / "maps" / backbone / f"{explainer}.npy"


def cost_path(backbone: str, explainer: str) -> Path:
    """What the maps of a cell cost."""
    return RESULTS / "cost" / backbone / f"{explainer}.json"


def scores_path(backbone: str, explainer: str) -> Path:
    """The per-image scores of a cell."""
    return RESULTS / "scores" / backbone / f"{explainer}.csv"


def delta_path(backbone: str, explainer: str) -> Path:
    """What the mode `reference` changes in the scores of a cell."""
    return RESULTS / "delta" / backbone / f"{explainer}.csv"


def randomisation_path(backbone: str, explainer: str) -> Path:
    """How alike the maps of a cell are when the network's weights are shuffled."""
    return RESULTS / "randomisation" / backbone / f"{explainer}.csv"


def ablation_path(variant: str) -> Path:
    """The per-image scores of a variant of the ablation study, seed by seed."""
    return RESULTS / "ablation" / f"{variant}.csv"


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


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text())


def write_markdown(path: Path, table: pd.DataFrame, left: int = 1) -> None:
    """Write a table of texts as Markdown, all but the first `left` columns to the right."""
    sides = ["left"] * left + ["right"] * (len(table.columns) - left)
    text = table.to_markdown(index=False, colalign=sides, disable_numparse=True)
    write_text(path, text + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table, floats with six significant digits."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy."""
    with replacing(path) as beside, beside.open("wb") as file:
        np.save(file, array)


def read_array(path: Path) -> NDArray[Any]:
    """Read an array.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}; run `dvc repro` to make it") from error
    return array


def read_table(path: Path, dtype: dict[str, type] | None = None) -> pd.DataFrame:
    """Read a table; columns are what they look like, or of the types given.

    Raises:
        ValueError: missing.
    """
    try:
        return pd.read_csv(path, dtype=dtype)
    except FileNotFoundError as error:
        raise ValueError(f"{path} not found: run `dvc repro` to make it") from error


def read_scores(path: Path) -> pd.DataFrame:
    """Read per-image scores.

    Raises:
        ValueError: missing, or with other columns.
    """
    return read_columns(path, SCORE_COLUMNS)


def read_ablation(path: Path) -> pd.DataFrame:
    """Read the per-image scores of a variant, which have a column `seed`.

    Raises:
        ValueError: missing, or with other columns.
    """
    return read_columns(path, [*SCORE_COLUMNS, "seed"])


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table of an image a row.

    Raises:
        ValueError: missing, or with other columns than these.
    """
    table = read_table(path, dtype={"image": str, "weights": str})
    if list(table.columns) != columns:
        found, expected = ", ".join(table.columns), ", ".join(columns)
        raise ValueError(f"{path} has the columns {found}: expected {expected}")
    return table


class Work:
    """The unfinished work of a stage, in a folder named by everything it depends on.

    A stage that was killed finds what it had finished. Once a parameter, an input file or a line
    of the code changes, the folder is another one.

    Args:
        stage: its name.
        settings: what it depends on; anything JSON can hold.
        inputs: the files it depends on.

    Raises:
        ValueError: an input is missing.
    """

    def __init__(self, stage: str, settings: Any, inputs: list[Path]) -> None:
        state = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        code = Path(__file__).parents[1]
        packages = [code / name for name in ("benchmark", "methods", "metrics")]
        sources = [path for package in packages for path in package.glob("*.py")]
        for path in sorted(sources) + inputs:
            if not path.is_file():
                raise ValueError(
                    f"{stage} needs {path}, which is missing: run `dvc repro` to make it"
                )
            with path.open("rb") as file:
                state.update(hashlib.file_digest(file, "sha256").digest())
        self.folder = WORK / f"{stage}-{state.hexdigest()[:16]}"

    def path(self, name: str) -> Path:
        """A file of this work."""
        return self.folder / name

    def done(self) -> None:
        """Forget it: the stage has written its results."""
        processes.wait()
        if processes.first():
            shutil.rmtree(self.folder, ignore_errors=True)
