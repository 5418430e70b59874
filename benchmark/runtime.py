"""Time the explainers that have no timing with pytest-benchmark, or all of them anew."""

from benchmark.core import results, timings
from benchmark.core.cells import FORWARD, Project
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.store import Shelf

RAW, MEDIANS = results.RUNTIME / "raw.json", results.RUNTIME / "medians.json"


def main(params: Params, again: bool = False) -> None:
    """Write results/runtime/raw.json and medians.json.

    In a clone that has timings nothing is timed but what is new there, or all of it, `again`.
    """
    project = Project(params)
    shelf = Shelf(results.RUNTIME)
    every = project.timings()
    raw = results.read_json(RAW) if RAW.is_file() and not again else None
    timed = {timings.cell_of(entry) for entry in raw["benchmarks"]} if raw else set()
    due = {n: made for n, made in every.items() if n not in timed or made.name not in shelf.records}
    if due:
        tests = (
            []
            if due.keys() == every.keys()
            else [node for name in due for node in nodes_of(params, *name)]
        )
        new = timings.measure(*(tests or ["test_runtime.py"]))
        raw = timings.merge(raw, new, set(every))
        shelf.record(due.values())
    elif raw:
        kept = [entry for entry in raw["benchmarks"] if timings.cell_of(entry) in every]
        raw = raw | {"benchmarks": kept}
    if raw is not None:
        results.write_if_changed(RAW, raw)
        results.write_if_changed(MEDIANS, timings.medians(raw))
    shelf.keep(every.values())


def nodes_of(params: Params, backbone: str, explainer: str) -> list[str]:
    """The tests that time an explainer, or the bare forward pass, as pytest calls them."""
    name = "forward" if explainer == FORWARD else "explainer"
    cell = backbone if explainer == FORWARD else f"{backbone}-{explainer}"
    counts = sorted({1, params.runtime.batch})
    return [f"test_runtime.py::test_{name}[{cell}-{count}]" for count in counts]


if __name__ == "__main__":
    run(main, "--again")
