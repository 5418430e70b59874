"""The examples of CONTRIBUTING.md work as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from contract import PROMISES
from test_pipeline import small

from benchmark import evaluate, explain, layers, params, subset, train
from benchmark.params import BackboneSpec

ROOT = Path(__file__).parents[1]


def example(name: str) -> str:
    """The code block that CONTRIBUTING.md puts below the comment naming it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_adding_an_explainer_is_a_file_and_a_line(tmp_path: Path) -> None:
    for name in ("benchmark", "methods", "metrics", "tests", "dvc.yaml", "pipeline", "params.yaml"):
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
    (tmp_path / "params.yaml").write_text(params.replace("\ncells:\n", f"\ncells:\n{line}"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["tests/methods/test_contract.py", "tests/test_layout.py"]
    command += ["-k", "gradcam_elementwise or supported_pairs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "supported_pairs" not in done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    real_network, pairs = 1, 1
    assert int(passed[1]) == len(PROMISES) + real_network + pairs


def test_adding_a_backbone_takes_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = yaml.safe_load(example("a backbone"))
    given = added["backbones"]["resnet18"]
    suggested = layers.suggest("resnet18").model_copy(update={"weights": given["weights"]})
    assert BackboneSpec.model_validate(given) == suggested
    given["weights"] = "none"  # nothing can be fetched here
    raw = small()
    raw["subset"]["images"] = {"train": 4, "validation": 2, "evaluation": 2}
    raw |= {key: raw[key] | entries for key, entries in added.items()}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    loaded = params.load()
    subset.main(loaded)
    for head in added["heads"]:
        train.main(loaded, head)
    for cell, spec in added["cells"].items():
        (tmp_path / "results" / "sources" / "explainers").mkdir(parents=True, exist_ok=True)
        explain.store.write_json(explain.store.sources_path("explainers", spec["explainer"]), {})
        explain.main(loaded, cell)
        evaluate.main(loaded, cell)
        scores = pd.read_csv(explain.store.scores_path("resnet18", spec["explainer"]))
        assert scores["image"].nunique() == 2
        assert scores.loc[scores["metric"] == "average_drop", "value"].between(0, 100).all()
