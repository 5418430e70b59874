"""The architecture holds: import directions, stages and modules, parameters and cells."""

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import methods
from benchmark import sources
from benchmark.params import Params
from methods import TrainableExplainer

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = "profiles/imagenet/pipeline/photographs"
PIPELINE: dict[str, Any] = {
    stage: entry
    for path in sorted(
        [
            ROOT / "dvc.yaml",
            *ROOT.glob("pipeline/*/dvc.yaml"),
            *ROOT.glob(f"{PHOTOGRAPHS}/dvc.yaml"),
        ]
    )
    for stage, entry in yaml.safe_load(path.read_text())["stages"].items()
}


TESTS = "${code}/tests/"


def modules() -> list[Path]:
    return sorted(p for package in sources.PACKAGES for p in (ROOT / package).glob("*.py"))


@pytest.mark.parametrize("package", ["methods", "metrics"])
def test_leaves_import_only_themselves(package: str) -> None:
    for path in (ROOT / package).glob("*.py"):
        others = {f.parent.name for f in sources.imported(path)} - {package}
        assert others == set(), f"{path} imports {others}"


def test_no_cycles_but_through_packages() -> None:
    for path in modules():
        if path.name != "__init__.py":
            modules_alone = {i for i in sources.imported(path) if i.name != "__init__.py"}
            inner = {f for i in modules_alone - {path} for f in sources.closure(i)}
            assert path not in inner, f"{path} is part of a cycle"


def test_packages_are_the_checkout() -> None:
    assert Path(methods.__file__).parent == ROOT / "methods"


def body(stage: str) -> dict[str, Any]:
    entry: dict[str, Any] = PIPELINE[stage]
    do: dict[str, Any] = entry.get("do", entry)
    return do


def test_every_stage_is_a_module_of_its_name() -> None:
    for stage in PIPELINE:
        assert body(stage)["cmd"].split()[:2] == ["${launch}", f"benchmark.{stage}"]
    runnable = {p.stem for p in (ROOT / "benchmark").glob("*.py") if "__main__" in p.read_text()}
    assert runnable == set(PIPELINE) | {
        *("compare", "convert", "index", "layers", "plan", "readme", "speed", "track", "warm")
    }
    assert set(PIPELINE) == {*sources.STAGES, "sources"}


@pytest.mark.parametrize("stage", sources.STAGES)
def test_stages_depend_on_their_source_files(stage: str) -> None:
    deps, group = set(body(stage)["deps"]), PIPELINE[stage].get("foreach", "")
    assert f"results/sources/stages/{stage}.json" in deps
    explains = group in ("${cells}", "${heads}", "${ablation}")
    assert ("results/sources/explainers/${item.explainer}.json" in deps) == explains
    assert not any(dep.endswith(".py") and not dep.startswith(TESTS) for dep in deps)


def test_runtime_depends_on_what_its_benchmarks_import() -> None:
    deps = body("runtime")["deps"]
    assert {"results/sources/explainers", "results/sources/stages/explain.json"} <= set(deps)
    known = sources.closure(ROOT / "benchmark" / "explain.py")
    timed = {dep.removeprefix("${code}/") for dep in deps if dep.startswith(TESTS)}
    assert timed
    for test in timed:
        assert sources.closure(ROOT / test) - {ROOT / test} <= known


READ_BUT_FIXED = {
    "evaluate": {"heads"},  # only the names; the trained state, a dependency, changes with the rest
    "explain": {"heads"},  # the trained state, a dependency, changes with them
    "ablate": {"train"},  # the module of that name, not the parameters
    "tables": {"code"},  # where the suite lies
}


@pytest.mark.parametrize("stage", PIPELINE)
def test_parameters_cover_what_the_stage_reads(stage: str) -> None:
    """Sections named as params.SECTION in a stage's module are its `params:` in dvc.yaml."""
    named = {entry.split(".")[0] for entry in body(stage)["params"]}
    read: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "benchmark" / f"{stage}.py").read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read |= {node.attr} if node.value.id == "params" else set()
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr == "entry":
            read |= {str(ast.literal_eval(node.args[0]))}
    sections = (read & set(Params.model_fields)) - READ_BUT_FIXED.get(stage, set())
    assert sections <= named, f"{stage} reads {sections - named}, which its params do not name"


LEFT_OUT = {
    "efficientnet_lite0-tame": "on a CNN it is the same network as T-TAME",
    "vit_sample-ttame_untrained": "a control; one is enough",
}


def test_cells_are_the_supported_pairs(settings: Params) -> None:
    family = {"efficientnet_lite0": "cnn", "vit_sample": "transformer"}
    supported = {
        f"{backbone}-{name}"
        for backbone in settings.backbones
        for name in methods.names()
        if family[backbone] in methods.load(name).families
    }
    assert set(settings.cells) == supported - set(LEFT_OUT)


def test_a_cells_files_are_what_it_reads(settings: Params) -> None:
    for key, cell in settings.cells.items():
        trainable = issubclass(methods.load(cell.explainer), TrainableExplainer)
        assert (key in settings.heads) == trainable
        state = Path(f"results/states/{cell.backbone}/{cell.explainer}.safetensors")
        assert (cell.needs == state) == trainable
        weights = settings.backbones[cell.backbone].weights
        assert trainable or not Path(weights).exists() or cell.needs == Path(weights)


def test_a_heads_file_is_what_it_reads(settings: Params) -> None:
    for head in (*settings.heads.values(), *settings.ablation.values()):
        weights = Path(settings.backbones[head.backbone].weights)
        assert head.needs == (weights if weights.exists() else Path("results/splits/train.csv"))


def test_backbones_with_the_same_weights_see_the_same_images(settings: Params) -> None:
    assert settings.subset.classifier in settings.backbones
    for spec in settings.backbones.values():
        assert spec.size == settings.subset.size


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
