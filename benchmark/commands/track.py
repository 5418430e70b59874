"""Track the runtime of every explainer: this machine's figures in git, and two commits compared.

    python -m benchmark track record
    python -m benchmark track compare HEAD~1

What is compared is the quickest call as a multiple of the quickest bare forward pass beside it in
the same run, so that two states of a machine, and two machines, can be compared at all. An
explainer is slower if that multiple grew beyond the tolerance, and by more than LEAST forward
passes, for one image and for the batch; and if measuring it once more does not undo it.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

from benchmark.core import results, timings
from benchmark.core.cells import Project
from benchmark.core.history import read_git
from benchmark.core.params import load
from benchmark.core.stage import keep_freed_memory
from benchmark.report import drawing
from benchmark.report.figures import describe_explainers

MACHINES = results.RUNTIME / "machines"
"""Figures of each machine, which are no stage's: other machines do not make them anew."""

SECONDS = 2.0
"""Spent on each explainer and batch size."""

LEAST = 0.05
"""Bare forward passes by which a slower explainer is slower at least."""

TOLERANCE = 1.25

Figures = dict[str, dict[str, dict[str, float]]]
"""As timings.medians gives them."""


class Change(NamedTuple):
    """An explainer whose runtime changed; by batch size the multiples then and now."""

    backbone: str
    explainer: str
    then: dict[str, float]
    now: dict[str, float]

    @property
    def factors(self) -> list[float]:
        """How many times as long it takes, a number a batch size."""
        return [self.now[size] / self.then[size] for size in self.then]

    @property
    def more(self) -> list[float]:
        """How many bare forward passes longer it takes."""
        return [self.now[size] - self.then[size] for size in self.then]

    def slower(self, tolerance: float) -> bool:
        """Whether it takes longer, see above."""
        return min(self.factors) > tolerance and min(self.more) > LEAST

    def faster(self, tolerance: float) -> bool:
        """Whether it is the other way round."""
        return max(self.factors) < 1 / tolerance and max(self.more) < -LEAST


def main() -> None:
    """Record, or compare; exits with 1 if an explainer became slower or the input is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark track",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record", help="measure, and write this machine's file and figure")
    comparison = commands.add_parser("compare", help="this machine's file with that of a commit")
    comparison.add_argument("revision", help="of git, such as HEAD~1")
    comparison.add_argument("--tolerance", type=float, default=TOLERANCE)
    given = parser.parse_args()
    keep_freed_memory()
    try:
        if given.command == "record":
            record(Project(load()))
        elif compare(given.revision, given.tolerance):
            sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"track: {' '.join(str(error).split())}")


def record(project: Project) -> Path:
    """Measure every explainer; write this machine's figures and how they went on over commits."""
    raw = timings.measure("test_runtime.py", f"--seconds={SECONDS}")
    machine = timings.describe_machine(raw["machine_info"])
    path = path_of(machine)
    results.write_json(path, {"machine": machine, "figures": timings.medians(raw)})
    with rc_context(drawing.style()):
        caption = (
            "How many bare forward passes an explanation takes, over the commits at which it was "
            f"measured on {machine['processor']}; a lower line is faster."
        )
        drawing.write(path.with_suffix(""), over_commits(project, history(path)), caption)
    print(f"{path}: commit it, and compare with `make runtime-compare REV=HEAD~1`")
    return path


def path_of(machine: dict[str, Any]) -> Path:
    """The file of a machine, named by what it computes with."""
    on_cpu = f"{machine['processor']} {machine['cores']} cores"
    name = on_cpu if machine["device"] == "cpu" else machine["device"]
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-")
    return MACHINES / f"{slug}.json"


def git(*arguments: str) -> str:
    """What git says of the working folder, which is that of the results."""
    return read_git(*arguments, folder=Path())


def this_machine() -> Path:
    """The file of the machine at hand."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    own = timings.processor(pytest_benchmark_generate_machine_info())  # type: ignore[no-untyped-call]
    return path_of({"processor": own, "device": device, "cores": os.cpu_count()})


def recorded_at(revision: str, path: Path) -> Path:
    """Which machine's file of a commit to compare that of the machine `path` with.

    Its own, or else that of the first other machine there, which a line then says.

    Raises:
        ValueError: no such commit, or none has figures there.
    """
    there = git("ls-tree", "--name-only", revision, f"{path.parent}/").split()
    files = [Path(name) for name in there if name.endswith(".json")]
    if not files:
        raise ValueError(
            f"{revision} has no figures in {path.parent}: expected those of a machine, compare "
            "with a commit after `make runtime`"
        )
    if path in files:
        return path
    print(f"{path.name} is not in {revision}: compared with {files[0].name}")
    return files[0]


def figures_at(revision: str, path: Path) -> Figures:
    """The figures in a machine's file at a commit."""
    found: Figures = json.loads(git("show", f"{revision}:./{path}"))["figures"]
    return found


def history(path: Path) -> dict[str, Figures]:
    """The figures of a machine at every commit that changed them, and in the working tree."""
    commits = git("log", "--reverse", "--format=%h", "--", str(path)).split()
    found = {commit: figures_at(commit, path) for commit in commits}
    now = results.read_json(path)["figures"]
    if not found or list(found.values())[-1] != now:
        found["now"] = now
    return found


