"""Any classifier becomes a backbone."""

import re
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import methods
from benchmark.core import params
from methods import Backbone, Preparation, wrap
from methods._known import known_of_processor
from methods._wrapping import PACKAGED_LAYERS

transformers = pytest.importorskip("transformers")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_the_packaged_network_is_the_samples(lite0: Backbone, settings: params.Params) -> None:
    """A state that the pipeline trained fits what Python users get."""
    backbone = wrap("efficientnet_lite0")
    spec = settings.backbones["efficientnet_lite0"]
    assert backbone.digest == lite0.digest
    assert {"taps": list(spec.taps), "cam_layer": spec.cam_layer} == PACKAGED_LAYERS[backbone.name]
    assert (backbone.taps, backbone.cam_layer) == (lite0.taps, lite0.cam_layer)
    assert backbone.preparation == Preparation(256, 224, "bicubic")


def test_layers_are_suggested_and_can_be_chosen() -> None:
    network = timm.create_model("resnet10t", num_classes=7)
    found = wrap(network, size=64)
    assert (found.name, found.classes) == ("ResNet", 7)
    assert found.cam_layer == found.taps[-1]
    own = wrap(network, size=64, name="own", taps=["layer1"], cam_layer="layer2")
    assert (own.name, own.taps, own.cam_layer) == ("own", ("layer1",), "layer2")
    assert wrap(network, size=64, cam_layer="layer3").cam_layer == "layer3"
    assert wrap(network, size=64, taps=["layer1", "layer2"]).cam_layer == "layer2"


def test_names_lead_to_networks() -> None:
    found = wrap("torchvision:squeezenet1_1", weights="none")
    assert found.preparation == Preparation(256, 224, "bilinear")
    images = torch.rand(1, 3, 224, 224)
    maps = methods.load("gradcam")(found)(images, found.targets(images, "runner_up"))
    methods.check_maps(maps, images)
    assert found.digest == wrap("torchvision:squeezenet1_1", weights="none").digest


class Plain(nn.Module):
    """Somebody's classifier, of ten lines."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 4)."""
        logits: Tensor = self.head(self.features(images).relu().mean(dim=(2, 3)))
        return logits


def test_a_module_of_ones_own() -> None:
    torch.manual_seed(0)
    made = Plain()
    found = wrap(made, size=32, **IMAGENET)
    assert (found.name, found.classes, found.family) == ("Plain", 4, "cnn")
    assert found.network is made
    images = torch.rand(2, 3, 32, 32)
    maps = methods.build("gradcam", found)(images, found.targets(images))
    assert maps.shape == (2, 8, 8)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({}, "mean, std, size of 'Plain' are not known: expected what it was trained with"),
        ({"size": 32, "mean": [0.5] * 3}, "std of 'Plain' is not known"),
        ({"size": 32, **IMAGENET, "std": [0, 0, 0]}, r"std \[0, 0, 0\]: expected values in \(0, 1"),
        ({"size": 32, **IMAGENET, "device": "rtx"}, "device is 'rtx', which torch does not find"),
        ({"size": (32, 32), **IMAGENET}, r"has size \(32, 32\): expected the side of a square"),
        ({"size": 32, "taps": [], "cam_layer": "features", **IMAGENET}, r"taps \[\]: expected a l"),
        ({"size": 32, "taps": "features", "cam_layer": "features", **IMAGENET}, "taps 'features'"),
        ({"size": 32, "cam_layer": "nowhere", **IMAGENET}, "has no layer 'nowhere': near names"),
        ({"size": 32, "weights": "none", **IMAGENET}, "weights is 'none' beside a network that is"),
    ],
)
def test_bad_arguments_are_one_line(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        wrap(Plain(), **own)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Plain, "network is the class Plain: expected an nn.Module or a name"),
        (3, "network is of type int: expected an nn.Module or a name"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()),
            "a network that works on images",
        ),
    ],
)
def test_what_is_no_network_is_one_line(network: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(network, size=32, **IMAGENET)


def test_what_is_known_of_another_size_keeps_its_proportions() -> None:
    assert wrap("efficientnet_lite0", size=224).preparation == Preparation(256, 224, "bicubic")
    assert wrap("efficientnet_lite0", size=256).preparation == Preparation(293, 256, "bicubic")


def test_random_weights_of_the_packaged_network_are_trusted() -> None:
    found = wrap("efficientnet_lite0", weights="none")
    assert found.trusted == found.taps
    methods.build("ttame", found)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_layers_of_a_shallow_transformer_are_of_its_blocks(depth: int) -> None:
    last = range(max(0, depth - 3), depth)
    made = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=depth, embed_dim=48, num_heads=3, num_classes=7
    )
    assert wrap(made, size=64).taps == tuple(f"blocks.{n}.norm1" for n in last)
    config = transformers.ViTConfig(**SMALL["vit"] | {"num_hidden_layers": depth}, num_labels=7)
    torch.manual_seed(0)
    found = wrap(transformers.ViTForImageClassification(config), processor=PROCESSORS["vit"]())
    assert found.taps == tuple(f"model.vit.layers.{n}.layernorm_before" for n in last)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="backbone 'Plain' is on meta: expected all of it on one"):
        wrap(Plain().to("meta"), size=32, **IMAGENET)
    with pytest.raises(ValueError, match="device is 'meta', which torch does not find"):
        wrap(Plain(), size=32, device="meta", **IMAGENET)


