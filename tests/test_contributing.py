"""The examples of CONTRIBUTING.md and of the README work as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import tiny_cnn
from test_pipeline import small

import methods
from benchmark import check, evaluate, explain, images, train
from benchmark.commands import layers
from benchmark.core import params, results
from benchmark.core.params import Backbone
from benchmark.engine.promises import PROMISES, Case, broken_promises

ROOT = Path(__file__).parents[1]


def example(name: str, document: str = "CONTRIBUTING.md") -> str:
    """The code block that a document puts below the comment naming it."""
    text = (ROOT / document).read_text()
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_adding_an_explainer_is_a_file_and_a_line(tmp_path: Path) -> None:
    for name in ("benchmark", "methods", "metrics", "tests", "dvc.yaml", "params.yaml"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(source, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "methods" / "gradcam_elementwise.py").write_text(
        example("methods/gradcam_elementwise.py")
    )
    line = example("params.yaml")
    assert line.count("\n") == 1
    params = (tmp_path / "params.yaml").read_text()
    added = params.replace("\nexplainers:\n", f"\nexplainers:\n{line}")
    assert added.count(line) == 1
    (tmp_path / "params.yaml").write_text(added)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["tests/methods/test_contract.py", "tests/benchmark/core/test_cells.py"]
    command += ["-k", "gradcam_elementwise or cells_are_every"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    real_network, odd_networks, pairs = 1, 2, 1
    assert int(passed[1]) == len(PROMISES) + real_network + odd_networks + pairs


def test_adding_a_backbone_takes_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = yaml.safe_load(example("a backbone"))
    given = added["backbones"]["resnet18"]
    assert Backbone.model_validate(given) == layers.suggest("resnet18")
    given["weights"] = "none"  # nothing can be fetched here
    raw = small()
    raw["images"] |= {"train": 4, "validation": 2, "evaluation": 2}
    raw["explainers"] = {name: raw["explainers"][name] for name in ("ttame", "gradcam")}
    raw["evaluate"]["metrics"] = {"confidence": {"settings": {"kept": [50]}}}
    raw["backbones"], raw["ablation"] = added["backbones"], {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    loaded = params.load()
    check.main(loaded)
    images.main(loaded)
    for stage in (train, explain, evaluate):
        stage.main(loaded, "resnet18")
    for explainer in raw["explainers"]:
        scores = pd.read_csv(results.scores_path("resnet18", explainer))
        assert scores["image"].nunique() == 2
        assert scores.loc[scores["metric"] == "average_drop", "value"].between(0, 100).all()


def test_an_explainer_with_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands: every promise is kept."""
    (tmp_path / "brightness.py").write_text(example("settings"))
    monkeypatch.syspath_prepend(tmp_path)
    cls, backbone = methods.load("brightness:Brightness"), tiny_cnn()
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    case = Case(cls, backbone, pixels, torch.tensor([0, 3, 3]), {"exponent": 3.0})
    assert broken_promises(case) == []
    with pytest.raises(ValueError, match="exponent is 0: expected more than 0"):
        methods.build(cls, backbone, {"exponent": 0})
