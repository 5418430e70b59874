"""A result counts only if its files are those of its record, and its key is the present one."""

import hashlib
import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmark.core import processes
from benchmark.core.memory import digest_file, digest_rows
from benchmark.core.store import DAMAGED, IMAGES, MISSING, Key, Result, Shelf, Unfinished

KEY = Key(parameters="p", code="c", weights="w", data={"maps": "m", "split": "s"}, versions="v")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str = "gradcam", key: Key = KEY) -> Result:
    return Result(name, key, (Path("maps") / f"{name}.npy", Path("cost") / f"{name}.json"))


def finish(*results: Result) -> Shelf:
    shelf = Shelf(Path("maps"))
    for result in results:
        for file in result.files:
            file.parent.mkdir(exist_ok=True)
            file.write_text(result.name)
    shelf.record(results)
    return Shelf(Path("maps"))


def test_fresh_missing_and_damaged() -> None:
    result = made()
    assert Shelf(Path("maps")).why(result) == [MISSING]
    assert finish(result).why(result) == []
    assert finish(result).due([result, made("rise")]) == {"rise": [MISSING]}
    result.files[1].write_text("by hand")
    assert Shelf(Path("maps")).why(result) == [DAMAGED]
    result.files[1].unlink()
    assert Shelf(Path("maps")).why(result) == [MISSING]


@pytest.mark.parametrize("part", ["parameters", "code", "weights", "versions"])
def test_each_part_of_a_key_says_why(part: str) -> None:
    shelf = finish(made())
    changed = made(key=replace(KEY, **{part: "other"}))
    assert shelf.why(changed) == [part]
    assert Shelf(Path("maps"), but=[part]).why(changed) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"maps": "other", "split": "s"}, ["data"]),
        ({"maps": "", "split": "s"}, []),  # not here: taken to be as it was
        ({"maps": "m"}, ["data"]),
        ({"maps": "m", "split": "s", "state": "t"}, ["data"]),
    ],
)
def test_data_that_is_not_here_is_as_it_was(data: dict[str, str], why: list[str]) -> None:
    assert finish(made()).why(made(key=replace(KEY, data=data))) == why


def growing(images: int, rows: str = "abcdef") -> Result:
    """A result whose data are the first rows of a file."""

    def first(count: int) -> Key:
        return replace(KEY, data={"rows": rows[:count]})

    return Result("gradcam", first(images), (Path("maps/gradcam.npy"),), images, first)


@pytest.mark.parametrize(
    ("wanted", "why", "kept"),
    [
        (growing(3), [], 3),
        (growing(5), [IMAGES], 3),
        (growing(2), [IMAGES], 2),
        (growing(5, "abXdef"), ["data"], 0),
        (growing(5, "abcXXX"), [IMAGES], 3),  # new images, which were none before
    ],
)
def test_of_a_result_of_other_images_the_first_are_kept(
    wanted: Result, why: list[str], kept: int
) -> None:
    shelf = finish(growing(3))
    assert (shelf.why(wanted), shelf.kept(wanted)) == (why, kept)


def test_nothing_is_kept_of_what_is_not_there() -> None:
    assert Shelf(Path("maps")).kept(growing(3)) == 0
    shelf = finish(growing(3))
    Path("maps/gradcam.npy").write_text("by hand")
    assert shelf.kept(growing(5)) == 0


