"""Nothing half-written is read as whole; what is damaged is refused in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.core import results


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    results.write_text(path, "old")

    def fail() -> None:
        with results.replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["value.txt"]


def test_arrays_there_and_back(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    results.write_array(tmp_path / "maps.npy", array)
    assert np.array_equal(results.read_array(tmp_path / "maps.npy"), array)


def test_an_array_in_parts_is_the_file_of_the_whole(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    np.save(tmp_path / "whole.npy", array)
    results.write_parts(tmp_path / "maps.npy", (array[i : i + 2] for i in (0, 2, 4)), 5)
    assert (tmp_path / "maps.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not results.read_array(tmp_path / "maps.npy").flags.writeable
    for parts, message in (
        ([array], r"few.npy has 5 rows: expected 6"),
        ([array, array], r"few.npy is float32 \(5, 3, 4\) from row 5 on: expected float32 of \(6,"),
        ([array, array[:1].astype(bool)], r"few.npy is bool \(1, 3, 4\) from row 5 on"),
        ([array, array[:1, :1]], r"few.npy is float32 \(1, 1, 4\) from row 5 on"),
    ):
        with pytest.raises(ValueError, match=message):
            results.write_parts(tmp_path / "few.npy", parts, 6)
    assert not (tmp_path / "few.npy").exists()


def test_damaged_and_missing_files_are_refused_in_one_line(tmp_path: Path) -> None:
    results.write_array(tmp_path / "maps.npy", np.zeros((4, 4)))
    whole = (tmp_path / "maps.npy").read_bytes()
    (tmp_path / "maps.npy").write_bytes(whole[:-8])
    for name in ("maps.npy", "missing.npy"):
        with pytest.raises(ValueError, match=rf"cannot read .*{name}.*dvc repro") as error:
            results.read_array(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"scores.csv not found"):
        results.read_scores(tmp_path / "scores.csv")
    results.write_csv(tmp_path / "scores.csv", pd.DataFrame({"image": ["a"]}))
    with pytest.raises(ValueError, match=r"has the columns image: expected backbone, explainer"):
        results.read_scores(tmp_path / "scores.csv")


def test_names_of_the_cell_stand_in_front(tmp_path: Path) -> None:
    table = pd.DataFrame({"image": ["a"], "explainer": ["old"], "value": [1.25], "seed": [3]})
    results.write_scores(tmp_path / "scores.csv", table, "cnn", "rise")
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "backbone,explainer,image,value,seed",
        "cnn,rise,a,1.25,3",
    ]
