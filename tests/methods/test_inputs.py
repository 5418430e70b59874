"""What explainers are given: photographs as the network expects them, and classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
import torchvision.models
from PIL import Image

import methods
from methods import Backbone, Preparation, choose_targets
from methods._known import known_by_name, known_of
from methods.edges import Edges
from methods.gradcam import GradCAM

TARGETS = torch.tensor([0, 1, 2])


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A photograph of no square size."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (13, 9, 3), dtype=np.uint8))
    path = tmp_path / "photograph.png"
    small.resize((380, 301), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "tf_efficientnet_b0"])
def test_photographs_are_as_timm_prepares_them(name: str, photograph: Path) -> None:
    network = timm.create_model(name, pretrained=False)
    config = timm.data.resolve_model_data_config(network)
    expected = timm.data.create_transform(**config, is_training=False)(Image.open(photograph))
    told = known_of(network)
    pixels = methods._inputs.read_photographs([photograph], told["preparation"])
    mean, std = (torch.tensor(told[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose((pixels[0] - mean) / std, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["vgg16", "efficientnet_b3", "swin_v2_t"])
@pytest.mark.parametrize("weights", [None, "IMAGENET1K_V1"])
def test_photographs_are_as_torchvision_prepares_them(
    name: str, weights: str | None, photograph: Path
) -> None:
    transform = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    told = known_by_name(f"torchvision:{name}", weights)
    pixels = methods._inputs.read_photographs([photograph], told["preparation"])
    mean, std = (torch.tensor(told[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose((pixels[0] - mean) / std, transform(Image.open(photograph)), atol=1e-6)


def test_a_photograph_is_turned_as_it_says(tmp_path: Path) -> None:
    upright = Image.fromarray(np.arange(48 * 3, dtype=np.uint8).reshape(8, 6, 3))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees clockwise
    lying.save(tmp_path / "lying.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    files = [tmp_path / "lying.png", tmp_path / "upright.png"]
    found = methods._inputs.read_photographs(files, Preparation(8, 6))
    assert torch.equal(found[0], found[1])


def test_bad_photographs_are_refused(cnn: Backbone, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photograph")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "deep.png")
    refused = {
        "text.jpg": "cannot read the photograph .*text.jpg",
        "nothing.jpg": "cannot read the photograph .*nothing.jpg",
        "deep.png": "deep.png has more than 8 bits a channel: expected 8",
    }
    for name, message in refused.items():
        with pytest.raises(ValueError, match=message):
            cnn.read([tmp_path / name])
    with pytest.raises(ValueError, match=r"photographs are 'a.jpg': expected a list of at least"):
        cnn.read("a.jpg")
    with pytest.raises(ValueError, match=r"photographs are \[\]: expected a list"):
        cnn.read([])
    deep = Image.fromarray(np.zeros((40, 40), np.uint16))
    with pytest.raises(ValueError, match="photograph that is given has more than 8 bits"):
        cnn.read([deep])
    Image.new("RGB", (400, 400), "red").save(tmp_path / "whole.png")
    cut = (tmp_path / "whole.png").read_bytes()[:-200]
    (tmp_path / "cut.png").write_bytes(cut)
    with pytest.raises(ValueError, match="cannot read the photograph that is given"):
        cnn.read([Image.open(tmp_path / "cut.png")])
    with pytest.raises(ValueError, match="a photograph is of type ndarray: expected a path or a"):
        cnn.read([np.zeros((40, 40, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"photographs are <PIL.Image.*expected a list"):
        cnn.read(Image.new("RGB", (40, 40)))
    with pytest.raises(ValueError, match="a crop of 9 pixels does not fit into an image resized"):
        Preparation(8, 9)
    with pytest.raises(ValueError, match="interpolation is 'best': expected one of bilinear"):
        Preparation(8, 8, "best")


def test_reading_gives_images_of_the_backbone(cnn: Backbone, photograph: Path) -> None:
    images = cnn.read([photograph, str(photograph)])
    assert images.shape == (2, 3, cnn.size, cnn.size)
    assert cnn.preparation == Preparation(round(cnn.size * 8 / 7), cnn.size)
    maps = GradCAM(cnn)(images, cnn.targets(images))
    methods.check_maps(maps, images)


PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (255 * PIXELS, r"range from .* to 25\d: expected \[0, 1\]; divide them by 255"),
        (PIXELS - 0.5, "are they already normalised\\? the backbone does so itself"),
        (PIXELS.where(PIXELS > 0.5, torch.nan), "range from nan to nan"),
        (PIXELS[0], r"shape \(3, 32, 32\): expected \(B, 3, H, W\); images\[None\] is a batch"),
        (PIXELS[:, :1], r"shape \(3, 1, 32, 32\): expected"),
        (PIXELS[:0], r"shape \(0, 3, 32, 32\): expected"),
        ((255 * PIXELS).byte(), "are torch.uint8: expected a tensor of torch.float32"),
        (PIXELS.double(), "are torch.float64: expected a tensor of torch.float32"),
        (PIXELS.numpy(), "are of type ndarray: expected a tensor of torch.float32"),
        (PIXELS.to("meta"), "are on meta: expected cpu"),
    ],
)
@pytest.mark.parametrize("asked", ["explainer", "targets"])
def test_what_are_no_pixels_is_refused(
    images: Any, message: str, asked: str, cnn: Backbone
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        Edges(cnn)(images, TARGETS) if asked == "explainer" else cnn.targets(images)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (TARGETS[:1], r"shape \(1,\): expected \(3,\), a class an image"),
        (TARGETS[:, None], r"shape \(3, 1\): expected \(3,\)"),
        (torch.tensor([0, 5, 1]), "class 5 is among the targets: expected 0 to 4"),
        (torch.tensor([0, 1, -1]), "class -1 is among the targets: expected 0 to 4"),
        (TARGETS.float(), "are torch.float32: expected a tensor of torch.int64"),
        (3, "are of type int: expected a tensor of torch.int64"),
        (TARGETS.to("meta"), "are on meta: expected cpu"),
    ],
)
def test_what_are_no_targets_is_refused(targets: Any, message: str, cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=message):
        Edges(cnn)(PIXELS, targets)


PROBABILITIES = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4], [0.5, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("predicted", [1, 0, 0]), ("runner_up", [2, 2, 1]), ("label", [2, 1, 0]), (2, [2, 2, 2])],
)
def test_classes_are_chosen(choice: Any, expected: list[int]) -> None:
    labels = torch.tensor([2, 1, 0])
    found = choose_targets(PROBABILITIES, choice, labels)
    assert found.tolist() == expected
    assert found.dtype == torch.int64


def test_numpy_and_lists_choose_as_tensors_do() -> None:
    for labels in ([2, 1, 0], np.array([2, 1, 0]), torch.tensor([2, 1, 0], dtype=torch.int32)):
        assert choose_targets(PROBABILITIES, "label", labels).tolist() == [2, 1, 0]
    for index in (np.int64(2), torch.tensor(2)):
        assert choose_targets(PROBABILITIES, index).tolist() == [2, 2, 2]


def test_a_preparation_of_another_size_keeps_its_proportions() -> None:
    assert Preparation(256, 224, "bicubic").scaled(448) == Preparation(512, 448, "bicubic")
    assert Preparation((256, 256), 224).scaled(112) == Preparation((128, 128), 112)


@pytest.mark.parametrize(
    ("choice", "labels", "message"),
    [
        ("best", None, "target is 'best': expected predicted, label, runner_up, or the index"),
        (True, None, "target is True: expected predicted"),
        (3, None, "class 3 is among the targets: expected 0 to 2"),
        ("label", None, r"target is 'label' without labels: expected \(3,\), one an image"),
        ("label", torch.tensor([1]), r"with labels \(1,\): expected \(3,\)"),
        ("label", torch.tensor([1, -1, 0]), "class -1 is among the targets"),
        ("label", [0.5, 1.0, 2.0], "labels are torch.float32: expected whole numbers"),
        ([0, 1, 2], None, "index of a class; an explainer takes a tensor of classes as it is"),
        (torch.tensor([0, 1, 2]), None, "an explainer takes a tensor of classes as it is"),
        (1.0, None, "target is 1.0: expected predicted"),
    ],
)
def test_bad_choices_are_refused(choice: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_targets(PROBABILITIES, choice, labels)
