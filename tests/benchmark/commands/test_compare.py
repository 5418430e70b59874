"""One's own explainer, and maps made elsewhere, among the stored results."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit, tiny_cnn, tiny_spec
from safetensors.torch import load_file, save_file
from stand_in import write_split

from benchmark import evaluate, explain
from benchmark.commands import compare
from benchmark.core import results
from benchmark.core.params import Explainer, Params, Scored
from benchmark.data.splits import read_split
from benchmark.engine import explaining
from methods.ttame import TTAME

OWN = """
import torch
from methods import Explainer

class Mine(Explainer):
    label, paper, cost = "My own", "none", "1 forward"

    def __init__(self, backbone, *, shift: float = 0.0):
        super().__init__(backbone)
        self._shift = shift

    def explain(self, images, targets):
        self.backbone(images)
        return (images.mean(dim=1) + self._shift).clamp(0, 1)
"""

ASKING = OWN.replace(
    "        self.backbone(images)\n"
    "        return (images.mean(dim=1) + self._shift).clamp(0, 1)\n",
    "        weights = self.backbone(images).softmax(dim=1).gather(1, targets[:, None])\n"
    "        return images.mean(dim=1) * weights[:, None] * (targets + 1)[:, None, None] / 5\n",
)
ALTERING = ASKING.replace(
    "        return images",
    "        self.backbone.network.register_forward_hook(lambda m, i, o: o.flip(1))\n"
    "        return images",
)
assert OWN != ASKING != ALTERING
BROKEN = OWN.replace("        self.backbone(images)\n", "        {}['none']\n")


@pytest.fixture
def stored(
    settings: Params, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """Results of three explainers on the tiny CNN, 40 images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("methods", "benchmark.commands.compare"):
        monkeypatch.setattr(f"{module}.build_backbone", lambda *_, **__: tiny_cnn())
    (tmp_path / "own_package").mkdir()
    for name, lines in {
        "mine": OWN,
        "asking": ASKING,
        "altering": ALTERING,
        "broken": BROKEN,
    }.items():
        (tmp_path / "own_package" / f"{name}.py").write_text(lines)
    spec = tiny_spec()
    chosen = {"confidence": {"kept": [50]}, "road": {"removed": [20, 50]}}
    metrics = {name: Scored(settings=own) for name, own in chosen.items()}
    changed = {
        "images": settings.images.model_copy(update={"evaluation": 40}),
        "explain": settings.explain.model_copy(update={"batch_size": 16}),
        "backbones": {"tiny_cnn": spec},
        "explainers": {name: Explainer() for name in ("gradcam", "layercam", "constant")},
        "ablation": {},
        "evaluate": settings.evaluate.model_copy(update={"metrics": metrics}),
        "tables": settings.tables.model_copy(update={"resamples": 200}),
    }
    params = settings.model_copy(update=changed)
    split = make_split("evaluation", 40)
    write_split("evaluation", split)
    explain.main(params, "tiny_cnn")
    evaluate.main(params, "tiny_cnn")
    return params


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the printed table, by the label in front."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines[2:]}


def test_an_explainer_from_outside_is_a_row_among_the_others(stored: Params) -> None:
    before = {p: p.read_bytes() for p in Path("results").rglob("*") if p.is_file()}
    compared = compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {"shift": 0.1})
    text = compare.as_text(compared, stored)
    found = rows(text)
    assert list(found) == ["**My own**", "Grad-CAM", "Layer-CAM", "Constant"]
    assert "Cost of an explanation: forward passes 1, backward 0" in text
    assert "n images of a row, 95 % bootstrap intervals" in text
    assert all(path.read_bytes() == content for path, content in before.items())
    scores = results.read_scores(Path("results/compare/tiny_cnn/Mine.csv"))
    drop = scores.loc[scores["metric"] == "average_drop", "value"].mean()
    assert found["**My own**"][0] == "40"
    assert found["**My own**"][1].startswith(f"{drop:.1f} (")
    assert np.load("results/compare/tiny_cnn/Mine.npy").shape == (40, 32, 32)


