"""A stage refuses wrong input with one line and a non-zero exit, and writes nothing."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest

from benchmark.core import stage
from benchmark.core.memory import read_memory
from benchmark.data.seeds import seed_of

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the parameters and the sample."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(command: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The line with which a stage ends; what SystemExit carries is printed and gives status 1."""
    monkeypatch.setattr(sys, "argv", command)
    read_memory.cache_clear()
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    line = str(stopped.value.code)
    assert line.startswith(f"{command[0].removeprefix('benchmark.')}: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("old", "new", "command", "message"),
    [
        ("max_lr: 0.001", "lr: 0.1", ["benchmark.train", "vit_sample"], "unknown key 'train.lr'"),
        (
            "seed: 0",
            "seed: 0",
            ["benchmark.explain", "rice"],
            "unknown backbone 'rice': expected one of efficientnet_lite0, vit_sample",
        ),
        (
            "  rise: {",
            "  rise: {load: rice, ",
            ["benchmark.check"],
            "explainer 'rise' has no module rice: expected methods/rise.py, or load",
        ),
        (
            "    road: {",
            "    raod: {",
            ["benchmark.check"],
            "unknown metric 'raod': expected one of complexity, confidence",
        ),
        (
            "cam_layer: bn2",
            "cam_layer: bm2",
            ["benchmark.train", "efficientnet_lite0"],
            "no layer 'bm2': near names are bn2",
        ),
        (
            "weights: packaged",
            "weights: imagenet",
            ["benchmark.train", "efficientnet_lite0"],
            "weights is 'imagenet'",
        ),
        (
            "vit_sample.safetensors",
            "nowhere.safetensors",
            ["benchmark.check"],
            "weights file data/sample/nowhere.safetensors not found",
        ),
    ],
    ids=[
        *("unknown key", "unknown backbone", "unknown explainer", "unknown metric"),
        *("unknown layer", "unknown weights", "missing weights"),
    ],
)
def test_wrong_parameters(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    command: list[str],
    message: str,
) -> None:
    change(folder, old, new)
    monkeypatch.chdir(folder)
    assert message in refused(command, monkeypatch)
    assert capsys.readouterr() == ("", "")
    assert {p.name for p in folder.iterdir()} - {"work"} == {"data", "params.yaml"}


def test_damaged_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "data" / "sample", folder / "sample")
    change(folder, "folder: data/sample", "folder: sample")
    victim = folder / "sample" / "cutouts" / "food-fruit-banana.webp"
    victim = victim if victim.exists() else next((folder / "sample" / "cutouts").glob("*.webp"))
    victim.write_bytes(victim.read_bytes()[:200])
    monkeypatch.chdir(folder)
    line = refused(["benchmark.images"], monkeypatch)
    assert f"damaged cut-out sample/cutouts/{victim.name}" in line
    assert not (folder / "results").exists()


def test_seeds_are_stable_and_differ() -> None:
    assert seed_of(0, "evaluate", "evaluation-00001") == seed_of(0, "evaluate", "evaluation-00001")
    assert len({seed_of(0, "a"), seed_of(0, "b"), seed_of(1, "a"), seed_of("0", "a")}) == 4
    assert 0 <= seed_of("x") < 2**63


def failing(_params: object) -> None:
    """A stage with a fault."""
    raise KeyError("what\nnobody foresaw")


def test_what_nobody_foresaw_is_one_line_and_a_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["failing"])
    with pytest.raises(SystemExit) as stopped:
        stage.run(failing)
    line = str(stopped.value.code)
    (log,) = (folder / "work" / "logs").iterdir()
    assert "KeyError: 'what" in line
    assert "(in test_stage.py:" in line
    assert line.endswith(f"run the same command again, or report it with {log.relative_to(folder)}")
    assert "\n" not in line
    assert "in failing\n" in log.read_text()
