"""A profile of one's own photographs: written by one command, and it runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_pipeline import run_all

from benchmark.commands import new
from benchmark.core import params, results
from benchmark.core.memory import read_memory
from benchmark.core.params import Params, Photographs
from benchmark.data.splits import ROOT as IMAGES

ROOT = Path(__file__).parents[3]
NETWORK = "somebodys_net:build"
CODE = '''
import torch
from torch import nn


def build(classes=4):
    """A classifier of four classes, of random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )
'''


def photograph(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((70, 60), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs of two classes, and somebody's network."""
    for i in range(6):
        photograph(tmp_path / "shown" / ("otter" if i % 2 else "crab") / f"{i}.png", i)
    (tmp_path / "classes.txt").write_text("crab\nrock\notter\nsea\n")
    (tmp_path / "somebodys_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    monkeypatch.setattr(new, "suggest", lambda name: small_spec(name))
    return tmp_path


def small_spec(name: str) -> params.Backbone:
    """What `layers --size 56` suggests, quickly."""
    return params.Backbone(
        load=name, weights="none", size=56, mean=(0.5,) * 3, std=(0.5,) * 3, taps=("2",),
        cam_layer="2", trusted=("2",),
    )  # fmt: skip


def written(**settings: Any) -> tuple[Path, Params]:
    given = {"classes": Path("classes.txt"), "explainers": ["gradcam", "edges"]} | settings
    folder = new.write_profile("own", Path("shown"), [NETWORK], **given)
    return folder, params.load(folder / "params.yaml")


def test_labels_are_matched_and_never_guessed(place: Path) -> None:
    folder, loaded = written()
    images = loaded.images
    assert isinstance(images, Photographs)
    assert (images.evaluation, images.validation, images.upright) == (6, 0, True)
    table = pd.read_csv(folder / "data" / "evaluation.csv")
    assert table.groupby("class_name")["class_index"].unique().map(list).to_dict() == {
        "crab": [0],
        "otter": [2],
    }
    assert sorted(table["path"]) == sorted(
        f"{'otter' if i % 2 else 'crab'}/{i}.png" for i in range(6)
    )
    assert table["id"].tolist() != sorted(table["id"])
    assert list(loaded.explainers) == ["gradcam", "edges"]
    assert len(pd.read_csv(folder / "data" / "train.csv")) == 0
    Path("flat").mkdir()
    for i in range(3):
        photograph(Path("flat") / f"{i}.jpg", i)
    flat = new.listed(Path("flat"), Path("flat").resolve(), new.labels_of(["crab"]))
    assert flat["class_index"].tolist() == [-1] * 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["n01440764", "tench", "0", "", "fish"], [0, 0, 0, -1, -1]),
        (["cock", "7", "1000", "-1", "7.0"], [7, 7, -1, -1, -1]),
    ],
)
def test_a_csv_says_path_and_label(labels: list[str], expected: list[int], place: Path) -> None:
    files = [str(path.relative_to(place)) for path in sorted(place.glob("shown/*/*.png"))]
    pd.DataFrame({"path": files[:5], "label": labels}).to_csv("list.csv", index=False)
    found = new.listed(Path("list.csv"), place, new.imagenet_labels())
    assert found["class_index"].tolist() == expected


def test_two_photographs_of_one_name_have_two_ids(place: Path) -> None:
    photograph(Path("shown/rock/1.png"), 9)
    found = new.listed(Path("shown"), Path("shown").resolve(), {})
    assert found["id"].is_unique


def test_labels_of_other_classes_are_not_imagenets() -> None:
    """A WordNet id says nothing of somebody's own classes; a name of two classes says nothing."""
    own = new.labels_of(["red", "green"])
    assert own == {"0": (0, "red"), "1": (1, "green"), "red": (0, "red"), "green": (1, "green")}
    known = new.imagenet_labels()
    assert known["n01440764"] == known["tench"] == known["0"] == (0, "tench")
    assert "crane" not in known
    assert known["134"][1] == known["517"][1] == "crane"


def test_hidden_photographs_are_none_wherever_the_folder_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place / ".mine"
    for name in ("a.png", "in/b.png", ".trash/c.png", ".d.png"):
        photograph(root / name, 1)
    expected = [root / "a.png", root / "in" / "b.png"]
    assert [path for path, _ in new.from_folder(root)] == expected
    monkeypatch.chdir(root / "in")
    assert len(new.from_folder(Path(".."))) == 2


def test_networks_have_names_of_their_own(place: Path) -> None:
    specs = new.specs_of(["timm:resnet50.a1_in1k", "mine.nets:make"])
    assert list(specs) == ["resnet50_a1_in1k", "make"]
    with pytest.raises(ValueError, match="two backbones are called 'make': expected names of"):
        new.specs_of(["a:make", "b:make"])
    with pytest.raises(ValueError, match="two explainers are called 'rise': expected each once"):
        new.explainers_of(["rise", "rise"], "quick", trains=False)


def test_without_a_training_nothing_is_trained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, loaded = written(explainers=["ttame", "gradcam"])
    assert list(loaded.explainers) == ["gradcam"]
    assert "new: left out, since there is no --train: ttame" in capsys.readouterr().out


def test_training_photographs_are_split(place: Path) -> None:
    for i in range(10):
        photograph(Path("more") / f"{i}.png", 100 + i)
    folder, loaded = written(train=Path("more"), explainers=["ttame", "gradcam"])
    assert loaded.images.validation == 2
    train, held = (pd.read_csv(folder / "data" / f"{n}.csv") for n in ("train", "validation"))
    assert (len(train), len(held), loaded.train.batch_size) == (8, 2, 8)
    assert not set(train["id"]) & set(held["id"])
    assert set(train["path"]) | set(held["path"]) == {f"../more/{i}.png" for i in range(10)}


@pytest.mark.parametrize("settings", new.SETTINGS)
def test_settings_are_the_samples_or_the_papers(settings: str, place: Path) -> None:
    _, loaded = written(settings=settings, explainers=["rise"])
    masks = loaded.explainers["rise"].settings["masks"]
    assert masks == (8000 if settings == "paper" else 256)
    assert "localisation" not in loaded.evaluate.metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a-b"}, "the profile is called 'a-b': expected letters"),
        ({"images": Path("nowhere")}, "nowhere not found: expected a folder of photographs"),
        ({"images": Path("alone")}, "alone holds 1 photograph: expected at least 2"),
        ({"images": Path("empty")}, "empty holds no photographs: expected files such as a.jpg"),
        ({"images": Path("bad.csv")}, "bad.csv has the columns file: expected path"),
        ({"images": Path("lost.csv")}, "lost.csv names .*gone.png, which is not there"),
        ({"images": Path("hollow")}, "cannot read the photograph .*hollow.png"),
        ({"images": Path("alone/a.png")}, "a.png is no CSV: expected a folder of photographs"),
        ({"explainers": ["rollout"]}, "none of rollout works on build: expected an explainer of"),
        ({"explainers": ["gradcan"]}, "unknown explainer 'gradcan'"),
        ({"explainers": ["ttame"]}, "no explainer is left: expected --explainers that are not tr"),
        ({"train": Path("hollow")}, "cannot read the photograph .*hollow.png"),
        ({"classes": Path("twice.txt")}, "twice.txt has 2 names: expected each once"),
    ],
)
def test_what_cannot_be_a_profile_is_one_line(
    change: dict[str, Any], message: str, place: Path
) -> None:
    Path("empty").mkdir()
    photograph(Path("alone/a.png"), 1)
    Path("hollow").mkdir()
    Path("hollow/hollow.png").touch()
    Path("bad.csv").write_text("file\na.png\n")
    Path("lost.csv").write_text("path\ngone.png\n")
    Path("twice.txt").write_text("a\na\n")
    given = {"name": "own", "images": Path("shown"), "explainers": ["gradcam"]} | change
    with pytest.raises(ValueError, match=message) as raised:
        new.write_profile(given.pop("name"), given.pop("images"), [NETWORK], **given)
    assert "\n" not in str(raised.value)
    assert not Path("profiles/own/params.yaml").exists()


def test_a_profile_is_not_written_over(place: Path) -> None:
    written()
    with pytest.raises(ValueError, match="own is there: expected another name"):
        written()


def test_what_a_network_refuses_is_skipped(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from methods.fullgrad import FullGrad

    def refuse(self: FullGrad, backbone: object) -> None:
        raise ValueError("no bias here")

    monkeypatch.setattr(FullGrad, "__init__", refuse)
    _, loaded = written(explainers=["fullgrad", "edges"])
    assert loaded.backbones["build"].skip == ("fullgrad",)
    assert "new: build is left without fullgrad: no bias here" in capsys.readouterr().out


def test_the_packaged_network_keeps_its_explainers(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its CAM layer is none of its taps; random weights stand for the real ones."""
    folder = new.write_profile(
        "own", Path("shown"), ["efficientnet_lite0"], explainers=["gradcam", "layercam", "edges"]
    )
    loaded = params.load(folder / "params.yaml")
    assert loaded.backbones["efficientnet_lite0"].skip == ()
    assert (loaded.images.size, loaded.images.resize) == (224, 256)  # type: ignore[union-attr]
    said = capsys.readouterr().out
    assert "left without" not in said
    assert "2 labels of shown are no known class: crab, otter" not in said
    assert "1 labels of shown are no known class: crab" in said


def test_it_is_run_from_the_repository(place: Path) -> None:
    Path("params.yaml").unlink()
    with pytest.raises(ValueError, match=r"params.yaml not found: run from the folder of the repo"):
        written()


@pytest.mark.slow
@pytest.mark.parametrize("trains", [False, True])
def test_it_runs_to_tables(trains: bool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        photograph(Path("more") / f"{i}.png", 100 + i)
    train = Path("more") if trains else None
    explainers = ["gradcam", "edges", *["ttame"] * trains]
    folder, _ = written(train=train, settings="quick", explainers=explainers)
    monkeypatch.setenv(IMAGES, str(place / "shown"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{place}")
    monkeypatch.chdir(folder)
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw["train"] |= {"epochs": 1}
    raw["runtime"] = {"batch": 1, "rounds": 1, "seconds": 0, "warmup": 1}
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    read_memory.cache_clear()
    run_all(params.load())
    table = (results.TABLES / "build" / "comparison.md").read_text()
    assert "Grad-CAM" in table
    assert ("T-TAME" in table) == trains
    targets = pd.read_csv(results.targets_path("build"))
    assert set(targets["class_name"]) <= {"crab", "rock", "otter", "sea"}
    assert any(results.PICTURES.iterdir())
