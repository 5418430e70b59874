"""params.yaml is validated: every mistake is one line that says what was expected."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark import params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return loaded


def load(raw: dict[str, Any], folder: Path) -> params.Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return params.load(path)


def test_the_committed_parameters_load(raw: dict[str, Any], tmp_path: Path) -> None:
    assert load(raw, tmp_path).seed == raw["seed"]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["trian"], {}, r"unknown key 'trian': expected one of seed, launch, code, mode, .*train"),
        (
            ["train", "lr"],
            0.1,
            r"unknown key 'train.lr': expected one of images, log_every, precision, epochs, "
            r"batch_size, optimiser, max_lr, momentum, weight_decay$",
        ),
        (["subset", "images", "test"], 1, r"unknown key 'subset.images.test'.*evaluation"),
        (
            ["cells", "efficientnet_lite0-rise", "setings"],
            {},
            r"unknown key 'cells.*setings'.*settings",
        ),
        (["train", "max_lr"], "fast", r"train.max_lr is 'fast'"),
        (["train", "epochs"], 0, r"train.epochs is 0"),
        (["backbones", "efficientnet_lite0", "source"], "hub", r"source is 'hub'.*'timm'"),
        (
            ["cells", "efficientnet_lite0-rise", "backbone"],
            "vgg",
            r"backbone is 'vgg'.*efficientnet",
        ),
        (["cells", "efficientnet_lite0-rise", "explainer"], "lime", r"expected the key .*-lime"),
        (["subset", "classifier"], "vgg", r"subset.classifier is 'vgg'"),
        (
            ["ablation", "vit_sample-drop", "recipe"],
            {"optimizer": "adam"},
            r"ablation.vit_sample-drop.recipe: unknown key 'optimizer': .* optimiser, .*seeds",
        ),
        (
            ["ablation", "vit_sample-drop", "recipe"],
            {"optimiser": "lion"},
            r"ablation.vit_sample-drop.recipe: optimiser is 'lion': .*'adamw'",
        ),
        (
            ["ablation", "vit_sample-baseline", "question"],
            "tokens",
            r"ablation: 0 variants on vit_sample have no question: expected one, the baseline",
        ),
        (
            ["ablation", "vit_sample-drop", "backbone"],
            "efficientnet_lite0",
            r"ablation.vit_sample-drop: expected the key efficientnet_lite0-VARIANT",
        ),
        (["ablate", "seeds"], 1, r"ablate.seeds is 1"),
    ],
)
def test_mistakes_are_named_in_one_line(
    raw: dict[str, Any], tmp_path: Path, place: list[str], value: object, message: str
) -> None:
    section = raw
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    with pytest.raises(ValueError, match=message) as error:
        load(raw, tmp_path)
    assert "\n" not in str(error.value)


def test_missing_key_and_missing_file(raw: dict[str, Any], tmp_path: Path) -> None:
    del raw["train"]["epochs"]
    with pytest.raises(ValueError, match=r"key 'train.epochs' is missing"):
        load(raw, tmp_path)
    with pytest.raises(ValueError, match="not found: run from the folder"):
        params.load(tmp_path / "nowhere.yaml")


def test_a_renamed_key_is_named_before_the_one_it_leaves_missing(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    raw["explain"]["batchsize"] = raw["explain"].pop("batch_size")
    with pytest.raises(ValueError, match=r"unknown key 'explain.batchsize': .* batch_size"):
        load(raw, tmp_path)


def test_unknown_cell_lists_the_known_ones(raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown cells entry 'x': expected one of .*-rise"):
        load(raw, tmp_path).entry("cells", "x")
