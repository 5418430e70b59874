"""Claim that a change of the code trains the same: checked by steps of the old and the new code.

    python -m benchmark renew efficientnet_lite0/ttame
    python -m benchmark renew efficientnet_lite0/ttame/no_skip

The second is a variant of the ablation study; if its states are not here, `--commit` says whose
code trained them, and its rows say by which key. Twenty steps at the peak rate are taken with the
code of the commit that the state was trained at, and with the present one. If every tensor moves
alike and the optimiser has the same settings, the state gets the present key, and commit and result
are written down beside it. Maps and scores are never renewed: they are computed anew.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmark.core import results
from benchmark.core.cells import NOT_COMPARED, PROVENANCE, Project
from benchmark.core.history import CODE as CODE_FILES
from benchmark.core.history import current_commit, read_git, unpack
from benchmark.core.params import PARAMS, Cell, load
from benchmark.core.stage import keep_freed_memory
from benchmark.core.store import Key, Result, Shelf

STEPS = 20

TOLERANCE = 1e-5
"""Of the difference of a tensor's two updates, as a share of the largest update in it."""

CODE = "code"


class Trained(NamedTuple):
    """A trained state: what it is of, where its record is, and the seed it was trained with."""

    cell: Cell
    made: Result
    shelf: Shelf
    seed: int


