"""A refactoring is proved by steps of the old and the new code; anything else is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_pipeline import CNN, small

from benchmark.commands import renew

ROOT = Path(__file__).parents[3]
NAME = f"{CNN}/ttame"
VARIANT = f"{CNN}/ttame/baseline"


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """A command with the suite that is in the folder."""
    return subprocess.run(
        list(command),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def run_module(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(folder, sys.executable, "-m", *arguments)


def commit(folder: Path) -> str:
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "code"]):
        done = run(folder, "git", "-c", "user.name=a", "-c", "user.email=b", *command)
        assert done.returncode == 0, done.stderr
    return run(folder, "git", "rev-parse", "HEAD").stdout.strip()


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "benchmark" / "engine" / "training.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


pytestmark = pytest.mark.xdist_group("renew")
"""One worker trains, once."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git clone of the suite in which T-TAME and its study have been trained."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("benchmark", "methods", "metrics", "data/sample"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    raw: dict[str, Any] = small()
    raw["images"] |= {"train": 100, "validation": 2, "evaluation": 2}
    raw["backbones"] = {CNN: raw["backbones"][CNN] | {"skip": []}}
    raw["explainers"] = {"ttame": raw["explainers"]["ttame"]}
    raw["tables"]["short"] = []
    raw["ablation"][CNN] = {"baseline": raw["ablation"][CNN]["baseline"]}
    for recipe in ("train", "ablate"):
        raw[recipe] |= {"images": 8, "batch_size": 4}
    raw["evaluate"]["metrics"] = {"confidence": {"settings": {"kept": [50]}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (folder / ".gitignore").write_text("results/\nwork/\n__pycache__/\n")
    commit(folder)
    for stage in (["check"], ["images"], ["train", CNN], ["ablate", CNN]):
        done = run_module(folder, f"benchmark.{stage[0]}", *stage[1:])
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_refactoring_renews_and_a_change_does_not(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    before = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    assert "fresh: nothing to renew" in run_module(folder, "benchmark", "renew", NAME).stdout
    edit(folder, "    trainee.train()\n", "    trainee.train(mode=True)\n")
    after = commit(folder)
    for name in (NAME, VARIANT):
        done = run_module(folder, "benchmark", "renew", name)
        assert "2 steps differ by 0.0e+00" in done.stdout, done.stderr
    records = json.loads((folder / "results" / "states" / CNN / "keys.json").read_text())
    (proof,) = records["ttame"]["renewed"]
    assert proof | {"from": before, "to": after, "steps": 2, "difference": 0.0} == proof
    stamp = (folder / "results" / "states" / CNN / "ttame.safetensors").stat().st_mtime_ns
    for stage in ("train", "ablate"):
        done = run_module(folder, f"benchmark.{stage}", CNN)
        assert "training" not in done.stderr, done.stderr
    path = folder / "results" / "states" / CNN / "ttame.safetensors"
    assert path.stat().st_mtime_ns == stamp
    edit(folder, "    trainee.eval()\n", "    trainee.train(mode=False)\n")
    done = run_module(folder, "benchmark", "renew", NAME)
    assert "training.py is not committed: expected the code of a commit" in done.stderr
    commit(folder)
    assert "2 steps differ by" in run_module(folder, "benchmark", "renew", NAME).stdout
    edit(folder, 'losses["loss"]).backward()', '(1.01 * losses["loss"])).backward()')
    commit(folder)
    done = run_module(folder, "benchmark", "renew", NAME)
    assert done.returncode == 1
    assert "the change is no refactoring" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_variant_whose_states_are_away_is_renewed_by_its_rows(
    trained: Path, tmp_path: Path
) -> None:
    """As in a clone, which has the rows of the study alone."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "results" / "variants")
    before = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    assert "nothing to renew" in run_module(folder, "benchmark", "renew", VARIANT).stdout
    edit(folder, "    trainee.train()\n", "    trainee.train(mode=True)\n")
    after = commit(folder)
    done = run_module(folder, "benchmark", "renew", VARIANT)
    assert "are not here: expected --commit, whose code trained them" in done.stderr
    done = run_module(folder, "benchmark", "renew", VARIANT, "--commit", after)
    assert "was trained by code that is not that of its commit" in done.stderr
    done = run_module(folder, "benchmark", "renew", VARIANT, "--commit", before)
    assert "2 steps differ by 0.0e+00" in done.stdout, done.stderr
    keys = folder / "results" / "ablation" / CNN / "keys.json"
    (proof,) = json.loads(keys.read_text())["baseline"]["renewed"]
    assert (proof["from"], proof["to"], proof["difference"]) == (before, after, 0.0)
    done = run_module(folder, "benchmark.ablate", CNN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # the rows are fresh
    shutil.rmtree(folder / "results" / "ablation")
    done = run_module(folder, "benchmark", "renew", VARIANT, "--commit", before)
    assert "is not trained: expected a state or rows of it" in done.stderr


@pytest.mark.slow
def test_what_is_stale_for_another_reason_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("gain: 0.1", "gain: 0.2"))
    done = run_module(folder, "benchmark", "renew", NAME)
    assert "is stale (parameters): expected a change of the code alone" in done.stderr
    for name, message in (
        (f"{CNN}/rise", "is not trained: expected one of efficientnet_lite0/ttame"),
        (f"{CNN}/ttame/x", "no variant 'x'"),
        ("vgg/ttame", "unknown backbone 'vgg'"),
    ):
        assert message in run_module(folder, "benchmark", "renew", name).stderr


def steps(**changes: Any) -> dict[str, Any]:
    return {
        "steps": 20,
        "optimiser": [{"lr": 0.1}],
        "updates": {"weight": [1.0, -4.0, 0.0]},
    } | changes


def test_the_largest_difference_is_of_the_largest_update_of_a_tensor() -> None:
    new = steps(updates={"weight": [1.0, -4.0, 2e-5]})
    found = renew.largest_difference(steps(), new, "x", "abc")
    assert found == pytest.approx(2e-5 / 4)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (steps(optimiser=[{"lr": 0.2}]), "other settings"),
        (steps(updates={"other": [1.0]}), "other tensors"),
        (steps(updates={"weight": [1.0]}), "weight has another shape"),
        (steps(updates={"weight": [1.0, -4.0, 1e-3]}), r"weight differs .* by 2.5e-04 of its"),
        (steps(updates={"weight": [1.0, np.nan, 0.0]}), "weight differs .* by nan"),
    ],
)
def test_what_trains_otherwise_is_named(new: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        renew.largest_difference(steps(), new, "x", "abc")
