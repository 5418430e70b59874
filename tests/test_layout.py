"""The architecture holds: import directions, stages and modules, parameters."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

import methods
from benchmark.__main__ import STAGES
from benchmark.core import sources
from benchmark.core.params import Compositions, Params

ROOT = Path(__file__).parents[1]
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PART = "benchmark"
ALLOWED = {
    "core": {"core", "engine.recipe"},
    "data": {"data"},
    "engine": {"data", "engine"},
    "report": {"core", "data", "engine", "report"},
    "commands": {"core", "data", "engine", "report", "commands"},
    "stage": {"core", "data", "engine", "report"},
}
"""What a part of benchmark/ may import of it."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports, those within functions and for types alone included."""
    return grimp.build_graph(*sources.PACKAGES, cache_dir=None)


def part_of(module: str) -> str:
    """The part of benchmark/ that a module is in, `stage` for a file directly in it."""
    names = module.split(".")[1:]
    return names[0] if names and names[0] in ALLOWED else "stage"


@pytest.mark.parametrize("package", ["methods", "metrics"])
def test_leaves_import_only_themselves(graph: grimp.ImportGraph, package: str) -> None:
    for module in (package, *graph.find_descendants(package)):
        others = {sources.top(m) for m in graph.find_modules_directly_imported_by(module)}
        assert others <= {package}, f"{module} imports {others - {package}}"


def test_no_module_imports_a_stage(graph: grimp.ImportGraph) -> None:
    for stage in STAGES:
        importers = graph.find_modules_that_directly_import(f"benchmark.{stage}")
        assert importers == set(), f"{stage} is imported by {importers}"


def test_parts_import_what_they_may(graph: grimp.ImportGraph) -> None:
    for module in graph.find_descendants(PART):
        allowed = ALLOWED[part_of(module)]
        for found in graph.find_modules_directly_imported_by(module):
            if sources.top(found) == PART and found != PART:
                name = found.removeprefix("benchmark.")
                kept = name.split(".")[0] in allowed or name in allowed
                assert kept, f"{module} imports {found}"


def test_what_computes_knows_neither_parameters_nor_store() -> None:
    for name in ("methods", "metrics", "benchmark.data", "benchmark.engine"):
        modules = [name, *sources.graph("benchmark").find_descendants(name)]
        found = {m for m in sources.closure(frozenset(modules)) if m.startswith("benchmark.core")}
        assert found == set(), f"{name} reaches {found}"


def test_no_cycles_but_through_packages(graph: grimp.ImportGraph) -> None:
    for module in graph.modules:
        if not graph.find_descendants(module):  # not a package
            upstream = graph.find_modules_directly_imported_by(module)
            inner = {m for m in upstream if not graph.find_descendants(m)}
            assert module not in inner.union(*map(graph.find_upstream_modules, inner)), module


def test_a_file_in_benchmark_is_a_stage_and_nothing_else_is() -> None:
    files = {p.stem for p in (ROOT / "benchmark").glob("*.py")} - {"__init__", "__main__"}
    assert files == set(STAGES) == set(PIPELINE)
    folders = {p.name for p in (ROOT / "benchmark").iterdir() if p.is_dir()} - {"__pycache__"}
    assert folders == set(ALLOWED) - {"stage"}
    for stage in PIPELINE:
        assert body(stage)["cmd"].split()[:2] == ["${launch}", f"benchmark.{stage}"]
    for path in (ROOT / "benchmark" / "commands").glob("[a-z]*.py"):
        assert "__main__" in path.read_text(), f"{path.name} cannot be run"


def test_stages_and_commands_are_listed_with_a_line_each() -> None:
    run = [sys.executable, "-m", "benchmark"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    commands = {p.stem for p in (ROOT / "benchmark" / "commands").glob("[a-z]*.py")}
    listed = {line.split()[0]: line for line in done.stdout.splitlines() if line[:2] == "  "}
    assert listed.keys() == commands | set(STAGES)
    assert all(len(line) > 30 and len(line) <= 120 for line in listed.values())
    wrong = subprocess.run([*run, "x"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "no stage or command 'x'" in wrong.stderr


def body(stage: str) -> dict[str, Any]:
    entry: dict[str, Any] = PIPELINE[stage]
    do: dict[str, Any] = entry.get("do", entry)
    return do


def test_every_stage_but_the_first_depends_on_what_dvc_cannot_see() -> None:
    for stage in STAGES[1:]:
        assert "results/check.json" in body(stage)["deps"], stage
    assert PIPELINE["check"]["always_changed"]


READS = {
    "images": set(),
    "train": {"splits"},
    "explain": {"splits", "states"},
    "evaluate": {"splits", "maps"},
    "randomise": {"splits", "states", "maps"},
    "ablate": {"splits"},
    "runtime": {"splits", "states"},
    "tables": {"scores", "cost", "targets", "delta", "randomisation", "ablation", "curves"},
    "plots": {"tables", "curves", "maps", "targets", "runtime", "splits"},
    "page": {"tables", "plots", "scores", "maps", "targets", "runtime", "splits"},
}
"""The folders of results/ that a stage reads, each written by one before it."""


def test_a_stage_waits_for_what_it_reads() -> None:
    assert list(READS) == list(STAGES[1:])
    written: set[str] = set()
    for stage in STAGES:
        found = {
            Path(path).parts[1]
            for path in body(stage).get("deps", [])
            if Path(path).parts[0] == "results" and path != "results/check.json"
        }
        assert found == READS.get(stage, set()), stage
        assert found <= written, stage
        outs = [*body(stage).get("outs", []), *body(stage).get("metrics", [])]
        written |= {Path(path).parts[1] for out in outs for path in out}


def test_every_result_is_kept_while_a_stage_runs() -> None:
    for stage in STAGES:
        for group in ("outs", "metrics"):
            for out in body(stage).get(group, []):
                ((path, settings),) = out.items()
                assert settings["persist"], path


def test_every_section_of_the_parameters_makes_a_stage_start() -> None:
    named = {entry.split(".")[0] for stage in STAGES for entry in body(stage).get("params", [])}
    assert named == set(Params.model_fields) - {"launch", "code"}


def test_the_pipeline_is_small() -> None:
    each = sum("foreach" in PIPELINE[stage] for stage in STAGES)
    assert len(STAGES) - each + each * 2 < 20  # with two backbones
    listed = subprocess.run(
        ["git", "ls-files", "*dvc.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = [p for p in listed.stdout.split() if not p.startswith("profiles/")]
    assert found in (["dvc.yaml"], [])


def test_packages_are_the_checkout() -> None:
    assert Path(methods.__file__).parent == ROOT / "methods"


def test_backbones_with_the_same_weights_see_the_same_images(settings: Params) -> None:
    assert isinstance(settings.images, Compositions)
    for spec in settings.backbones.values():
        assert spec.size == settings.images.size


def test_locked_requirements_name_no_index() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all("==" in line.split(";")[0] for line in lines if line)
    assert not any(line.startswith("-") or "://" in line for line in lines)


def test_no_bytecode_or_large_file_is_tracked() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        assert "__pycache__" not in name
        limit = 8_000_000 if path.suffix == ".safetensors" else 2_000_000
        assert not path.is_file() or path.stat().st_size < limit, f"{name} is too large"
