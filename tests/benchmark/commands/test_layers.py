"""Any backbone from parameters alone: suggested layers, a train step, maps, for many families."""

import runpy
import sys
from functools import cache

import pytest
import torch
import yaml
from torch import nn

import methods
from benchmark.commands import layers
from benchmark.core import params
from benchmark.core.params import Params
from benchmark.data.splits import as_pixels
from benchmark.engine import parallel, training
from methods import Backbone, TrainableExplainer, build_backbone

SUGGESTED = {
    "torchvision:resnet50": (["layer2", "layer3", "layer4"], {}),
    "torchvision:swin_t": (["features.3", "features.5", "norm"], {"channels_last": True}),
    "resnet18": (["layer2", "layer3", "layer4"], {}),
    "convnext_atto": (["stages.1", "stages.2", "stages.3"], {}),
    "vit_tiny_patch16_224": ([f"blocks.{i}.norm1" for i in (9, 10, 11)], {"prefix_tokens": 1}),
    "deit_tiny_distilled_patch16_224": (
        [f"blocks.{i}.norm1" for i in (9, 10, 11)],
        {"prefix_tokens": 2},
    ),
    "ghostnetv2_100": (["blocks.4", "blocks.6", "blocks.9"], {}),
    "efficientvit_m0": (["patch_embed", "stages.1", "stages.2"], {}),
}
OTHERS = {
    "torchvision:vgg16": (["features.22", "features.29", "features.30"], {}),
    "torchvision:convnext_tiny": (["features.3", "features.5", "features.7"], {}),
    "torchvision:densenet121": ([f"features.denseblock{i}" for i in (2, 3, 4)], {}),
    "torchvision:googlenet": (["inception3b", "inception4e", "inception5b"], {}),
    "torchvision:vit_b_16": (
        [f"encoder.layers.encoder_layer_{i}.ln_1" for i in (9, 10, 11)],
        {"prefix_tokens": 1},
    ),
    "vgg11_bn": (["features.20", "features.27", "features.28"], {}),
    "tf_efficientnet_lite0": (["blocks.2", "blocks.4", "blocks.6"], {}),
    "densenet121": (["features.denseblock2", "features.denseblock3", "features.norm5"], {}),
    "inception_v3": (["Mixed_5d", "Mixed_6e", "Mixed_7c"], {}),
    "hrnet_w18_small": (["incre_modules.1", "incre_modules.2", "final_layer"], {}),
    "swin_tiny_patch4_window7_224": (["layers.1", "layers.2", "norm"], {"channels_last": True}),
    "swinv2_tiny_window8_256": (["layers.1", "layers.2", "norm"], {"channels_last": True}),
    "caformer_s18": (["stages.1", "stages.2", "stages.3"], {}),
    "levit_128s": (["stages.0", "stages.1", "stages.2"], {"prefix_tokens": 0}),
    "resmlp_12_224": ([f"blocks.{i}" for i in (9, 10, 11)], {"prefix_tokens": 0}),
    "cait_xxs24_224": ([f"blocks.{i}.norm1" for i in (21, 22, 23)], {"prefix_tokens": 0}),
    "pit_ti_224": ([f"transformers.{i}.blocks" for i in range(3)], {"prefix_tokens": 1}),
    "twins_svt_small": (["pos_block.1", "pos_block.2", "norm"], {"prefix_tokens": 0}),
    "hiera_tiny_224": (["patch_embed", "blocks.11"], {"prefix_tokens": 0}),
    "crossvit_9_240": (["norm.0", "norm.1"], {"prefix_tokens": 1}),
    "efficientformer_l1": (
        ["stages.3.blocks.4.norm1", "stages.3.blocks.4.norm2"],
        {"prefix_tokens": 0},
    ),
}
"""Suggested likewise, in a minute or two: of networks that suggestions by name fail on."""

EVERY = [*SUGGESTED, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]

DEARER = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "torchvision:swin_t")
]
"""Transformers, whose many token counts take a while to probe; the sample's is in every run."""

pytestmark = pytest.mark.xdist_group("layers")
"""One worker suggests the layers of a network, once."""


@cache
def suggested(name: str) -> params.Backbone:
    """What `layers.suggest` says."""
    return layers.suggest(name)


