"""Released checkpoints: made here with the keys of the authors' files."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.commands import convert
from benchmark.core.params import Params
from benchmark.engine.training import build_trainable
from methods import Backbone, TrainableExplainer, build_backbone, build_network
from methods.lcam_img import LCAMImg
from methods.ttame import TTAME

TRAINED = {
    ("efficientnet_lite0", "ttame"): "",
    ("efficientnet_lite0", "lcam_img"): "",
    ("vit_sample", "ttame"): "1.",
}
ROOT = Path(__file__).parents[3]


def released(attention: nn.Module, inside: str = "") -> dict[str, Any]:
    """A Lightning checkpoint around an attention mechanism; `inside` is `1.` on a transformer."""
    state = {f"generic.attn_mech.{inside}{k}": t for k, t in attention.state_dict().items()}
    classifier = {"generic.body.features.0.weight": torch.zeros(1)}
    return {
        "state_dict": classifier | state,
        "epoch": 7,
        "global_step": 320_000,
        "pytorch-lightning_version": "1.9.0",
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-3}]}],
    }


@pytest.mark.parametrize("inside", ["", "1."])
@pytest.mark.parametrize("cls", [TTAME, LCAMImg])
def test_a_checkpoint_becomes_the_same_maps(
    cls: type[TTAME], inside: str, cnn: Backbone, pixels: Tensor, tmp_path: Path
) -> None:
    trained, fresh = cls(cnn, seed=1), cls(cnn, seed=2)
    path = tmp_path / "released.ckpt"
    torch.save(released(trained.attention, inside), path)
    targets = torch.tensor([0, 3, 1])
    assert not torch.equal(trained.explain(pixels, targets), fresh.explain(pixels, targets))
    fresh.adopt(convert.mechanism_of(convert.read_state(path), path), str(path))
    assert torch.equal(trained.explain(pixels, targets), fresh(pixels, targets))


@pytest.mark.parametrize(("name", "explainer"), TRAINED)
def test_the_file_written_is_a_trained_state(
    name: str,
    explainer: str,
    settings: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A network whose batch norms counted nothing is not said to have drifted."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data" / "sample")
    backbone = build_backbone(name, **settings.backbones[name].spec)
    own = settings.cell(name, explainer).settings
    trained, other = (build_trainable(explainer, backbone, own) for _ in range(2))
    with torch.no_grad():
        for tensor in trained.attention.parameters():
            tensor.add_(0.5)
    torch.save(released(trained.attention, TRAINED[name, explainer]), tmp_path / "released.ckpt")
    convert.main(settings, name, explainer, "released.ckpt", "states/own.safetensors")
    other.load_state(tmp_path / "states" / "own.safetensors")
    found, expected = other.attention.state_dict(), trained.attention.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("convert: nobody counted the training images of each class, so that ")


def test_a_drifted_network_is_told_of(cnn: Backbone) -> None:
    state = released(TTAME(cnn).attention)["state_dict"]
    state["generic.attn_mech.bns.0.num_batches_tracked"] = torch.tensor(320_000)
    for name, counted in (("bn1", 0), ("layer1.0.bn1", 0), ("layer1.0.bn2", 0)):
        state[f"generic.body.{name}.num_batches_tracked"] = torch.tensor(counted)
    assert convert.count_drifted(state) == 0
    state["generic.body.bn1.num_batches_tracked"] = torch.tensor(320_000)
    assert convert.count_drifted(state) == 1


def test_the_network_as_it_had_drifted_is_written_beside_the_state(
    settings: Params,
    lite0: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its weights are the published ones, its statistics those of the checkpoint."""
    monkeypatch.chdir(tmp_path)
    published = build_network(
        "published", source="timm", model="tf_efficientnet_lite0", weights="packaged"
    ).state_dict()
    drifted = {k: t + 1 for k, t in published.items() if k.rpartition(".")[2] in convert.STATISTICS}
    own = settings.cell("efficientnet_lite0", "ttame").settings
    saved = released(build_trainable("ttame", lite0, own).attention)
    saved["state_dict"] |= {f"generic.body.{name}": tensor for name, tensor in drifted.items()}
    torch.save(saved, "released.ckpt")
    convert.main(settings, "efficientnet_lite0", "ttame", "released.ckpt", "own.safetensors")
    assert "set the weights of efficientnet_lite0 to own.weights.safetensors" in (
        capsys.readouterr().err
    )
    spec = settings.backbones["efficientnet_lite0"].spec | {"weights": "own.weights.safetensors"}
    own = {key: value for key, value in spec.items() if key in ("source", "model", "weights")}
    network = build_network("drifted", **own).state_dict()
    assert all(torch.equal(network[k], (published | drifted)[k]) for k in network)
    assert build_backbone("drifted", **spec).digest != lite0.digest
    saved["state_dict"]["generic.body.bn1.running_var"] = torch.ones(3)
    torch.save(saved, "released.ckpt")
    convert.main(settings, "efficientnet_lite0", "ttame", "released.ckpt", "again.safetensors")
    assert (
        "has the published statistics, since bn1.running_var of the checkpoint's network is [3]"
        in (capsys.readouterr().err)
    )
    assert Path("again.safetensors").read_bytes() == Path("own.safetensors").read_bytes()
    assert not Path("again.weights.safetensors").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"bn.running_mean": torch.zeros(2)}, r"bn.running_mean .* is missing, expected \[2\]"),
        ({"fc.weight": torch.zeros(2)}, "it has no batch norms"),
    ],
)
def test_statistics_that_cannot_be_carried_say_why(
    weights: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert.statistics_of({"generic.body.other.running_mean": torch.zeros(2)}, weights)


def refused(checkpoint: Any, folder: Path, message: str, explainer: TrainableExplainer) -> None:
    path = folder / "wrong.ckpt"
    if isinstance(checkpoint, bytes):
        path.write_bytes(checkpoint)
    else:
        torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=message) as raised:
        explainer.adopt(convert.mechanism_of(convert.read_state(path), path), str(path))
    assert str(path) in str(raised.value)