def test_the_first_rows_of_files(tmp_path: Path) -> None:
    """Of tables, arrays and tensors: equal if these rows are, whatever follows."""
    rng = np.random.default_rng(0)
    rows = rng.random((5, 2, 2), np.float32)
    other = np.concatenate([rows[:3], rng.random((4, 2, 2), np.float32)])
    flipped = rows.copy()
    flipped[2, 1, 1] = 0
    digests: dict[str, list[list[str]]] = {}
    for name, values in {"rows": rows, "other": other, "flipped": flipped}.items():
        paths = [tmp_path / f"{name}{suffix}" for suffix in (".npy", ".csv", ".safetensors")]
        np.save(paths[0], values)
        paths[1].write_text("id\n" + "".join(f"{v.sum():.6g}\n" for v in values))
        save_file({"pixels": values, "labels": values[:, 0, 0] > 0.5}, paths[2])
        digests[name] = [[digest_rows(path, count) for count in (2, 3)] for path in paths]
    assert digests["rows"] == digests["other"]
    for own, changed in zip(digests["rows"], digests["flipped"], strict=True):
        assert own[0] == changed[0]
        assert own[1] != changed[1]
    whole = digest_rows(tmp_path / "rows.npy", 3)
    (tmp_path / "rows.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:-30])
    assert digest_rows(tmp_path / "rows.npy", 3) != whole  # torn


def test_the_first_rows_are_digested_in_pieces(tmp_path: Path) -> None:
    """The digest is that of all of them at once, and memory holds a few of them."""
    values = np.random.default_rng(0).random((400, 64, 64), np.float32)
    np.save(tmp_path / "rows.npy", values)
    save_file({"pixels": values}, tmp_path / "rows.safetensors")
    for suffix, name in {".npy": "", ".safetensors": "pixels"}.items():
        header = f"{name} float32 (350, 64, 64)".encode()
        expected = hashlib.sha256(header + values[:350].tobytes()).hexdigest()[:16]
        tracemalloc.start()
        assert digest_rows(tmp_path / f"rows{suffix}", 350) == expected
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < values.nbytes / 2
    assert digest_rows(tmp_path / "rows.npy", 500) == digest_rows(tmp_path / "rows.npy", 400)


def test_what_is_in_no_parameter_is_removed() -> None:
    shelf = finish(made(), made("rise"))
    Path("maps/half.part").write_text("")
    shelf.prune([made()], Path("cost"))
    assert sorted(p.name for p in Path("maps").iterdir()) == ["gradcam.npy", "keys.json"]
    assert [p.name for p in Path("cost").iterdir()] == ["gradcam.json"]
    assert Shelf(Path("maps")).due([made(), made("rise")]) == {"rise": [MISSING]}


def test_a_damaged_list_of_keys_is_named_with_what_restores_it() -> None:
    finish(made())
    Path("maps/keys.json").write_text('{"gradcam": {"ke')
    with pytest.raises(ValueError, match=r"maps/keys.json is damaged .*git checkout"):
        Shelf(Path("maps"))


def test_records_are_a_line_each() -> None:
    finish(made(), made("rise"))
    lines = Path("maps/keys.json").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["{", '"gradcam"', '"rise"', "}"]


def test_the_digest_of_tensors_leaves_out_what_is_said_about_them() -> None:
    import torch
    from safetensors.torch import save_file

    digests = []
    for name, value, commit in (("a", 1.0, "x"), ("b", 1.0, "y"), ("c", 2.0, "x")):
        path = Path(f"{name}.safetensors")
        save_file({"weight": torch.full((3,), value)}, path, {"commit": commit})
        digests.append(digest_file(path))
    assert digests[0] == digests[1] != digests[2]


class KilledError(Exception):
    """As if the process had been killed."""


def test_pieces_go_on_after_a_kill_in_a_folder_of_their_key() -> None:
    computed: list[int] = []

    def compute(item: int) -> dict[str, Any]:
        if len(computed) == 2:
            raise KilledError
        computed.append(item)
        return {"square": item**2}

    items = {str(i): i for i in range(4)}
    with pytest.raises(KilledError):
        Unfinished("explain x", KEY).pieces(items, compute)
    computed.clear()
    computed += [9] * 5
    work = Unfinished("explain x", KEY)
    assert [int(p["square"]) for p in work.pieces(items, compute)] == [0, 1, 4, 9]
    assert computed[5:] == [2, 3]
    assert Unfinished("explain x", replace(KEY, code="other")).folder != work.folder
    work.forget()
    assert not work.folder.exists()


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_pieces(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(processes, "wait", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", str(count))
    items = {str(i): i for i in range(7)}
    done: list[int] = []

    def compute(todo: Mapping[str, int]) -> Any:
        for item in todo.values():
            done.append(item)
            yield {"item": item}

    for index in reversed(range(count)):  # the first, last of all, finds the work of the others
        monkeypatch.setenv("RANK", str(index))
        work = Unfinished("explain x", KEY)
        if index:
            with pytest.raises(FileNotFoundError):
                list(work.streamed(items, compute))
    assert [int(p["item"]) for p in work.streamed(items, compute)] == list(range(7))
    assert sorted(done) == list(range(7))


def test_keys_say_the_same_in_every_process() -> None:
    assert KEY.digest == Key(**json.loads(json.dumps(vars(KEY)))).digest
