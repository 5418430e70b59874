"""Tracking: a planted slowdown is found, noise and a slower machine are not; clear refusals."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.commands import track
from benchmark.core import results

FIGURES: track.Figures = {
    "net": {
        "cheap": {"seconds_1": 0.01, "ratio_1": 1.02, "ratio_2": 1.01},
        "cam": {"seconds_1": 0.03, "ratio_1": 3.0, "ratio_2": 2.5},
        "rise": {"seconds_1": 0.4, "ratio_1": 40.0, "ratio_2": 36.0},
        "random": {"seconds_1": 1e-4, "ratio_1": 0.01, "ratio_2": 0.01},
        "forward": {"seconds_1": 0.01},
    }
}


def changed(**factors: tuple[float, float]) -> track.Figures:
    """The figures with other multiples of some explainers, for one image and for two."""
    own = {name: dict(values) for name, values in FIGURES["net"].items()}
    for name, by in factors.items():
        for size, factor in zip(("1", "2"), by, strict=True):
            own[name][f"ratio_{size}"] *= factor
    return {"net": own}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the recorded figures of this machine."""
    monkeypatch.chdir(tmp_path)
    path = track.MACHINES / "a-cpu-2-cores.json"
    monkeypatch.setattr(track, "this_machine", lambda: path)
    for key in ("NAME", "EMAIL"):
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_{key}", "t@example.org")
    track.git("init", "--quiet")
    track.git("commit", "--quiet", "--allow-empty", "-m", "empty")
    results.write_json(path, {"machine": {}, "figures": FIGURES})
    track.git("add", str(path))
    track.git("commit", "--quiet", "-m", "figures")
    return path


def look(monkeypatch: pytest.MonkeyPatch, again: track.Figures) -> list[str]:
    """Measuring once more gives `again`; which tests were run is returned in the list."""
    run: list[str] = []

    def measure(*tests: str) -> dict[str, Any]:
        run.extend(tests)
        return {}

    monkeypatch.setattr(track.timings, "measure", measure)
    monkeypatch.setattr(track.timings, "medians", lambda _raw: again)
    return run


def found(machine: Path, now: track.Figures) -> list[str]:
    results.write_json(machine, {"machine": {}, "figures": now})
    return [change.explainer for change in track.compare("HEAD")]


def test_a_planted_slowdown_is_found_alone(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = changed(cam=(1.5, 1.5), rise=(1.1, 0.95))
    run = look(monkeypatch, slow)
    assert found(machine, slow) == ["cam"]
    said = capsys.readouterr().out
    assert "slower than at HEAD" in said
    assert "3 → 4.5 (×1.50)" in said
    assert run[:2] == [f"test_runtime.py::test_explainer[net-cam-{size}]" for size in (1, 2)]


def test_what_a_second_look_undoes_is_noise(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, FIGURES)
    assert found(machine, changed(cam=(1.5, 1.5))) == []


def test_one_batch_size_or_a_little_time_is_not_enough(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = changed(cam=(1.5, 1.1), random=(2.0, 2.0), cheap=(1.2, 1.2))
    run = look(monkeypatch, now)
    assert found(machine, now) == []
    assert run == []
    assert "none of 4 explainers became slower since HEAD" in capsys.readouterr().out


def test_a_machine_twice_as_slow_changes_nothing(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {
        "net": {
            name: {key: v * (2 if key.startswith("seconds") else 1) for key, v in values.items()}
            for name, values in FIGURES["net"].items()
        }
    }
    look(monkeypatch, slow)
    assert found(machine, slow) == []


def test_faster_new_and_gone_are_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = changed(rise=(0.5, 0.5))
    now["net"]["mine"] = {"ratio_1": 2.0, "ratio_2": 2.0}
    del now["net"]["cheap"]
    look(monkeypatch, now)
    assert found(machine, now) == []
    said = capsys.readouterr().out
    assert "faster than at HEAD" in said
    assert "new: mine on net" in said
    assert "gone: cheap on net" in said


def test_another_machines_figures_are_compared_and_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = machine.with_name("b-gpu.json")
    monkeypatch.setattr(track, "this_machine", lambda: other)
    look(monkeypatch, FIGURES)
    assert found(other, FIGURES) == []
    assert "b-gpu.json is not in HEAD: compared with a-cpu-2-cores.json" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(machine: Path) -> None:
    with pytest.raises(ValueError, match="HEAD~1 has no figures in results/runtime/machines"):
        track.compare("HEAD~1")
    with pytest.raises(ValueError, match=r"git ls-tree .* nowhere .*expected a commit"):
        track.compare("nowhere")
    results.write_json(machine, {"machine": {}, "figures": {"net": {"mine": {"ratio_1": 1.0}}}})
    with pytest.raises(ValueError, match="have no explainer in common"):
        track.compare("HEAD")
    machine.unlink()
    with pytest.raises(ValueError, match=r"a-cpu-2-cores.json not found: .*make runtime"):
        track.compare("HEAD")


def test_history_has_every_commit_and_the_working_tree(machine: Path) -> None:
    first = track.git("rev-parse", "--short", "HEAD").strip()
    assert track.history(machine) == {first: FIGURES}
    now = changed(cam=(2.0, 2.0))
    results.write_json(machine, {"machine": {}, "figures": now})
    assert track.history(machine) == {first: FIGURES, "now": now}


def test_figure_over_commits_has_every_explainer(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = pd.DataFrame(
        [("cheap", "Cheap", "trained"), ("cam", "CAM", "CAM"), ("rise", "RISE", "perturbation")],
        columns=["explainer", "label", "kind"],
    )
    monkeypatch.setattr(track, "describe_explainers", lambda *_: kinds)
    figure = track.over_commits(None, {"abc": FIGURES, "now": changed(cam=(2.0, 2.0))})  # type: ignore[arg-type]
    assert len(figure.axes) == 3
    (line,) = figure.axes[1].lines
    assert line.get_ydata().tolist() == [2.5, 5.0]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["abc", "now"]


def test_machines_are_named_by_what_computes() -> None:
    cpu = {"processor": "Intel(R) Xeon(R) CPU @ 2.60GHz", "device": "cpu", "cores": 2}
    assert track.path_of(cpu).name == "intel-xeon-cpu-2-60ghz-2-cores.json"
    gpu = cpu | {"device": "NVIDIA H100 80GB HBM3"}
    assert track.path_of(gpu).name == "nvidia-h100-80gb-hbm3.json"


def test_refusals_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "track", "compare", "HEAD"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("track: results/runtime/machines/")
    assert len(done.stderr.strip().splitlines()) == 1
