"""The store: results with the keys they were made by, and the unfinished work of a killed stage.

A folder of results has a file `keys.json` with a record of each result: its key (see Key) and the
digests of its files. Files are written first, their record after them; a result whose files are not
those of its record does not count. So nothing half-written is ever read as whole, and a stage that
was killed goes on where it stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from tqdm import tqdm

from benchmark.core import processes
from benchmark.core.memory import digest_file
from benchmark.core.results import replacing, write_text

WORK = Path("work")
KEYS = "keys.json"

MISSING = "missing"
"""Why a result is due that is not there."""

DAMAGED = "damaged"
"""Why a result is due whose files are not those that were written."""

IMAGES = "images"
"""Why a result is due that is of more or fewer images than it should be."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Key:
    """All that a result is made of, each as a digest.

    Attributes:
        parameters: the merged settings, and the backbone's.
        code: the parsed source of every module that computes it.
        weights: of the backbone.
        data: the files it is computed from, by a name.
        versions: of the distributions that these modules import.
    """

    parameters: str
    code: str
    weights: str = ""
    data: dict[str, str] = field(default_factory=dict)
    versions: str = ""

    def differences(self, recorded: "Key", but: Sequence[str] = ()) -> list[str]:
        """What is other than in a recorded key; a file that is not here is taken to be the same.

        Args:
            recorded: what a result was made of.
            but: parts that are not compared.
        """
        here = {name: digest for name, digest in self.data.items() if digest}
        then = {name: digest for name, digest in recorded.data.items() if name in here}
        same = {part: getattr(self, part) == getattr(recorded, part) for part in vars(self)}
        same["data"] = here == then and self.data.keys() == recorded.data.keys()
        return [part for part, equal in same.items() if not equal and part not in but]

    @property
    def digest(self) -> str:
        """All of it as one digest."""
        return digest_json(asdict(self))


class Result(NamedTuple):
    """A result that a stage is to make: its name in the folder, its key, and its files.

    One that grows with the number of images says of how many it is, and how the key of the `first`
    so many is made: of more images only the new ones are computed.
    """

    name: str
    key: Key
    files: tuple[Path, ...]
    images: int = 0
    first: Callable[[int], Key] | None = None