@pytest.mark.parametrize("name", EVERY)
def test_suggested_layers(name: str) -> None:
    taps, others = (SUGGESTED | OTHERS)[name]
    spec = suggested(name)
    assert list(spec.taps) == taps
    assert spec.cam_layer == taps[-1]
    defaults = {"prefix_tokens": None, "channels_last": False}
    assert {key: getattr(spec, key) for key in defaults} == defaults | others


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", "pretrained"),
        ("efficientnet_b0_gn", "none"),
        ("torchvision:resnet50", "IMAGENET1K_V1"),
    ],
)
def test_published_weights(name: str, weights: str) -> None:
    assert suggested(name).weights == weights


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", *DEARER])
def test_a_network_is_added_by_parameters(name: str, settings: Params) -> None:
    """The lines as printed make a backbone; a small train step lowers the loss of its own batch."""
    recipe = settings.train.model_copy(update={"max_lr": 1e-5})
    spec = suggested(name)
    printed = yaml.safe_load(layers.lines(spec.model, spec))["backbones"][spec.model]
    printed["weights"] = "none"  # nothing can be fetched here, and random weights mix places
    printed["trusted"] = printed["taps"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(spec.model, **params.Backbone.model_validate(printed).spec)
    generator, shape = torch.Generator().manual_seed(1), (2, 3, spec.size, spec.size)
    stored = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images, targets = as_pixels(stored), torch.tensor([3, 5])
    for method in ("ttame", "gradcam"):
        explainer = methods.build(methods.load(method), backbone, {})
        maps = explainer.explain(images, targets)
        methods.check_maps(maps, images)
        assert maps.shape[1] == maps.shape[2] > 1
        if isinstance(explainer, TrainableExplainer):
            optimiser = training.build_optimiser(explainer.attention, recipe)
            trainee, scaler = parallel.Trainee(explainer), torch.amp.GradScaler(enabled=False)
            first = training.step(trainee, optimiser, stored, scaler, "float32")["loss"]
            with torch.no_grad():
                explainer.attention.train()
                assert explainer.losses(images)["loss"] < first
            explainer.attention.eval()


def test_channels_last_grids_are_the_same_explanation(cnn: Backbone, pixels: torch.Tensor) -> None:
    """A CNN whose tapped layers give (B, h, w, C) has the maps of the same CNN."""

    class Last(nn.Module):
        """Ends a layer with channels last, for the next to undo."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.inner(x)
            return made.permute(0, 2, 3, 1)

    class Undo(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 3, 1, 2)

    parts: list[nn.Module] = []
    for index, part in enumerate(cnn.network.children()):
        parts += [Last(part), Undo()] if index < 3 else [part]
    turned = Backbone(
        nn.Sequential(*parts),
        name="turned",
        mean=cnn.mean.flatten().tolist(),
        std=cnn.std.flatten().tolist(),
        size=cnn.size,
        classes=cnn.classes,
        taps=["0", "2", "4"],
        cam_layer="4",
        channels_last=True,
    )
    targets = torch.tensor([0, 3, 1])
    for name in ("ttame", "lcam_fm", "gradcam", "layercam", "scorecam", "ablationcam", "iia"):
        explainers = [methods.build(methods.load(name), b, {}) for b in (cnn, turned)]
        expected, found = (explainer.explain(pixels, targets) for explainer in explainers)
        assert torch.allclose(found, expected, atol=1e-5), name
        if isinstance(explainers[0], TrainableExplainer):
            losses = [float(e.losses(pixels)["loss"]) for e in explainers]  # type: ignore[attr-defined]
            assert losses[0] == pytest.approx(losses[1], abs=1e-5), name


def test_tokens_have_no_channel_order(cnn: Backbone) -> None:
    with pytest.raises(ValueError, match="has channels_last and prefix_tokens 1: expected one of"):
        Backbone(
            cnn.network,
            name="both",
            mean=[0.5] * 3,
            std=[0.5] * 3,
            size=cnn.size,
            classes=5,
            taps=["0"],
            cam_layer="2",
            prefix_tokens=1,
            channels_last=True,
        )


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "layers", "resnet18"])
    runpy.run_module("benchmark", run_name="__main__", alter_sys=True)
    printed = yaml.safe_load(capsys.readouterr().out)["backbones"]["resnet18"]
    assert params.Backbone.model_validate(printed) == suggested("resnet18")
    monkeypatch.setattr(sys, "argv", ["benchmark", "layers", "resnet19"])
    refusal = "layers: backbone 'resnet19': timm has no model 'resnet19'"
    with pytest.raises(SystemExit, match=refusal) as stopped:
        runpy.run_module("benchmark", run_name="__main__", alter_sys=True)
    assert "\n" not in str(stopped.value)
