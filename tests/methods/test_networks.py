"""Networks: packaged weights, folded batch norms, and the torchvision networks of the paper."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

import methods
from benchmark.core.params import Params
from methods import (
    Backbone,
    _acceleration,
    _networks,
    _wrapping,
    build_backbone,
    build_network,
    wrap,
)

pytestmark = pytest.mark.xdist_group("networks")
"""One worker builds the networks of the paper, once."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def torchvision_spec(model: str, taps: list[str], cam: str, prefix: int | None) -> dict[str, Any]:
    return {
        "source": "torchvision",
        "model": model,
        "weights": "none",
        "size": 224,
        "taps": taps,
        "cam_layer": cam,
        "prefix_tokens": prefix,
        **IMAGENET,
    }


VIT = [f"encoder.layers.encoder_layer_{i}.ln_1" for i in (9, 10, 11)]
SPECS = {
    "vgg16": torchvision_spec(
        "vgg16", ["features.16", "features.23", "features.30"], "features.29", None
    ),
    "resnet50": torchvision_spec("resnet50", ["layer2", "layer3", "layer4"], "layer4.2", None),
    "vit_b_16": torchvision_spec("vit_b_16", VIT, VIT[2], 1),
}
"""The backbones of the paper; taps and CAM layers of its reference."""

GRIDS = {
    "vgg16": [(256, 28), (512, 14), (512, 7)],
    "resnet50": [(512, 28), (1024, 14), (2048, 7)],
    "vit_b_16": [(768, 14)] * 3,
}
CAM_SIDES = {"vgg16": 14, "resnet50": 7, "vit_b_16": 14}


@pytest.fixture(
    scope="module",
    params=["resnet50", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vgg16", "vit_b_16"))],
)
def papers(request: pytest.FixtureRequest) -> Backbone:
    return build_backbone(request.param, **SPECS[request.param])


def test_top_1_on_photographs(lite0: Backbone, photographs: tuple[Tensor, Tensor]) -> None:
    images, labels = photographs
    probabilities = lite0.probabilities(images)
    assert int((probabilities.argmax(dim=1) == labels).sum()) >= 17
    assert float(probabilities.gather(1, labels[:, None]).mean()) > 0.65


def test_names_of_packaged_weights_match_timms_strictly() -> None:
    network = timm.create_model("tf_efficientnet_lite0")
    state = _networks.packaged_efficientnet_lite0()
    assert list(state) == list(network.state_dict())
    network.load_state_dict(state, strict=True)


@pytest.mark.parametrize("model", ["tf_efficientnet_lite0", "resnet18", "densenet121"])
def test_folding_changes_no_logit(model: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=7).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    folded = _acceleration.fold_batch_norms(network, 64)
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(images), folded(images), rtol=1e-3, atol=1e-4)
    assert folded is not network


