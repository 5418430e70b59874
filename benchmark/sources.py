"""Write which source files every stage and every explainer is made of, with their checksums.

And what the measures of the metrics are, for who reads scores without the metrics' code.

DVC's stages depend on these lists instead of on files: a stage runs again when a file changes that
its module or its explainer imports, directly or not, and when any other file changes it does not.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import metrics
from benchmark import store
from benchmark.params import Params
from benchmark.stage import run

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmark", "methods", "metrics")

STAGES = (
    *("distill", "subset", "photographs", "train", "explain", "evaluate", "randomise", "ablate"),
    *("runtime", "tables", "plots", "page"),
)
"""The stages of every profile's pipeline, but this one."""

ANY = "metrics"
"""A file that imports this package as a whole may load any of its modules by name."""


def main(params: Params) -> None:
    """Write the lists of every other stage, and of every explainer of params.yaml."""
    for stage in STAGES:
        write(store.sources_path("stages", stage), closure(ROOT / "benchmark" / f"{stage}.py"))
    explainers = {cell.explainer: cell.load for cell in params.cells.values()}
    explainers |= {head.explainer: None for head in params.heads.values()}
    explainers |= {head.explainer: None for head in params.ablation.values()}
    for name, load in explainers.items():
        write(store.sources_path("explainers", name), explainer_files(name, load))
    store.write_json(store.measures_path(), described())


def described() -> dict[str, dict[str, Any]]:
    """Every measure of every metric, as measures.Measure has it."""
    return {
        measure.name: {
            "metric": name,
            "label": measure.label,
            "unit": measure.unit,
            "bounds": measure.bounds,
            "higher_is_better": measure.higher_is_better,
        }
        for name in metrics.names()
        for measure in metrics.load(name).measures
    }


def write(path: Path, files: frozenset[Path]) -> None:
    """Write the checksums of files, by their path in the repository or else by their name."""
    names = {f: str(f.relative_to(ROOT)) if f.is_relative_to(ROOT) else f.name for f in files}
    digests = {names[f]: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    store.write_json(path, dict(sorted(digests.items())))


def explainer_files(name: str, load: str | None) -> frozenset[Path]:
    """The files of an explainer: of methods/, or the module of `package.module:Class`.

    Raises:
        ValueError: there is no such module.
    """
    if load is None:
        path = ROOT / "methods" / f"{name}.py"
    else:
        try:
            spec = importlib.util.find_spec(load.partition(":")[0])
        except ModuleNotFoundError:
            spec = None
        path = Path(spec.origin) if spec is not None and spec.origin else Path(load)
    if not path.is_file():
        raise ValueError(
            f"explainer {name!r} has no file {path.name}: expected methods/{name}.py, or "
            "load: package.module:Class of an installed package"
        )
    return closure(path)


@functools.cache
def closure(path: Path) -> frozenset[Path]:
    """A file and everything of this repository that it imports, directly or not."""
    found: set[Path] = set()
    queue = [path]
    while queue:
        file = queue.pop()
        if file not in found:
            found.add(file)
            queue.extend(imported(file))
    return frozenset(found)


@functools.cache
def imported(path: Path) -> frozenset[Path]:
    """Files of this repository that a file imports by itself."""
    names: set[str] = set()
    whole = False
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            whole |= any(alias.name == ANY for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = set((ROOT / ANY).glob("*.py")) if whole else set()
    for name in names:
        parts = name.split(".")
        if parts[0] in PACKAGES:
            module = ROOT.joinpath(*parts).with_suffix(".py")
            files |= {f for f in (ROOT / parts[0] / "__init__.py", module) if f.is_file()}
    return frozenset(f for f in files if has_code(f))


@functools.cache
def has_code(path: Path) -> bool:
    """Whether a file has more than a docstring: benchmark/__init__.py has nothing to run."""
    body = ast.parse(path.read_text()).body
    return any(not isinstance(node, ast.Expr) for node in body)


if __name__ == "__main__":
    run(main)