def main() -> None:
    """Renew a cell, or take steps for another version of the code that renews one."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark renew",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cell", help="BACKBONE/EXPLAINER, or BACKBONE/EXPLAINER/VARIANT")
    parser.add_argument("--commit", help="of a variant without states: whose code trained it")
    parser.add_argument("--write-steps", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_freed_memory()
    try:
        project = Project(load())
        if given.write_steps is not None:
            write_steps(project, find_trained(project, given.cell)[0], given.write_steps)
        else:
            states = find_trained(project, given.cell)
            print(renew(project, states, given.cell, given.commit))
    except (ValueError, OSError) as error:
        sys.exit(f"renew: {' '.join(str(error).split())}")


def find_trained(project: Project, name: str) -> list[Trained]:
    """The states of a cell or of all seeds of a variant.

    Raises:
        ValueError: there is no such cell or variant, or it is not trained.
    """
    backbone, _, rest = name.partition("/")
    explainer, _, variant = rest.partition("/")
    cells = {cell.explainer: cell for cell in project.cells(backbone)}
    if explainer not in cells or not project.is_trained(cells[explainer]):
        known = ", ".join(f"{backbone}/{cell.explainer}" for cell in project.trained(backbone))
        raise ValueError(f"{name!r} is not trained: expected one of {known}")
    if not variant:
        shelf = Shelf(results.STATES / backbone, NOT_COMPARED)
        cell = cells[explainer]
        return [Trained(cell, project.state(cell), shelf, project.params.seed)]
    known_variants = project.variants(backbone)
    if variant not in known_variants:
        known = ", ".join(known_variants)
        raise ValueError(f"no variant {variant!r} on {backbone}: expected one of {known}")
    cell, shelf = known_variants[variant], Shelf(results.VARIANTS / backbone, NOT_COMPARED)
    return [
        Trained(
            cell.model_copy(update={"settings": cell.settings | {"seed": seed}}),
            project.variant_state(variant, cell, seed),
            shelf,
            seed,
        )
        for seed in project.seeds()
    ]


def renew(project: Project, states: list[Trained], name: str, commit: str | None = None) -> str:
    """Give states the key of the present code, if that trains alike.

    The seeds of a variant are renewed together, by steps with the first seed; the old code is that
    of the last, since a state that was trained earlier may have become the first.

    Args:
        project: of the states.
        states: see `find_trained`.
        name: of the cell or variant.
        commit: whose code trained a variant, if its states are not here.

    Returns:
        What was done, in a line.

    Raises:
        ValueError: a state is stale for another reason, or the two do not train alike.
    """
    here = all(state.made.name in state.shelf.records for state in states)
    records = [s.shelf.records[s.made.name] for s in states] if here else told_by_rows(states, name)
    reasons = set[str]()
    for state, record in zip(states, records, strict=True):
        told = Key(**record["key"])
        own = (
            state.shelf.why(state.made) if here else state.made.key.differences(told, NOT_COMPARED)
        )
        reasons.update(own)
    if not reasons:
        return f"{name} is fresh: nothing to renew"
    if reasons != {CODE}:
        raise ValueError(
            f"{name} is stale ({', '.join(sorted(reasons))}): expected a change of the code alone, "
            "run `dvc repro`"
        )
    refuse_uncommitted()
    first = {"code": records[-1]["key"]["code"]}
    trained_by = records[-1].get("renewed", [first])[0]["code"]
    if here:
        commit = commit_of(states[-1].made.files[0])
    elif commit is None:
        raise ValueError(
            f"the states of {name} are not here: expected --commit, whose code trained them"
        )
    old, new = steps_of_both(name, commit)
    if old["code"] != trained_by:
        raise ValueError(
            f"{name} was trained by code that is not that of its commit {commit[:12]}: expected a "
            "state trained from a clean checkout, run `dvc repro` to train it anew"
        )
    largest = largest_difference(old, new, name, commit)
    proof = {"from": commit, "to": current_commit(), "code": trained_by, "steps": new["steps"]}
    for state in states:
        write_proof(state, name, proof | {"difference": largest}, here)
    done = f"{name} renewed: {new['steps']} steps differ by {largest:.1e}"
    return f"{done} of the largest update at most"


def refuse_uncommitted() -> None:
    """Refuse code that is not committed: a proof names the commit that it is of.

    Raises:
        ValueError: names the first file.
    """
    changed = read_git("status", "--porcelain", "--", *CODE_FILES).splitlines()
    if changed:
        raise ValueError(f"{changed[0].strip()} is not committed: expected the code of a commit")


def steps_of_both(name: str, commit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What steps with the code of a commit do, and with the present one, see `take_steps`."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        unpack(commit, folder / "code")
        try:
            old = take_steps(name, folder / "code", Path.cwd(), folder / "old.json")
        except ValueError:  # of parameters that came later
            place = workplace(commit, folder / "place")
            old = take_steps(name, folder / "code", place, folder / "old.json")
        return old, take_steps(name, Path(__file__).parents[2], Path.cwd(), folder / "new.json")


def told_by_rows(states: list[Trained], name: str) -> list[dict[str, Any]]:
    """The record of each state of a variant as its rows have it, where the states are not here.

    Raises:
        ValueError: there are no rows of it.
    """
    backbone, _, variant = (*name.split("/"), "")[:3]
    rows = Shelf(results.ABLATION / backbone).records.get(variant, {})
    keys = rows.get("training", {})
    if any(str(state.seed) not in keys for state in states):
        raise ValueError(f"{name} is not trained: expected a state or rows of it, run `dvc repro`")
    return [{"key": keys[str(state.seed)]} for state in states]


def write_proof(state: Trained, name: str, proof: dict[str, Any], here: bool) -> None:
    """Give a state the present key, with the proof; also where scores of a variant name it."""
    if here:
        record = state.shelf.records[state.made.name]
        kept = {key: value for key, value in record.items() if key not in ("key", "files")}
        kept["renewed"] = [*record.get("renewed", []), proof]
        state.shelf.record([state.made], **kept)
    backbone, _, variant = (*name.split("/"), "")[:3]
    scored = Shelf(results.ABLATION / backbone)
    rows = scored.records.get(variant, {})
    if variant and "training" in rows:
        rows["training"][str(state.seed)] = asdict(state.made.key)
        if not here:
            rows["renewed"] = [*(p for p in rows.get("renewed", []) if p != proof), proof]
        scored.write()


def commit_of(path: Path) -> str:
    """The commit in a state's metadata.

    Raises:
        ValueError: there is none.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        commit = json.loads((file.metadata() or {}).get(PROVENANCE, "{}")).get("commit", "")
    if not commit:
        raise ValueError(f"{path} says no commit: expected a state trained in a git clone")
    return str(commit)