def test_mean_and_std_may_be_arrays() -> None:
    expected = wrap(Plain(), size=32, mean=[0.5] * 3, std=[0.5] * 3)
    for make in (np.array, torch.tensor):
        found = wrap(Plain(), size=32, mean=make([0.5] * 3), std=make([0.5] * 3))
        assert torch.equal(found.mean, expected.mean)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_stays_there() -> None:
    torch.manual_seed(0)
    found = wrap(Plain().cuda(), size=32, **IMAGENET)
    assert found.device.type == "cuda"
    images = torch.rand(2, 3, 32, 32, device="cuda")
    assert methods.build("gradcam", found)(images, found.targets(images)).is_cuda
    assert wrap(Plain().cuda(), size=32, device="cpu", **IMAGENET).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "timm has no model 'resnet5O': near names are resnet50"),
        ("qqqq", r"timm has no model 'qqqq': see timm.list_models\(\)"),
        ("torchvision:resnet5", "torchvision has no model 'resnet5': expected one of"),
        ("nowhere:build", "cannot load 'nowhere:build'"),
    ],
)
def test_unknown_names_are_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(name)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(timm, "create_model", unreachable)
    message = r"cannot fetch its published weights \(OSError: no route\): expected the internet"
    with pytest.raises(ValueError, match=message):
        wrap("resnet18")


SMALL = {
    "vit": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": 64, "patch_size": 8},
    "swin": {"embed_dim": 12, "depths": [1, 1, 1], "num_heads": [1, 2, 4], "window_size": 4,
             "image_size": 64, "patch_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 12, 16], "depths": [1, 1, 1],
               "layer_type": "basic"},
    "convnext": {"hidden_sizes": [8, 12, 16], "depths": [1, 1, 1], "num_stages": 3},
}  # fmt: skip
"""Image classifiers of transformers, in small."""

PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 64, "width": 64}),
    "swin": lambda: transformers.ViTImageProcessor(
        size={"height": 64, "width": 64}, resample=3, image_mean=[0.4] * 3
    ),
    "resnet": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 64}),
    "convnext": lambda: transformers.ConvNextImageProcessor(
        size={"shortest_edge": 64}, crop_pct=0.8, resample=3
    ),
}


def hugging_face(kind: str) -> nn.Module:
    """A classifier with random weights."""
    config = transformers.AutoConfig.for_model(kind, num_labels=6, **SMALL[kind])
    torch.manual_seed(0)
    made: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    return made


