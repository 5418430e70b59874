"""params.yaml is validated: every mistake is one line that says what was expected."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import params

ROOT = Path(__file__).parents[3]


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
        (
            ["explainers", "rise", "images"],
            5,
            r"explainers.rise.images is 5: expected at least 6, for page.images",
        ),
        (
            ["evaluate", "metrics", "road", "images"],
            5,
            r"evaluate.metrics.road.images is 5: expected at least 6, for page.images",
        ),
        (["tables", "short"], ["ryse"], r"tables.short is 'ryse': expected one of .*rise"),
        (["images", "test"], 1, r"unknown key 'images.test': expected .*folder.*evaluation$"),
        (["images", "source"], "web", r"images.* 'web'.*'compositions', 'photographs'"),
        (["explainers", "rise", "setings"], {}, r"unknown key 'explainers.rise.setings'.*settings"),
        (["train", "max_lr"], "fast", r"train.max_lr is 'fast'"),
        (["train", "epochs"], 0, r"train.epochs is 0"),
        (["backbones", "vit_sample", "source"], "hub", r"source is 'hub'.*'timm'"),
        (
            ["backbones", "vit_sample", "explainers", "ryse"],
            {},
            r"backbones.vit_sample.explainers is 'ryse': expected one of .*rise",
        ),
        (["backbones", "vit_sample", "skip"], ["ryse"], r"vit_sample.skip is 'ryse': expected"),
        (
            ["explainers", "ttame", "recipe"],
            {"lr": 1},
            r"explainers.ttame.recipe: unknown key 'lr'",
        ),
        (["ablation", "vgg"], {}, r"ablation is 'vgg': expected one of efficientnet_lite0, vit"),
        (
            ["ablation", "vit_sample", "drop", "recipe"],
            {"optimizer": "adam"},
            r"ablation.vit_sample.drop.recipe: unknown key 'optimizer': .* optimiser",
        ),
        (
            ["ablation", "vit_sample", "drop", "recipe"],
            {"optimiser": "lion"},
            r"ablation.vit_sample.drop.recipe: optimiser is 'lion': .*'adamw'",
        ),
        (
            ["ablation", "vit_sample", "drop", "lable"],
            "x",
            r"unknown key 'ablation.vit_sample.drop.lable': expected one of explainer, label",
        ),
        (
            ["ablation", "vit_sample", "drop", "explainer"],
            "timm",
            r"ablation.vit_sample.drop.explainer is 'timm'",
        ),
        (
            ["ablation", "vit_sample", "baseline", "question"],
            "tokens",
            r"ablation: 0 variants on vit_sample have no question: expected one, the baseline",
        ),
        (["ablate", "seeds"], 1, r"ablate.seeds is 1"),
        (
            ["evaluate", "metrics"],
            {"localisation": {}},
            r"evaluate.metrics is localisation: expected confidence or road, by which the ablation",
        ),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-05", 1e-5), ("-1E+3", -1000.0), ("1.e2", 100.0), (".5e1", 5.0), ("0.00001", 1e-5),
     ("no", "no"), ("off", "off"), ("1:30", "1:30"), ("True", True), ("0x10", 16), ("~", None),
     (".inf", float("inf")), ("2024-01-01", "2024-01-01"), ("-1.5", -1.5), (".5", 0.5),
     ("1e-05x", "1e-05x"), ("'1e-05'", "1e-05"), ("e5", "e5"), ("3", 3)],
)  # fmt: skip
def test_numbers_as_dvc_writes_them(text: str, value: object) -> None:
    """DVC writes YAML 1.2, in which an exponent needs no point before it."""
    assert params.read_yaml(f"sigma: {text}") == {"sigma": value}


def test_a_parameter_that_was_added_later_is_in_no_key_until_it_is_given() -> None:
    """Results made before it are of the same parameters."""
    settings = params.load(Path(__file__).parents[3] / "params.yaml")
    backbone = settings.backbones["efficientnet_lite0"]
    assert not set(params.ADDED) & set(backbone.spec)
    for name, value in (("trusted", ("bn2",)), ("weights_key", "ema")):
        assert backbone.model_copy(update={name: value}).spec[name] == value


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """As after the lines of `layers` were put at the end."""
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\nbackbones: {a: 1}\nseed: 1\n")
    with pytest.raises(ValueError, match=r"'seed' stands twice, again in line 3: expected it once"):
        params.load(path)
    assert params.read_yaml("a: {<<: {b: 1}, c: 2}") == {"a": {"b": 1, "c": 2}}
