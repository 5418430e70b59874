"""Nothing half-written is read as whole; unfinished work belongs to one configuration."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark import store


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    store.write_text(path, "old")

    def fail() -> None:
        with store.replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["value.txt"]


def test_arrays_there_and_back(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    store.write_array(tmp_path / "maps.npy", array)
    assert np.array_equal(store.read_array(tmp_path / "maps.npy"), array)


def test_damaged_and_missing_files_are_refused_in_one_line(tmp_path: Path) -> None:
    store.write_array(tmp_path / "maps.npy", np.zeros((4, 4)))
    whole = (tmp_path / "maps.npy").read_bytes()
    (tmp_path / "maps.npy").write_bytes(whole[:-8])
    for name in ("maps.npy", "missing.npy"):
        with pytest.raises(ValueError, match=rf"cannot read .*{name}.*dvc repro") as error:
            store.read_array(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"scores.csv not found"):
        store.read_scores(tmp_path / "scores.csv")
    store.write_csv(tmp_path / "scores.csv", pd.DataFrame({"image": ["a"]}))
    with pytest.raises(ValueError, match=r"has the columns image: expected backbone, explainer"):
        store.read_scores(tmp_path / "scores.csv")


def test_work_belongs_to_its_settings_and_inputs(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("1")
    first = store.Work("train", {"lr": 0.1}, [path]).folder
    assert store.Work("train", {"lr": 0.1}, [path]).folder == first
    assert store.Work("train", {"lr": 0.2}, [path]).folder != first
    path.write_text("2")
    assert store.Work("train", {"lr": 0.1}, [path]).folder != first