def test_wrong_checkpoints_are_refused(cnn: Backbone, tmp_path: Path) -> None:
    ttame, lcam = TTAME(cnn), LCAMImg(cnn)
    whole = released(ttame.attention)
    lacking = released(ttame.attention)
    del lacking["state_dict"]["generic.attn_mech.bns.1.running_var"]
    refused(lacking, tmp_path, r"bns\.1\.running_var is missing, expected \(6,\)", ttame)
    refused(released(lcam.attention), tmp_path, r"bns\.0\.bias is missing", ttame)
    refused(whole, tmp_path, r"bns\.0\.bias is \(4,\), expected none", lcam)
    other = released(TTAME(cnn, layers=["1", "2"]).attention)
    refused(other, tmp_path, r"bns\.0\.bias is \(6,\), expected \(4,\)", ttame)
    refused({"state_dict": {"fc.weight": torch.zeros(1)}}, tmp_path, "it has fc.weight", ttame)
    refused({"weights": torch.zeros(1)}, tmp_path, "has no state_dict", ttame)


def test_truncated_missing_and_unsafe_files_are_refused(cnn: Backbone, tmp_path: Path) -> None:
    ttame = TTAME(cnn)
    path = tmp_path / "whole.ckpt"
    torch.save(released(ttame.attention), path)
    whole = path.read_bytes()
    refused(whole[: len(whole) // 2], tmp_path, "cannot read the checkpoint", ttame)
    refused(b"", tmp_path, "cannot read the checkpoint", ttame)
    unsafe = released(ttame.attention) | {"hyper_parameters": Path("anything")}
    refused(unsafe, tmp_path, "holds more than tensors and plain values", ttame)
    with pytest.raises(ValueError, match="cannot read the checkpoint"):
        convert.read_state(tmp_path / "none.ckpt")


def test_what_cannot_be_trained_is_refused(settings: Params) -> None:
    with pytest.raises(ValueError, match=r"backbone is 'vgg': expected one of efficientnet_lite0"):
        convert.main(settings, "vgg", "ttame", "released.ckpt", "own.safetensors")
    with pytest.raises(ValueError, match=r"explainer is 'best': expected one of ttame, tame"):
        convert.main(settings, "efficientnet_lite0", "best", "released.ckpt", "own.safetensors")
    with pytest.raises(ValueError, match="explainer 'gradcam' has nothing to train"):
        convert.main(settings, "efficientnet_lite0", "gradcam", "released.ckpt", "own.safetensors")