@pytest.mark.parametrize("kind", SMALL)
def test_a_network_of_hugging_face(kind: str) -> None:
    """With what its processor says; every explainer gives a map or says in one line why not."""
    made = hugging_face(kind)
    found = wrap(made, processor=PROCESSORS[kind]())
    assert (found.size, found.classes) == (64, 6)
    assert found.family == ("transformer" if kind in ("vit", "swin") else "cnn")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = made((images - found.mean) / found.std).logits
        assert torch.allclose(found(images), expected, atol=1e-5)
    targets = found.targets(images)
    for name in ("gradcam", "scorecam", "saliency", "ttame", "rollout", "generic_attention"):
        try:
            explainer = methods.build(name, found)
        except ValueError as error:
            why = "expected the VisionTransformer|it is a cnn|reads no class token"
            assert re.search(why, str(error))  # noqa: PT017
            continue
        methods.check_maps(explainer.explain(images, targets), images)


@pytest.mark.parametrize("kind", SMALL)
def test_photographs_are_as_the_processor_prepares_them(kind: str) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (13, 9, 3), dtype=np.uint8))
    photograph = small.resize((150, 111), Image.Resampling.BICUBIC)
    processor = PROCESSORS[kind]()
    expected = processor(photograph, return_tensors="pt")["pixel_values"][0]
    told = known_of_processor(processor)
    pixels = told["preparation"](photograph) / 255
    mean, std = (torch.tensor(told[key]).view(3, 1, 1) for key in ("mean", "std"))
    difference = ((pixels - mean) / std - expected).abs() * std * 255
    assert float(difference.max()) <= 1.01  # one grey level: theirs resizes tensors, not images


def test_processors_that_do_something_else_are_refused() -> None:
    odd = transformers.ViTImageProcessor(rescale_factor=1 / 127.5)
    with pytest.raises(ValueError, match=r"rescales by 0.0078.*: expected 1/255"):
        known_of_processor(odd)
    wide = transformers.ViTImageProcessor(size={"height": 64, "width": 96})
    with pytest.raises(ValueError, match=r"makes images of .*: expected square ones"):
        known_of_processor(wide)


@pytest.mark.parametrize("name", ["Levit", "PoolFormer", "EfficientNet"])
def test_processors_that_are_not_what_they_say_are_refused(name: str) -> None:
    """They scale, crop or shift in ways that none of their sizes says."""
    processor = getattr(transformers, f"{name}ImageProcessor")()
    message = rf"the processor {name}ImageProcessor prepares a photograph in another way .*of 255\)"
    with pytest.raises(ValueError, match=message):
        known_of_processor(processor)


def test_a_processor_that_does_not_resize_is_refused() -> None:
    lazy = transformers.ViTImageProcessor(do_resize=False)
    message = (
        r"makes an image of \(3, 320, 480\): expected \(3, 224, 224\), as its size and crop say"
    )
    with pytest.raises(ValueError, match=message):
        known_of_processor(lazy)


@pytest.mark.parametrize("name", ["ViT", "DeiT", "Beit", "ConvNext", "Bit", "Siglip"])
def test_processors_that_are_what_they_say_are_taken(name: str) -> None:
    processor = getattr(transformers, f"{name}ImageProcessor")()
    assert known_of_processor(processor)["size"] in (224, 384)


def test_a_network_of_hugging_face_without_a_head_is_refused() -> None:
    headless = transformers.ViTModel(transformers.ViTConfig(**SMALL["vit"]))
    message = "ViTModel gives BaseModelOutputWithPooling, without logits: expected an image class"
    with pytest.raises(ValueError, match=message):
        wrap(headless, size=64, **IMAGENET)


def test_attention_explainers_name_the_network_of_hugging_face() -> None:
    found = wrap(hugging_face("vit"), processor=PROCESSORS["vit"]())
    with pytest.raises(ValueError, match="is of class ViTForImageClassification: expected the V"):
        methods.build("rollout", found)