def compare(revision: str, tolerance: float = TOLERANCE) -> list[Change]:
    """Print what became slower or faster since a commit; returns what became slower.

    Raises:
        ValueError: nothing is recorded here or there, or the two have no explainer in common.
    """
    path = this_machine()
    if not path.is_file():
        raise ValueError(f"{path} not found: record this machine's runtime with `make runtime`")
    other = recorded_at(revision, path)
    then, now = figures_at(revision, other), results.read_json(path)["figures"]
    found = changes(then, now)
    if not found:
        raise ValueError(f"{path} here and {other} of {revision} have no explainer in common")
    suspects = [change for change in found if change.slower(tolerance)]
    slower = [change for change in measure_again(suspects) if change.slower(tolerance)]
    faster = [change for change in found if change.faster(tolerance)]
    for title, rows in (("slower", slower), ("faster", faster)):
        if rows:
            print(f"{title} than at {revision}, in bare forward passes:\n\n{table(rows)}\n")
    if not slower:
        print(f"none of {len(found)} explainers became slower since {revision}")
    for title, old, new in (("new", then, now), ("gone", now, then)):
        names = sorted(set(pairs(new)) - set(pairs(old)))
        if names:
            print(f"{title}: {', '.join(f'{e} on {b}' for b, e in names)}")
    return slower


def pairs(figures: Figures) -> list[tuple[str, str]]:
    """Backbone and explainer of everything that has a ratio."""
    return [
        (backbone, explainer)
        for backbone, own in figures.items()
        for explainer, values in own.items()
        if ratios(values)
    ]


def ratios(values: dict[str, float]) -> dict[str, float]:
    """The multiples of the bare forward pass, by batch size."""
    prefix = "ratio_"
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def changes(then: Figures, now: Figures) -> list[Change]:
    """Every explainer that has figures of the same batch sizes in both."""
    found = []
    for backbone, explainer in pairs(now):
        old = ratios(then.get(backbone, {}).get(explainer, {}))
        new = ratios(now[backbone][explainer])
        sizes = [size for size in old if size in new]
        if sizes:
            found.append(
                Change(backbone, explainer, {s: old[s] for s in sizes}, {s: new[s] for s in sizes})
            )
    return found


def measure_again(suspects: list[Change]) -> list[Change]:
    """Measured once more, each with the smaller of its two multiples."""
    if not suspects:
        return []
    tests = [
        f"test_runtime.py::test_explainer[{c.backbone}-{c.explainer}-{size}]"
        for c in suspects
        for size in c.now
    ]
    again = timings.medians(timings.measure(*tests, f"--seconds={SECONDS}"))
    return [
        c._replace(
            now={
                size: min(value, ratios(again[c.backbone][c.explainer])[size])
                for size, value in c.now.items()
            }
        )
        for c in suspects
    ]


def table(found: list[Change]) -> str:
    """Changes as Markdown, the largest first."""
    rows = []
    for change in sorted(found, key=lambda c: -max(c.factors)):
        row = {"backbone": change.backbone, "explainer": change.explainer}
        for size, factor in zip(change.then, change.factors, strict=True):
            then, now = change.then[size], change.now[size]
            row[f"{size} images" if size != "1" else "1 image"] = (
                f"{then:.3g} → {now:.3g} (×{factor:.2f})"
            )
        rows.append(row)
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def over_commits(project: Project, found: dict[str, Figures]) -> Figure:
    """Multiples of the bare forward pass over commits, a row a backbone, a column a kind.

    Those of the largest batch; one line an explainer.
    """
    cells = {b: describe_explainers(project, b) for b in next(reversed(found.values()))}
    present = {kind for table in cells.values() for kind in table["kind"]}
    kinds = [kind for kind in drawing.STYLES if kind in present]
    figure, axes = drawing.canvas(
        len(cells), len(kinds), 5.2 * len(cells), max(drawing.WIDTH, 2.6 * len(kinds)), sharex=True
    )
    for row, (backbone, explainers) in zip(axes, cells.items(), strict=True):
        for axis, kind in zip(row, kinds, strict=True):
            own = explainers[explainers["kind"] == kind]
            axis.set_visible(len(own) > 0)
            for i, (name, label) in enumerate(zip(own["explainer"], own["label"], strict=True)):
                values = [largest(figures, backbone, name) for figures in found.values()]
                colour, marker = (c[i % len(c)] for c in (drawing.LINES, drawing.MARKERS))
                axis.plot(values, marker=marker, color=colour, label=label)
            axis.set(yscale="log", xlim=(-0.5, len(found) - 0.5))
            axis.set_title(kind, color=drawing.STYLES[kind][0], fontweight="bold")
            low, high = axis.get_ylim()
            axis.set_ylim(low / 1.5, high * 1.5)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_xticks(range(len(found)), list(found), rotation=60)
            if len(own):
                below = -0.38 if axis in axes[-1] else -0.1  # the commits stand under the last row
                axis.legend(loc="upper center", bbox_to_anchor=(0.5, below), frameon=False)
        row[0].set_ylabel(f"{backbone}: bare forward passes")
    return figure


def largest(figures: Figures, backbone: str, explainer: str) -> float:
    """The multiple of the largest batch, NaN for an explainer without figures."""
    own = ratios(figures.get(backbone, {}).get(explainer, {}))
    return own[max(own, key=int)] if own else float("nan")


if __name__ == "__main__":
    main()
