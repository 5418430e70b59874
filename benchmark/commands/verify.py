"""Compare results with those of the commit: were they reproduced?

    python -m benchmark verify                  # what is here, after `make repro`
    python -m benchmark verify --from-scratch   # computed anew in work/, with git's trained states
    python -m benchmark verify --train          # trained anew too
    python -m benchmark verify FOLDER           # those of another machine

Scores and sanity checks are compared, measure by measure and level by level, where both are of the
same key: the same parameters, code, weights, versions and images. The maps they were computed from
may differ by rounding, as they do between two kinds of processor. Exits with 1 if anything is
outside tolerance.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.history import current_commit, read_git, run_git
from benchmark.core.params import PARAMS, Cell, load
from benchmark.core.store import KEYS, WORK, Key
from benchmark.report.measures import Known, known_measures, measure_of

CLOSE = 1.0
"""Values of an image agree within this share of the measure's range, in per cent.

Measured on the sample's CNN with another instruction set (ONEDNN_MAX_CPU_ISA=SSE41,
MKL_CBWR=COMPATIBLE), 336 measures and levels of seven cells: where pixels of like relevance change
places, no score moved by more than 0.61 % of its range.
"""

FLIPPED = 5.0
"""Per cent of the images whose values may not agree, of one image at least: there a decision that
lies on the edge, as ROAD's or IC's, falls the other way."""

SEEDS = 3.0
"""Standard deviations over training seeds by which the mean of what is trained anew may differ."""

PAGES = ("README.md", "docs")
"""Where `make repro` prints results."""

KEEP = ("results", "work", ".git", ".dvc", ".venv", str(PARAMS))
"""What a folder of its own does not share with this one."""

Verdict = Literal["identical", "within", "outside"]

Spread = dict[tuple[str, float], float]
"""Standard deviations by measure and level."""

Spreads = dict[tuple[str, str], Spread]
"""Those of cells."""


class Compared(NamedTuple):
    """A measure of a cell at a level: of how many images, and how it compares.

    `share` is the per cent of the images that do not agree, `largest` the largest difference of an
    image as a share of the measure's range, in per cent.
    """

    cell: str
    kind: str
    measure: str
    level: float
    images: int
    share: float
    largest: float
    verdict: Verdict


class Comparison(NamedTuple):
    """Everything compared, and in a line each what could not be."""

    compared: list[Compared]
    others: list[str]


def main() -> None:
    """Print how what is here, or what is computed anew, compares with the commit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="a folder with the results/ of another machine"
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="compute in a folder of its own"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="train there too; hours; the study must have the seeds' spread",
    )
    parser.add_argument("--brief", action="store_true", help="the verdict alone; exit with 0")
    given = parser.parse_args()
    try:
        project = Project(load())
        folder = folder_of(given.folder, anew=given.from_scratch or given.train)
        spreads = seed_spreads(project) if given.train else None
        if given.from_scratch or given.train:
            folder = recompute(project, train=given.train)
        found = compare(project, folder, spreads)
        if not given.brief:
            print(as_text(found))
        print(verdict(found) + (changed_lines() if folder == Path() else f"; see {folder}"))
    except (ValueError, OSError) as error:
        message = f"verify: {' '.join(str(error).split())}"
        if not given.brief:
            sys.exit(message)
        print(message)
        return
    if not given.brief and any(one.verdict == "outside" for one in found.compared):
        sys.exit(1)


def folder_of(given: Path | None, *, anew: bool) -> Path:
    """The folder in which results/ lies: the present one, or that of another machine.

    Raises:
        ValueError: there are no scores, or they are to be computed anew as well.
    """
    if given is None:
        return Path()
    if anew:
        raise ValueError(f"{given} beside --from-scratch or --train: expected one of them")
    folder = given.parent if given.name == results.RESULTS.name else given
    if not (folder / results.SCORES).is_dir():
        raise ValueError(
            f"{given} has no {results.SCORES}: expected the results of another machine"
        )
    return folder


def recompute(project: Project, *, train: bool) -> Path:
    """Compute everything but the ablation study and the timings in a folder below work/.

    One that was interrupted goes on; what is trained is taken from git, unless it is to be trained.

    Returns:
        the folder.

    Raises:
        ValueError: a stage fails, or git has no trained states.
    """
    folder = WORK / f"verify-{current_commit()[:12]}{'-train' if train else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in Path().iterdir():
        if path.name not in KEEP and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    shutil.copy(PARAMS, folder)
    for stage in ("check", "images"):
        run_stage(project, folder, stage)
    for backbone in project.params.backbones:
        if train:
            run_stage(project, folder, "train", backbone)
        elif project.trained(backbone):
            for path in committed_files(results.STATES / backbone):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(read_bytes(path))
        for stage in ("explain", "evaluate", "randomise"):
            run_stage(project, folder, stage, backbone)
    return folder