def digest_json(value: Any) -> str:
    """The digest of anything JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Shelf:
    """A folder of results and their records.

    Args:
        folder: of the results; its keys.json has the records.
        but: parts of the keys that are recorded and not compared.
    """

    def __init__(self, folder: Path, but: Sequence[str] = ()) -> None:
        self.folder = folder
        self.path = folder / KEYS
        self.but = tuple(but)
        self.records = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            records: dict[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(
                f"{self.path} is damaged ({error}): restore it with `git checkout {self.path}` or "
                "`dvc checkout`, or remove it to compute all of its results anew"
            ) from error
        return records

    def why(self, result: Result) -> list[str]:
        """Why a result is to be computed: nothing if it is fresh."""
        record = self.records.get(result.name)
        if record is None or not all(file.is_file() for file in result.files):
            return [MISSING]
        kept = record.get("images", 0)
        other = result.first is not None and 0 < kept != result.images
        key = result.first(kept) if result.first and other else result.key
        changed = key.differences(Key(**record["key"]), self.but)
        if changed or not self.is_whole(result):
            return changed or [DAMAGED]
        return [IMAGES] if other else []

    def kept(self, result: Result) -> int:
        """How many of the first images of a result need not be computed."""
        fresh = set(self.why(result)) <= {IMAGES}
        return min(self.records[result.name].get("images", 0), result.images) if fresh else 0

    def is_whole(self, result: Result) -> bool:
        """Whether the files of a result are those of its record."""
        return bool(self.digests(result.files) == self.records[result.name]["files"])

    def due(self, results: Iterable[Result]) -> dict[str, list[str]]:
        """The names of the results that are to be computed, and why."""
        return {result.name: why for result in results if (why := self.why(result))}

    def digests(self, files: Iterable[Path]) -> dict[str, str]:
        """The digest of each file, by its path."""
        return {str(file): digest_file(file) for file in files}

    def record(self, results: Iterable[Result], **notes: Any) -> None:
        """Write down that the files of results are there, made by their keys.

        Args:
            results: whose files have been written.
            notes: what is written beside.
        """
        for result in results:
            entry: dict[str, Any] = {"key": asdict(result.key), "files": self.digests(result.files)}
            if result.images:
                entry["images"] = result.images
            self.records[result.name] = entry | notes
        self.write()

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.records = {}

    def touch(self, results: Iterable[Result]) -> None:
        """Write down that the files of results have changed, and not what they are made of."""
        for result in results:
            self.records[result.name]["files"] = self.digests(result.files)
        self.write()

    def write(self) -> None:
        """Write the records, one a line."""
        lines = (f"{json.dumps(n)}: {json.dumps(r)}" for n, r in sorted(self.records.items()))
        write_text(self.path, "{\n" + ",\n".join(lines) + "\n}\n")

    def prune(self, results: Iterable[Result], *folders: Path) -> None:
        """Forget all other results, and remove files that belong to none.

        Args:
            results: those that are in the parameters.
            folders: other folders of their files.
        """
        known = {result.name: result for result in results}
        files = {file for result in known.values() for file in result.files} | {self.path}
        for folder in (self.folder, *folders):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path not in files and path.is_file():
                    path.unlink()
        self.keep(known.values())

    def keep(self, results: Iterable[Result]) -> None:
        """Forget all other results."""
        names = {result.name for result in results}
        kept = {name: record for name, record in self.records.items() if name in names}
        if kept != self.records or not self.path.is_file():
            self.records = kept
            self.write()


class Unfinished:
    """The pieces of a result that is being computed, in a folder named by the keys.

    Several processes share them: each computes its own, and all read all.

    Args:
        label: of the progress bar; the first word of the folder's name.
        keys: of what is being computed.
    """

    def __init__(self, label: str, *keys: Key) -> None:
        self.label = label
        name = label.partition(" ")[0].replace("/", "-")
        self.folder = WORK / f"{name}-{digest_json([key.digest for key in keys])}"

    def path(self, name: str) -> Path:
        """A file of this work."""
        return self.folder / name

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """See results.replacing."""
        return replacing(self.path(name))

    def pieces(
        self,
        items: Mapping[str, Item],
        compute: Callable[[Item], dict[str, Any]],
        unit: str = "batch",
    ) -> "Pieces":
        """What `compute` makes of each item, arrays by name; what was computed before is read.

        Args:
            items: by the name of their piece.
            compute: gives numbers, texts or arrays by name.
            unit: of the progress bar.
        """

        def one_by_one(todo: Mapping[str, Item]) -> Iterable[dict[str, Any]]:
            return map(compute, todo.values())

        return self.streamed(items, one_by_one, unit)

    def streamed(
        self,
        items: Mapping[str, Item],
        compute: Callable[[Mapping[str, Item]], Iterable[dict[str, Any]]],
        unit: str = "batch",
    ) -> "Pieces":
        """`pieces` for a computation that takes the items that are to do and yields in turn."""
        import numpy as np

        own = dict(processes.own(list(items.items())))
        todo = {name: item for name, item in own.items() if not self.path(f"{name}.npz").exists()}
        with tqdm(
            total=len(own),
            initial=len(own) - len(todo),
            desc=self.label,
            unit=unit,
            leave=False,
            disable=processes.silent(),
        ) as progress:
            for name, piece in zip(todo, compute(todo), strict=True):
                with self.replacing(f"{name}.npz") as beside, beside.open("wb") as file:
                    np.savez(file, **piece)
                progress.update()
        processes.wait()
        return Pieces([self.path(f"{name}.npz") for name in items])

    def forget(self) -> None:
        """Remove it: the results have been written."""
        processes.wait()
        if processes.first():
            shutil.rmtree(self.folder, ignore_errors=True)


class Pieces(Sequence[dict[str, Any]]):
    """Arrays by name, piece after piece, each read from its file when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        """The number of pieces."""
        return len(self._paths)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> "Pieces": ...

    def __getitem__(self, place: int | slice) -> "dict[str, Any] | Pieces":
        """One piece, or some of them."""
        import numpy as np

        if isinstance(place, slice):
            return Pieces(self._paths[place])
        with np.load(self._paths[place], allow_pickle=False) as saved:
            return dict(saved)