def test_a_network_that_cannot_be_folded_stays_as_it_is() -> None:
    class Crossed(nn.Module):
        """Registers its batch norm after the convolution, but runs it before."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(2.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.norm(x)).square().mean(dim=(2, 3))

    network = Crossed().eval()
    assert _acceleration.fold_batch_norms(network, 16) is network


class Odd(nn.Module):
    """Registers or reads its modules as ordinary networks do, and folding does not expect."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv1 = nn.Conv2d(3, 4, 4, 4)
        if kind == "widths":
            self.conv2 = nn.Conv2d(4, 8, 1)
            self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(8)
        else:
            self.bn1 = nn.BatchNorm2d(4, track_running_stats=kind != "no statistics")
        self.head = nn.Linear(8 if kind == "widths" else 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        grid = self.conv1(images)
        if self.kind == "reads":
            norm = self.bn1
            grid = nn.functional.batch_norm(grid, norm.running_mean, norm.running_var)
        else:
            grid = self.bn1(grid)
        if self.kind == "widths":
            grid = self.bn2(self.conv2(grid.relu()))
        logits: Tensor = self.head(grid.relu().mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize("kind", ["widths", "no statistics", "reads"])
def test_networks_that_folding_does_not_expect_stay_right(kind: str) -> None:
    torch.manual_seed(0)
    network = Odd(kind).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
        folded = _acceleration.fold_batch_norms(network, 32)
        assert torch.allclose(folded(images), expected, atol=1e-5)


def test_taps_have_the_papers_shapes(papers: Backbone) -> None:
    with torch.no_grad(), papers.tap(papers.taps) as outputs:
        papers(torch.rand(1, 3, 224, 224))
    shapes = [tuple(papers.grid(outputs[layer]).shape) for layer in papers.taps]
    assert shapes == [(1, channels, side, side) for channels, side in GRIDS[papers.name]]


@pytest.mark.parametrize("name", ["ttame", "gradcam"])
def test_explainers_have_the_papers_shapes(papers: Backbone, name: str) -> None:
    explainer = methods.build(methods.load(name), papers, {})
    images = torch.rand(1, 3, 224, 224)
    maps = explainer.explain(images, torch.tensor([3]))
    methods.check_maps(maps, images)
    largest = max(side for _, side in GRIDS[papers.name])
    side = largest if name == "ttame" else CAM_SIDES[papers.name]
    assert maps.shape == (1, side, side)


def test_vit_taps_are_the_first_norm_of_the_block(papers: Backbone) -> None:
    """torch.fx calls module `ln_1` of layer 9 `ln`, and `ln_2` `ln_1`; hooks name modules."""
    if papers.name != "vit_b_16":
        pytest.skip("about the vision transformer")
    block = papers.layer("encoder.layers.encoder_layer_9")
    seen: list[Tensor] = []
    handle = block.self_attention.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad(), papers.tap(VIT[:1]) as outputs:
        papers(torch.rand(1, 3, 224, 224))
    handle.remove()
    assert torch.equal(outputs[VIT[0]], seen[0])


def test_unknown_model_and_weights(settings: Params) -> None:
    spec = settings.backbones["efficientnet_lite0"].spec
    with pytest.raises(ValueError, match="timm has no model 'efficientnet_lite9'"):
        build_backbone("x", **spec | {"model": "efficientnet_lite9"})
    with pytest.raises(
        ValueError, match=r"weights is 'best': expected one of none, packaged, pretrained"
    ):
        build_backbone("x", **spec | {"weights": "best"})
    with pytest.raises(ValueError, match="torchvision has no model 'vgg17'"):
        build_backbone("x", **SPECS["vgg16"] | {"model": "vgg17"})


def network_of(spec: dict[str, Any]) -> dict[str, Any]:
    """What of a backbone's arguments is its network's."""
    return {key: value for key, value in spec.items() if key in _wrapping.NETWORK}


def test_timm_fetches_its_own_weights(settings: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    create = timm.create_model

    def offline(model: str, *, pretrained: bool, **arguments: object) -> nn.Module:
        asked.append(pretrained)
        network: nn.Module = create(model, pretrained=False, **arguments)
        return network

    monkeypatch.setattr(timm, "create_model", offline)
    spec = network_of(settings.backbones["efficientnet_lite0"].spec)
    for weights in ("pretrained", "none"):
        build_network("x", **spec | {"weights": weights})
    assert asked == [True, False]


def test_torchvision_has_no_pretrained() -> None:
    spec = network_of(SPECS["resnet50"]) | {"weights": "pretrained"}
    with pytest.raises(ValueError, match=r"'pretrained': expected one of none, .*IMAGENET1K_V1"):
        build_network("x", **spec)


def test_weights_of_the_wrong_shape(settings: Params, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = _networks.packaged_efficientnet_lite0()
    state["classifier.bias"] = torch.zeros(10)
    save_file({name: t.contiguous() for name, t in state.items()}, path)
    spec = settings.backbones["efficientnet_lite0"].spec | {"weights": str(path)}
    message = r"weights of backbone 'x' do not fit: classifier.bias is \(10,\), expected \(1000,\)"
    with pytest.raises(ValueError, match=message):
        build_backbone("x", **spec)


def test_a_missing_file_of_weights(settings: Params, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    spec = settings.backbones["efficientnet_lite0"].spec | {"weights": str(path)}
    with pytest.raises(ValueError, match=r"backbone 'x': weights file .*weights.safetensors not f"):
        build_backbone("x", **spec)


def test_random_weights_are_the_same_and_leave_the_generator(settings: Params) -> None:
    spec = settings.backbones["efficientnet_lite0"].spec | {"weights": "none"}
    state = torch.get_rng_state()
    first = build_backbone("x", **spec)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert build_backbone("x", **spec).digest == first.digest


def test_a_network_of_ones_own_is_wrapped() -> None:
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = nn.Sequential(nn.Conv2d(3, 5, 3, 2), *pooled, nn.Linear(5, 4))
    backbone = wrap(
        network.train(),
        name="own",
        size=16,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        taps=["0"],
        cam_layer="0",
    )
    assert (backbone.name, backbone.size, backbone.classes) == ("own", 16, 4)
    assert not backbone.network.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("model", "size", "others", "message"),
    [
        ("resnet18", 32, {"num_classes": 0}, "has num_classes 0: expected a classifier"),
        ("vit_tiny_patch16_224", 225, {}, "does not take images of 225 x 225 pixels"),
        ("swinv2_tiny_window8_256", 224, {}, "does not take images of 224 x 224 pixels"),
    ],
)
def test_what_is_no_classifier_of_such_images(
    model: str, size: int, others: dict[str, Any], message: str
) -> None:
    spec = {"source": "timm", "model": model, "weights": "none", "arguments": others}
    own: dict[str, Any] = {**spec, "size": size, "taps": ["x"], "cam_layer": "x", **IMAGENET}
    with pytest.raises(ValueError, match=message) as refused:
        build_backbone("net", **own)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("pool", ["mean", "first", "max", "rectified"])
def test_features_are_no_class_scores(pool: str) -> None:
    class Features(nn.Module):
        """Pools a layer, and ends."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 7, 4, stride=4)

        def forward(self, images: Tensor) -> Tensor:
            grid = self.layer(images).flatten(2)
            kinds = {"mean": grid.mean(dim=2), "first": grid[:, :, 0], "max": grid.amax(dim=2)}
            return (kinds | {"rectified": grid.relu().mean(dim=2)})[pool]

    seen: dict[str, Any] = {"name": "net", "size": 32, "taps": ["layer"], "cam_layer": "layer"}
    with pytest.raises(ValueError, match="gives what layer 'layer' gives, pooled"):
        wrap(Features(), **seen, **IMAGENET)
    counted = Features()
    counted.num_classes = 6  # type: ignore[assignment]
    with pytest.raises(ValueError, match="gives what layer 'layer' gives, pooled"):
        wrap(counted, **seen, **IMAGENET)
    counted.num_classes = 7  # type: ignore[assignment]
    assert wrap(counted, **seen, **IMAGENET).classes == 7


class Ending(nn.Module):
    """A layer, and what `end` makes of its averages."""

    def __init__(self, end: Callable[[Tensor], Any], classes: int = 4) -> None:
        super().__init__()
        self.layer, self.head, self.end = nn.Conv2d(3, 7, 4, 4), nn.Linear(7, classes), end

    def forward(self, images: Tensor) -> Any:
        return self.end(self.head(self.layer(images).mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("end", "classes", "declared", "message"),
    [
        (lambda x: x.softmax(dim=1), 4, None, "gives probabilities, .* expected logits"),
        (lambda x: x, 1, None, "gives one logit: expected one a class, at least two"),
        (lambda x: x, 4, 5, "gives 4 values for one image: expected its num_classes, 5"),
        (lambda x: (x, x), 4, None, r"gives tuple for one image: expected logits \(1, classes\)"),
        (lambda x: x[:, :, None], 4, None, r"gives \(1, 4, 1\) for one image"),
        (
            lambda x: {}["no key"],
            4,
            None,
            r"does not take .* \(KeyError: 'no key'\): expected",
        ),
    ],
    ids=["probabilities", "one logit", "other classes", "a tuple", "axes", "an exception"],
)
def test_what_are_no_logits(
    end: Callable[[Tensor], Any], classes: int, declared: int | None, message: str
) -> None:
    seen: dict[str, Any] = {"name": "net", "size": 32, "taps": ["layer"], "cam_layer": "layer"}
    made = Ending(end, classes)
    if declared is not None:
        made.num_classes = declared  # type: ignore[assignment]
    with pytest.raises(ValueError, match=f"^backbone 'net' {message}"):
        wrap(made, **seen, **IMAGENET)
    assert wrap(Ending(lambda x: x), **seen, **IMAGENET).classes == 4
    assert wrap(Ending(lambda x: x.log_softmax(dim=1)), **seen, **IMAGENET).classes == 4


@pytest.mark.parametrize("model", ["googlenet", "inception_v3"])
def test_a_file_of_weights_does_not_say_how_images_were_normalised(
    model: str, tmp_path: Path
) -> None:
    """Those that torchvision publishes need `transform_input`, those of others do not."""
    import torchvision.models

    path, plain = tmp_path / "own.pth", {"init_weights": False}
    torch.save(torchvision.models.get_model(model, weights=None, **plain).state_dict(), path)
    spec: dict[str, Any] = {"source": "torchvision", "model": model}
    with pytest.raises(ValueError, match="expected `transform_input` among its arguments, true"):
        build_network("net", **spec, weights=str(path), arguments=plain)
    for said in (True, False):
        arguments = plain | {"transform_input": said}
        made = build_network("net", **spec, weights=str(path), arguments=arguments)
        assert made.transform_input is said
    assert build_network("net", **spec, weights="none", arguments=plain)


def test_squeezenet_averages_class_maps() -> None:
    spec = {"source": "torchvision", "model": "squeezenet1_1", "weights": "none", "size": 224}
    own = {"taps": ["features.7", "classifier.2"], "cam_layer": "classifier.2", **IMAGENET}
    assert build_backbone("net", **spec, **own).classes == 1000  # type: ignore[arg-type]


def test_weights_that_are_not_finite() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(network[0].weight, float("nan"))  # type: ignore[arg-type]
    seen: dict[str, Any] = {"name": "net", "size": 32, "taps": ["0"], "cam_layer": "0"}
    with pytest.raises(ValueError, match="logits that are NaN or infinite"):
        wrap(network, **seen, **IMAGENET)


def test_no_layer_of_the_paper_is_refused(papers: Backbone) -> None:
    """With random weights, so a place need not follow; nothing else may be wrong."""
    papers.trusted = (*papers.taps, papers.cam_layer)
    for layer in papers.trusted:
        papers.use(layer)


@pytest.mark.parametrize("side", [32, 33, 47])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (2, 1), (4, 3)])
def test_padding_in_the_kernel_is_timms_same_padding(side: int, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = Conv2dSame(6, 6, kernel, stride, groups=6)
    holder = torch.nn.Sequential(conv)
    images = torch.randn(2, 6, side, side + 1, requires_grad=True)
    expected = holder(images)
    _acceleration.pad_in_kernels(holder)
    assert type(holder[0]) is _acceleration.KernelPaddedConv2d
    assert holder[0].weight is conv.weight
    found = holder(images)
    assert torch.allclose(found, expected, atol=1e-6)
    (wanted,) = torch.autograd.grad(expected.square().sum(), images)
    (given,) = torch.autograd.grad(found.square().sum(), images)
    assert torch.allclose(given, wanted, atol=1e-5)


def test_the_samples_network_pads_in_its_kernels_and_gives_the_same_bytes(lite0: Backbone) -> None:
    padded = [m for m in lite0.network.modules() if type(m) is _acceleration.KernelPaddedConv2d]
    assert len(padded) == 5
    plain = copy.deepcopy(lite0.network)
    for parent in list(plain.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) is _acceleration.KernelPaddedConv2d:
                same = Conv2dSame(
                    conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
                    groups=conv.groups,
                )  # fmt: skip
                same.weight, same.bias = conv.weight, conv.bias
                setattr(parent, name, same)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(plain(images), lite0.network(images))
    images.requires_grad_()
    expected, found = (
        torch.autograd.grad(network(images)[:, 5].sum(), images)[0]
        for network in (plain, lite0.network)
    )
    assert torch.equal(expected, found)
