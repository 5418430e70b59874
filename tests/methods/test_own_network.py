"""A network of one's own, by its dotted path, is a backbone like the others."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import methods
from benchmark.commands import layers
from benchmark.core import params
from benchmark.engine.promises import PROMISES, Case
from methods import build_backbone

SMALL = """
from torch import nn


def build(width=8):
    def block(i, o):
        return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())

    blocks = nn.Sequential(block(3, width), block(width, width), block(width, 2 * width))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5))
    return nn.Sequential(blocks, head)


def number():
    return 3


def failing():
    raise KeyError("no such\\nfile")
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the network."""
    folder = tmp_path / "somebodys"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "small.py").write_text(SMALL)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.startswith("somebodys")]:
        monkeypatch.delitem(sys.modules, name)


def suggested(**others: Any) -> dict[str, Any]:
    """What `layers` prints of it, as params.yaml says it."""
    spec = layers.suggest("somebodys.small:build", 64)
    printed = yaml.safe_load(layers.lines("own", spec))["backbones"]["own"] | others
    return params.Backbone.model_validate(printed).spec


def test_layers_are_suggested() -> None:
    spec = suggested()
    assert (spec["load"], spec["size"]) == ("somebodys.small:build", 64)
    assert spec["taps"] == ("0.0", "0.1", "0.2")


@pytest.mark.parametrize("name", ["ttame", "gradcam", "fullgrad", "rise"])
def test_every_promise_is_kept_on_it(name: str) -> None:
    backbone = build_backbone("own", **suggested(arguments={"width": 6}))
    assert backbone.layer("0.2.0").weight.shape[0] == 12  # type: ignore[union-attr, index]
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    settings = {"masks": 8} if name == "rise" else {}
    case = Case(methods.load(name), backbone, images, torch.tensor([0, 3, 3]), settings)
    for promise in PROMISES:
        promise(case)


def test_its_weights_come_from_a_file(tmp_path: Path) -> None:
    backbone = build_backbone("own", **suggested())
    torch.save({"model": methods.build_network("own", **NAMED).state_dict()}, tmp_path / "own.pth")
    loaded = build_backbone("own", **suggested(weights=str(tmp_path / "own.pth")))
    assert loaded.digest != backbone.digest


NAMED: dict[str, Any] = {"load": "somebodys.small:build", "weights": "none"}


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ("somebodys.smal:build", "cannot load 'somebodys.smal:build' .*package.module:function"),
        ("somebodys.small:biuld", "cannot load 'somebodys.small:biuld'"),
        ("somebodys.small:number", "somebodys.small:number makes a int: expected an nn.Module"),
        ("somebodys.small:failing", "fails with KeyError: 'no such"),
    ],
)
def test_what_makes_no_network(load: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"backbone 'own': .*{message}") as refused:
        methods.build_network("own", load=load, weights="none")
    assert "\n" not in str(refused.value)


def test_a_backbone_is_made_in_one_way() -> None:
    spec = {k: v for k, v in suggested().items() if v is not None}
    for others in ({"source": "timm", "model": "resnet18"}, {"source": "timm"}):
        with pytest.raises(ValueError, match="expected source and model, or load alone"):
            params.Backbone.model_validate(spec | others)
    assert isinstance(methods.build_network("own", **NAMED), nn.Module)