def workplace(commit: str, folder: Path) -> Path:
    """A folder like the present one, with the parameters of a commit, which its code understands.

    Those of the state are the same in both: its key says so. Parameters that were never committed
    are the present ones.
    """
    folder.mkdir()
    for entry in Path.cwd().iterdir():
        (folder / entry.name).symlink_to(entry)
    with suppress(ValueError):
        text = read_git("show", f"{commit}:./{PARAMS}", folder=Path.cwd())
        (folder / PARAMS).unlink()
        (folder / PARAMS).write_text(text)
    return folder


def take_steps(name: str, code: Path, folder: Path, path: Path) -> dict[str, Any]:
    """What `write_steps` of a version of the code, run in a folder, writes about a cell.

    Raises:
        ValueError: it fails.
    """
    command = [sys.executable, "-m", "benchmark", "renew", name, "--write-steps", str(path)]
    found_at = [str(code), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(found_at), "PYTHONSAFEPATH": "1"}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        reason = ran.stderr.strip().splitlines()[-1:] or ["failed"]
        raise ValueError(f"taking steps with the code in {code} failed: {reason[0]}")
    found: dict[str, Any] = results.read_json(path)
    return found


def write_steps(project: Project, state: Trained, path: Path) -> None:
    """Write what steps at the peak rate do: updates and the optimiser's settings; and the code."""
    from benchmark.data.splits import read_training
    from benchmark.engine import training
    from benchmark.engine.devices import device
    from methods import build_backbone

    cell = state.cell
    network = build_backbone(cell.backbone, device=device(), **project.spec(cell.backbone))
    explainer = training.build_trainable(cell.load or cell.explainer, network, cell.settings)
    train = read_training(results.SPLITS)
    updates, optimiser = training.take_steps(
        explainer, cell.recipe, train, seed=state.seed, steps=STEPS
    )
    found = {
        "code": state.made.key.code,
        "steps": min(STEPS, training.step_count(cell.recipe, len(train))),
        "updates": {name: tensor.flatten().tolist() for name, tensor in updates.items()},
        "optimiser": json.loads(json.dumps(optimiser)),
    }
    path.write_text(json.dumps(found))


def largest_difference(old: dict[str, Any], new: dict[str, Any], name: str, commit: str) -> float:
    """The largest difference of two updates, as a share of the largest update of its tensor.

    Raises:
        ValueError: other tensors, other settings of the optimiser, or a difference above TOLERANCE.
    """
    import numpy as np

    if old["optimiser"] != new["optimiser"]:
        raise ValueError(f"{name}: the optimiser has other settings than at {commit[:12]}")
    if old["updates"].keys() != new["updates"].keys():
        raise ValueError(f"{name}: there are other tensors than at {commit[:12]}")
    largest = 0.0
    for tensor, values in old["updates"].items():
        then, now = np.array(values), np.array(new["updates"][tensor])
        if then.shape != now.shape:
            raise ValueError(f"{name}: {tensor} has another shape than at {commit[:12]}")
        scale = max(float(np.abs(then).max(initial=0)), 1e-12)
        share = float(np.abs(then - now).max(initial=0)) / scale
        if not share <= TOLERANCE:
            raise ValueError(
                f"{name}: after {new['steps']} steps {tensor} differs from that of {commit[:12]} "
                f"by {share:.1e} of its largest update, expected at most {TOLERANCE:g}: the change "
                "is no refactoring, run `dvc repro` to train it anew"
            )
        largest = max(largest, share)
    return largest


if __name__ == "__main__":
    main()
