"""Weights mean what their publisher means, or are refused as what they are."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum

from methods import build_network
from methods._weights import adopt_weights, load_weights

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def below(start: str) -> Callable[[State], State]:
    return lambda state: {f"{start}{name}": tensor for name, tensor in state.items()}


def without_counters(state: State) -> State:
    return {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "saved",
    [
        lambda state: state,
        without_counters,
        *(below(start) for start in ("module.", "_orig_mod.", "model.", "module._orig_mod.")),
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"model": below("module.")(without_counters(state))},
    ],
    ids=["as it is", "no counters", "module", "compiled", "model", "both", "entry", "all of it"],
)
def test_what_stands_in_front_does_not_matter(
    saved: Callable[[State], Any], tmp_path: Path
) -> None:
    torch.save(saved(network(1).state_dict()), tmp_path / "weights.pth")
    made = network(2)
    load_weights(made, tmp_path / "weights.pth", "net")
    assert same(made, network(1))


def test_of_two_sets_one_is_chosen(tmp_path: Path) -> None:
    one, other = network(1).state_dict(), network(2).state_dict()
    flat = below("model.")(one) | below("ema.")(other)
    save_file(flat, tmp_path / "weights.safetensors")
    torch.save({"state_dict": one, "state_dict_ema": other}, tmp_path / "weights.pth")
    for name, keys in (
        ("safetensors", ("model", "ema")),
        ("pth", ("state_dict", "state_dict_ema")),
    ):
        path, made = tmp_path / f"weights.{name}", network(3)
        said = r"are 2 sets, under '\w+\.', '\w+\.': expected one, .* by weights_key"
        with pytest.raises(ValueError, match=said):
            load_weights(made, path, "net")
        assert same(made, network(3))
        for seed, key in enumerate(keys, start=1):
            load_weights(made, path, "net", key)
            assert same(made, network(seed))
    with pytest.raises(ValueError, match=r"no set under weights_key 'state' .*'state_dict.', '"):
        load_weights(network(3), tmp_path / "weights.pth", "net", "state")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"\n<html><body>Sign in</body>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"", "cannot read the weights file"),
        (b"not a checkpoint at all, but longer than thirty-two bytes", "weights file"),
        (b"404: Not Found", "weights file"),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_that_is_no_checkpoint(
    content: bytes, message: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"backbone 'net': .*{message}") as refused:
        load_weights(network(), path, "net")
    assert "\n" not in str(refused.value)


def test_a_text_is_told_from_a_file_that_could_run_code(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("404: Not Found")
    with pytest.raises(ValueError, match=r"begins with b'404: not': expected what torch.save wri"):
        load_weights(network(), tmp_path / "weights.pth", "net")


@pytest.mark.parametrize("old", [True, False])
def test_both_formats_of_torch_are_read(old: bool, tmp_path: Path) -> None:
    path, made = tmp_path / "weights.pt", network(2)
    torch.save(network(1).state_dict(), path, _use_new_zipfile_serialization=not old)
    load_weights(made, path, "net")
    assert same(made, network(1))


def test_weights_of_a_larger_network_are_refused(tmp_path: Path) -> None:
    """All that the network has is there, and more of the same."""
    state = network(1).state_dict()
    for more in ("1.extra.weight", "loss.weight", "1.more.0.bias"):
        for start in ("", "module."):
            deeper = below(start)(state | {more: torch.ones(2)})
            with pytest.raises(ValueError, match=rf"do not fit: {more} is \(2,\), expected none"):
                adopt_weights(network(), deeper, "own")


@pytest.mark.parametrize("start", ["", "module."])
def test_what_modules_keep_beside_their_weights_is_left_out(start: str) -> None:
    """Tables that are computed, and counters of tools, come and go with versions."""
    state = network(1).state_dict()
    kept = {"0.relative_position_index": torch.ones(3, 3), "1.total_ops": torch.ones(1)}
    made = network(2)
    adopt_weights(made, below(start)(state | kept), "own")
    assert same(made, network(1))


def test_a_set_at_the_top_is_chosen_by_an_empty_key() -> None:
    one, other = network(1).state_dict(), below("ema.")(network(2).state_dict())
    for key, seed in (("", 1), ("ema", 2)):
        made = network(3)
        adopt_weights(made, one | other, "own", key)
        assert same(made, network(seed))


@pytest.mark.parametrize("start", ["", "model.", "state_dict.module."])
def test_names_of_other_publishers_are_those_that_timm_knows(start: str) -> None:
    """The authors' files of ConvNeXt have `downsample_layers`, timm's `stages.N.downsample`."""
    spec: dict[str, Any] = {"source": "timm", "model": "convnext_atto", "weights": "none"}
    made, given = (build_network("net", **spec) for _ in "ab")
    with torch.no_grad():
        given.stages[0].blocks[0].norm.weight.fill_(0.25)  # type: ignore[index, union-attr]
    theirs = {}
    for name, tensor in given.state_dict().items():
        name = re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        name = name.replace("head.norm", "norm").replace("head.fc", "head")
        theirs[name] = tensor
    assert "downsample_layers.0.0.weight" in theirs
    adopt_weights(made, below(start)(theirs), "own")
    assert same(made, given)
    both = below("model.")(theirs) | below("model_ema.")(theirs)
    with pytest.raises(ValueError, match="own do not fit"):
        adopt_weights(made, both, "own")


@pytest.mark.parametrize("content", [b"\x80abc", b"\x80\x02.", b"PK\x03\x04"])
def test_what_damaged_files_do_to_their_reader_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read the weights file .*: expected a whole file"):
        load_weights(network(), tmp_path / "own.pth", "net")


def test_a_file_without_tensors_by_name(tmp_path: Path) -> None:
    for content in ({}, [network().state_dict()], 3):
        torch.save(content, tmp_path / "own.pth")
        with pytest.raises(ValueError, match="holds no tensors by name: expected a state_dict"):
            load_weights(network(), tmp_path / "own.pth", "net")


def test_what_is_missing_is_named() -> None:
    state = network(1).state_dict()
    del state["2.bias"]
    with pytest.raises(ValueError, match=r"own do not fit: 2\.bias is missing"):
        adopt_weights(network(), below("model.")(state), "own")
    with pytest.raises(ValueError, match=r"own do not fit: weight is \(2,\), expected none"):
        adopt_weights(nn.ReLU(), {"weight": torch.ones(2)}, "own")


class Harmful:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


def test_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": network().state_dict(), "more": Harmful()}, tmp_path / "own.pt")
    with pytest.raises(ValueError, match="holds more than tensors and plain values"):
        load_weights(network(), tmp_path / "own.pt", "net")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    state = network().state_dict()
    state["2.weight"][0, 0] = value
    with pytest.raises(ValueError, match=r"own hold NaN or infinite values, in 2.weight"):
        adopt_weights(network(), state, "own")


def test_names_of_torchvisions_oldest_densenets() -> None:
    made, given = (torchvision.models.get_model("densenet121", weights=None) for _ in "ab")
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor
        for name, tensor in given.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    adopt_weights(made, old, "own")
    assert same(made, given)


@pytest.mark.parametrize("model", ["googlenet", "inception_v3"])
def test_published_weights_are_loaded_by_their_builder(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These two were trained on images normalised otherwise, which their builders know."""
    made = torchvision.models.get_model(model, weights=None, init_weights=False)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: made.state_dict())
    spec = {"source": "torchvision", "model": model}
    loaded = build_network("net", **spec, weights="IMAGENET1K_V1")  # type: ignore[arg-type]
    assert loaded.transform_input is True