def run_stage(project: Project, folder: Path, stage: str, *arguments: str) -> None:
    """Run a stage in a folder.

    Raises:
        ValueError: it fails.
    """
    first, *rest = project.params.launch.split()
    launcher = [sys.executable if first == "python" else first, *rest]
    launch = [*launcher, f"benchmark.{stage}", *arguments]
    code = str(project.params.code.resolve())
    paths = os.pathsep.join([code, str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(launch, cwd=folder, env=os.environ | {"PYTHONPATH": paths}, check=False)
    if done.returncode != 0:
        raise ValueError(f"{stage} failed in {folder}: see above")


def read_bytes(path: Path) -> bytes:
    """A file of the commit.

    Raises:
        ValueError: it is not in git.
    """
    try:
        return run_git("show", f"HEAD:./{path}", folder=Path())
    except ValueError as error:
        raise ValueError(
            f"{path} is in no commit: expected it in git, see docs/training.md"
        ) from error


def committed_files(folder: Path) -> list[Path]:
    """The files of a folder that are in the commit.

    Raises:
        ValueError: there are none.
    """
    listed = read_git("ls-tree", "--name-only", "HEAD", f"./{folder}/", folder=Path())
    if not listed:
        raise ValueError(f"{folder} is in no commit: expected it in git, see docs/training.md")
    return [folder / Path(line).name for line in listed.splitlines()]


def compare(project: Project, folder: Path, spreads: Spreads | None) -> Comparison:
    """Compare the results in a folder with those of the commit.

    Args:
        project: the cells.
        folder: that has results/.
        spreads: over training seeds, if what is trained was trained anew; else None.
    """
    known = known_measures(project.catalogue)
    found = Comparison([], [])
    every = [*compared_results(project)]
    shelves = {shelf for shelf, *_ in every}
    before = {shelf: records_of(shelf) for shelf in shelves}
    here = {shelf: records_of(folder / shelf, here=True) for shelf in shelves}
    for shelf, cell, name, path in every:
        then, now = before[shelf].pop(name, {}), here[shelf].get(name, {})
        label = f"{cell.name} {name.partition('/')[2] or 'sanity checks'}"
        kind = kind_of(project, cell)
        if not then or not now:
            found.others.append(f"{label}: {'new' if now else 'not here'}")
            continue
        changed = Key(**now["key"]).differences(Key(**then["key"]), but=("data",))
        same = now.get("images") == then.get("images") and images_of(now) == images_of(then)
        if changed or not same:
            found.others.append(f"{label}: changed ({', '.join(changed) or 'images'})")
            continue
        old = pd.read_csv(io.BytesIO(read_bytes(path)), dtype={"image": str})
        new = pd.read_csv(folder / path, dtype={"image": str})
        own = measures_of(project, name, old)
        old, new = (table[table["metric"].isin(own)] for table in (old, new))
        spread = (spreads or {}).get((cell.backbone, cell.explainer)) if kind == "trained" else None
        found.compared.extend(compare_rows(old, new, cell.name, kind, known, spread))
    for shelf, left in sorted(before.items()):
        found.others.extend(f"{shelf} {name}: removed" for name in left)
    return found


def compared_results(project: Project) -> Iterator[tuple[Path, Cell, str, Path]]:
    """Folder of the records, cell, name there and file of everything that is compared."""
    for cell in project.all_cells():
        for metric in project.scored_metrics():
            path = results.scores_path(cell.backbone, cell.explainer)
            yield path.parent, cell, f"{cell.explainer}/{metric}", path
        path = results.randomisation_path(cell.backbone, cell.explainer)
        yield path.parent, cell, cell.explainer, path


def records_of(folder: Path, *, here: bool = False) -> dict[str, dict[str, Any]]:
    """The records of a folder of results, by name, here or in the commit; empty if none."""
    path = folder / KEYS
    try:
        text = path.read_text() if here else read_bytes(path).decode()
    except (OSError, ValueError):
        return {}
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def images_of(record: dict[str, Any]) -> dict[str, str]:
    """The digests of the images that a result is of."""
    data = record["key"]["data"]
    return {name: digest for name, digest in data.items() if name.startswith("evaluation")}


def kind_of(project: Project, cell: Cell) -> str:
    """The class of a cell's explainer."""
    if project.is_trained(cell):
        return "trained"
    return "stochastic" if project.facts(cell.explainer).seeded else "untrained"


def measures_of(project: Project, name: str, table: pd.DataFrame) -> list[str]:
    """The measures of a result: those of its metric, or all of the sanity checks."""
    metric = name.partition("/")[2]
    metrics = project.measure_metrics()
    return [m for m in table["metric"].unique() if not metric or metrics.get(m) == metric]


def compare_rows(
    old: pd.DataFrame,
    new: pd.DataFrame,
    cell: str,
    kind: str,
    known: Known,
    spread: Spread | None = None,
) -> list[Compared]:
    """Compare the values of the images of two tables, a measure and level at a time.

    Args:
        old: the commit's rows of a cell.
        new: those that are to be the same.
        cell: its name.
        kind: its class.
        known: the measures, for their ranges.
        spread: over training seeds, of what was trained anew; measures that it lacks are left out.
    """
    keys = ["image", "metric", "level"]
    both = old.merge(new, on=keys, how="outer", suffixes=("_old", "_new"))
    found = []
    for (measure, level), own in both.groupby(["metric", "level"], dropna=False, sort=False):
        then, now = own["value_old"], own["value_new"]
        difference = 100 * (now - then).abs().fillna(np.inf) / range_of(str(measure), known, then)
        share, largest = 100 * float((difference > CLOSE).mean()), float(difference.max())
        result: Verdict = "within" if share <= max(FLIPPED, 100 / len(own)) else "outside"
        if spread is not None:
            if (measure, level) not in spread:
                continue
            near = abs(now.mean() - then.mean()) <= SEEDS * spread[str(measure), float(level)]
            result = "within" if near else "outside"
        if (then == now).all():
            result = "identical"
        row = (cell, kind, str(measure), float(level), len(own), share, largest, result)
        found.append(Compared(*row))
    return found


def range_of(measure: str, known: Known, values: pd.Series) -> float:
    """The range of a measure, of the values where it has no bounds; 1 for similarities."""
    try:
        low, high = measure_of(measure, known).bounds
    except KeyError:
        return 1.0
    span = high - low
    return span if np.isfinite(span) else max(float(values.abs().max()), 1e-9)


def seed_spreads(project: Project) -> Spreads:
    """The standard deviation of the means over training seeds, by cell, measure and level.

    They are those of the ablation study, where it trains the same; an explainer that it does not
    train has those of the one that it does on the backbone.

    Raises:
        ValueError: on a backbone with trained explainers the study trains none of them the same.
    """
    table = results.read_table(results.TABLES / "ablation_seeds.csv")
    found: Spreads = {}
    for (backbone, explainer), variant in project.studied_cells().items():
        own = table[(table["backbone"] == backbone) & (table["explainer"] == variant)]
        spread = own.groupby(["metric", "level"])["value"].std(ddof=1)
        found[backbone, explainer] = spread.to_dict()
    for cell in (c for b in project.params.backbones for c in project.trained(b)):
        own = [spread for (backbone, _), spread in found.items() if backbone == cell.backbone]
        if not own:
            raise ValueError(
                f"how much seeds change {cell.name} is not known: expected a variant with its "
                "settings and recipe in the ablation study; or use --from-scratch"
            )
        found.setdefault((cell.backbone, cell.explainer), own[0])
    return found


def as_text(found: Comparison) -> str:
    """The comparison by class, what is outside, and what was not compared."""
    frame = pd.DataFrame(found.compared, columns=Compared._fields)
    rows = []
    for kind, own in frame.groupby("kind", sort=False):
        worst = own.loc[own["largest"].idxmax()]
        counts = [(own["verdict"] == name).sum() for name in ("identical", "within", "outside")]
        where = f"{worst['largest']:.2g} % of the range: {worst['cell']} {named(worst)}"
        rows.append((kind, len(own), *counts, where))
    head = ["class", "results", "identical", "within", "outside", "largest difference of an image"]
    text = str(pd.DataFrame(rows, columns=head).to_markdown(index=False))
    for one in found.compared:
        if one.verdict == "outside":
            text += (
                f"\noutside: {one.cell} {named(one._asdict())}, {one.share:.0f} % of {one.images}"
            )
            text += f" images differ, by up to {one.largest:.2g} % of the range"
    return "\n".join([text, *found.others]) + "\n"


def named(row: Any) -> str:
    """A measure with its level."""
    level = row["level"]
    return str(row["measure"]) + ("" if np.isnan(level) else f" at {level:g} %")


def verdict(found: Comparison) -> str:
    """All of it in a line."""
    counts = dict.fromkeys(("identical", "within", "outside"), 0)
    for one in found.compared:
        counts[one.verdict] += 1
    head = "NOT reproduced" if counts["outside"] else "reproduced"
    if not found.compared:
        head = "nothing to compare"
    other = f", {len(found.others)} not compared" if found.others else ""
    return (
        f"verify: {head}: {len(found.compared)} results, {counts['identical']} identical, "
        f"{counts['within']} within tolerance, {counts['outside']} outside{other}"
    )


def changed_lines() -> str:
    """How many lines of the results in git, and of the pages that print them, are others here."""
    pages = [path for path in PAGES if Path(path).exists()]
    places = [f"./{results.RESULTS}", *pages]
    listed = read_git("diff", "--numstat", "HEAD", "--", *places, folder=Path())
    counts = [line.split("\t")[0] for line in listed.splitlines()]
    lines = sum(int(count) for count in counts if count.isdigit())
    return f"; {lines} lines of {len(counts)} files in git changed"


if __name__ == "__main__":
    main()