def test_what_an_explainer_leaves_behind_is_told_and_changes_no_class_and_no_score(
    stored: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes are what the network said before; scores are those of a network of their own."""
    sound = compare.compare(stored, "tiny_cnn", "own_package.asking:Mine", None, {})
    assert "it gives back what it borrows" not in capsys.readouterr().err
    explain_some: list[torch.Tensor] = []
    real = explaining.explain_batch

    def keep(explainer: Any, images: Any, targets: Any = None, **settings: Any) -> Any:
        explain_some.append(targets)
        return real(explainer, images, targets, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explaining, "explain_batch", keep)
        found = compare.compare(stored, "tiny_cnn", "own_package.altering:Mine", None, {})
    told = "Mine on tiny_cnn breaks a promise: it gives back what it borrows: forward hooks"
    assert told in capsys.readouterr().err
    images = read_split(results.SPLITS, "evaluation").images(slice(40))
    assert torch.equal(torch.cat(explain_some[1:]), tiny_cnn().predict(images))
    assert len(found.table) == len(sound.table)
    compare.compare(stored, "tiny_cnn", "own_package.altering:Mine", None, {})
    assert told in capsys.readouterr().err


def test_an_error_in_ones_own_code_is_a_line_or_a_traceback(
    stored: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "load", lambda: stored)
    command = ["compare", "own_package.broken:Mine", "--backbone", "tiny_cnn"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match=r"^compare: explainer Mine failed at broken.py:13: KeyE"):
        compare.main()
    assert "promise" not in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*command, "--traceback"])
    with pytest.raises(ValueError, match=r"broken.py:13") as raised:
        compare.main()
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_class_that_training_never_saw_is_refused(
    stored: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pipeline counts it; here one asks for the maps."""
    torch.manual_seed(0)
    path = trained_state(0.5)
    counts = {"class_counts": [0] * tiny_cnn().classes}
    save_file(load_file(path), path, {"provenance": json.dumps(counts)})
    with pytest.raises(ValueError, match=r"no training image of T-TAME was of class"):
        compare.compare(stored, "tiny_cnn", "ttame", None, {})
    save_file(load_file(path), path)
    compare.compare(stored, "tiny_cnn", "ttame", None, {})
    assert "does not say how many images of each class it saw" in capsys.readouterr().err


def test_a_copy_cannot_be_told_apart(stored: Params) -> None:
    copy = Path("copy.npy")
    copy.write_bytes(results.maps_path("tiny_cnn", "gradcam").read_bytes())
    found = rows(compare.as_text(compare.compare(stored, "tiny_cnn", None, copy, {}), stored))
    assert found["**copy**"] == found["Grad-CAM"]
    assert not any(re.search("[▲▼]", cell) for cell in found["Grad-CAM"])
    paths = Path("results/compare/tiny_cnn/copy.csv"), results.scores_path("tiny_cnn", "gradcam")
    own, other = (results.read_scores(path)["value"] for path in paths)
    pd.testing.assert_series_equal(own, other)


@pytest.mark.parametrize(("shift", "mark"), [(5.0, "▼"), (-5.0, "▲")])
def test_a_planted_difference_is_marked_where_it_is(
    stored: Params, shift: float, mark: str
) -> None:
    path = results.scores_path("tiny_cnn", "gradcam")
    scores = results.read_scores(path)
    drop = scores["metric"] == "average_drop"
    results.write_csv(path, scores.assign(value=scores["value"] + shift * drop))
    copy = Path("copy.npy")
    copy.write_bytes(results.maps_path("tiny_cnn", "gradcam").read_bytes())
    text = compare.as_text(compare.compare(stored, "tiny_cnn", None, copy, {}), stored)
    _, first, *others = rows(text)["Grad-CAM"]
    assert first.endswith(mark)
    assert not any(re.search("[▲▼]", cell) for cell in others)


@pytest.mark.parametrize(
    ("explainer", "maps", "message"),
    [
        ("nowhere.at_all:Mine", None, "nowhere"),
        ("gradcan", None, "'gradcan' has no module methods.gradcan: expected methods/gradcan.py"),
        (
            None,
            np.zeros((3, 4, 4), np.float32),
            r"bad.npy has shape \(3, 4, 4\): expected \(40, h, w",
        ),
        (
            None,
            np.full((40, 4, 4), 2, np.float32),
            r"bad.npy ranges from 2 to 2: expected \[0, 1",
        ),
        (None, np.full((40, 4, 4), np.nan, np.float32), "bad.npy: 40 of 40 maps hold NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    stored: Params, explainer: str | None, maps: np.ndarray | None, message: str
) -> None:
    path = None if maps is None else Path("bad.npy")
    if maps is not None:
        np.save("bad.npy", maps)
    with pytest.raises(ValueError, match=message):
        compare.compare(stored, "tiny_cnn", explainer, path, {})
    assert not Path("results/compare").exists()


def test_unknown_backbones_and_settings_are_refused(stored: Params) -> None:
    with pytest.raises(ValueError, match="--backbone is 'tiny': expected one of tiny_cnn"):
        compare.compare(stored, "tiny", "gradcam", None, {})
    with pytest.raises(ValueError, match="shape"):
        compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {"shape": 3})
    for text in ("3", "{a: ", "[1]"):
        with pytest.raises(ValueError, match="--settings is"):
            compare.read_settings(text)
    assert compare.read_settings("{steps: 8}") == {"steps": 8}


def trained_state(amount: float) -> Path:
    """Write a trained state of T-TAME; its path."""
    attention = TTAME(tiny_cnn(), seed=3).attention
    with torch.no_grad():
        for tensor in attention.parameters():
            tensor.add_(amount * torch.randn_like(tensor))
    path = results.state_path("tiny_cnn", "ttame")
    results.write_tensors(path, attention.state_dict())
    return path


@pytest.mark.parametrize("mode", ["corrected", "reference"])
def test_a_trained_explainer_has_the_scores_of_its_trained_state(stored: Params, mode: str) -> None:
    """The very maps and scores of the stages, which know it as trained."""
    torch.manual_seed(0)
    trained_state(0.5)
    explainers = stored.explainers | {"ttame": Explainer()}
    params = stored.model_copy(update={"explainers": explainers, "mode": mode})
    explain.main(params, "tiny_cnn")
    evaluate.main(params, "tiny_cnn")
    compare.compare(params, "tiny_cnn", "ttame", None, {})
    maps = results.read_array(Path("results/compare/tiny_cnn/ttame.npy"))
    assert np.array_equal(maps, results.read_array(results.maps_path("tiny_cnn", "ttame")))
    own, stage = (
        results.read_scores(path)
        for path in (
            Path("results/compare/tiny_cnn/ttame.csv"),
            results.scores_path("tiny_cnn", "ttame"),
        )
    )
    pd.testing.assert_frame_equal(own, stage)


def test_another_trained_state_is_explained_anew(
    stored: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, real = [0], explaining.explain_batch

    def count(*arguments: Any, **settings: Any) -> Any:
        batches[0] += 1
        return real(*arguments, **settings)

    monkeypatch.setattr(explaining, "explain_batch", count)
    torch.manual_seed(0)
    path = trained_state(0.5)
    first = compare.compare(stored, "tiny_cnn", "ttame", None, {})
    maps = np.load("results/compare/tiny_cnn/ttame.npy")
    explainer, split = TTAME(tiny_cnn()), read_split(results.SPLITS, "evaluation")
    explainer.load_state(path)
    images = split.images(slice(40))
    expected = explainer(images, explainer.backbone.predict(images)).numpy()
    assert np.allclose(maps, expected, atol=1e-5)
    assert batches == [3]
    again = compare.compare(stored, "tiny_cnn", "ttame", None, {})
    assert batches == [3]
    pd.testing.assert_frame_equal(first.table, again.table)
    trained_state(0.5)
    compare.compare(stored, "tiny_cnn", "ttame", None, {})
    assert batches == [6]
    assert not np.array_equal(maps, np.load("results/compare/tiny_cnn/ttame.npy"))


def test_an_untrained_explainer_is_refused_in_one_line(
    stored: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "load", lambda: stored)
    monkeypatch.setattr("sys.argv", ["compare", "ttame", "--backbone", "tiny_cnn"])
    with pytest.raises(SystemExit) as raised:
        compare.main()
    said = str(raised.value)
    assert said.startswith(
        "compare: explainer 'ttame' has to be trained and results/states/tiny_cnn/"
        "ttame.safetensors is not there: expected a trained state"
    )
    assert "\n" not in said
    assert not Path("results/compare").exists()


def test_an_explainer_keeps_its_precision(stored: Params) -> None:
    entry = Explainer(precision="bfloat16")
    params = stored.model_copy(update={"explainers": stored.explainers | {"gradcam": entry}})
    compare.compare(params, "tiny_cnn", "gradcam", None, {})
    found = np.load("results/compare/tiny_cnn/gradcam.npy")
    assert not np.array_equal(found, results.read_array(results.maps_path("tiny_cnn", "gradcam")))
    explain.main(params, "tiny_cnn")
    assert np.array_equal(found, results.read_array(results.maps_path("tiny_cnn", "gradcam")))


def test_the_first_images_alone_are_not_enough(stored: Params) -> None:
    """Stored scores of other weights or images are not compared with."""
    path = results.scores_path("tiny_cnn", "constant")
    scores = results.read_scores(path)
    results.write_csv(path, scores.assign(weights="other"))
    with pytest.raises(ValueError, match="scored with weights other"):
        compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {})


def test_the_page_shows_what_was_compared(stored: Params) -> None:
    info = {"cpu": {}, "machine": "x", "device": "cpu", "cores": 2, "threads": 2, "torch": "2"}
    results.write_json(results.RUNTIME / "raw.json", {"machine_info": info})
    results.write_json(
        results.RUNTIME / "medians.json", {"tiny_cnn": {"gradcam": {"ratio_1": 2.0}}}
    )
    found = [
        compare.compare(stored, "tiny_cnn", name, None, {})
        for name in ("edges", "own_package.mine:Mine")
    ]
    text = compare.write_page(found[1], stored).read_text()
    (line,) = re.findall(r"^const data = (.*);$", text, re.MULTILINE)
    shown = json.loads(line)["backbones"]["tiny_cnn"]
    assert [cell["label"] for cell in shown.values()] == [
        "My own (compared)", "Edges (compared)", "Grad-CAM", "Layer-CAM", "Constant",
    ]  # fmt: skip
    assert 'data-caption="My own among the others"' in text
    assert not results.PAGE.exists()


def test_torch_is_left_as_it_was(stored: Params) -> None:
    state = torch.get_rng_state()
    compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {})
    assert torch.equal(state, torch.get_rng_state())


def test_two_settings_stand_side_by_side_under_names_of_their_own(stored: Params) -> None:
    for called, shift in (("first", 0.0), ("second", 0.3)):
        settings = {"shift": shift}
        found = compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, settings, called)
        assert found.table["Explainer"].iloc[0] == called
    one, two = (np.load(f"results/compare/tiny_cnn/{name}.npy") for name in ("first", "second"))
    assert not np.array_equal(one, two)
    path = compare.write_page(found, stored)
    assert "first (compared)" in path.read_text()
    written = Path("results/compare/tiny_cnn/first.npy").stat().st_mtime_ns
    again = compare.compare(
        stored, "tiny_cnn", "own_package.mine:Mine", None, {"shift": 0.0}, "first"
    )
    assert again.cost["label"] == "first"
    assert Path("results/compare/tiny_cnn/first.npy").stat().st_mtime_ns == written


def test_scores_of_another_class_are_not_compared(stored: Params) -> None:
    """Rows of a table never mix the explained classes."""
    other = stored.model_copy(update={"target": "runner_up"})
    message = "stored scores of gradcam/confidence are of other parameters: expected those of"
    with pytest.raises(ValueError, match=message):
        compare.compare(other, "tiny_cnn", "own_package.mine:Mine", None, {})


def test_the_page_says_what_its_marks_mean(stored: Params) -> None:
    found = compare.compare(stored, "tiny_cnn", "own_package.mine:Mine", None, {})
    text = compare.write_page(found, stored).read_text()
    assert "▲ is better than My own, ▼ worse" in text
