"""What a layer means is probed: it is right, or refused in one line that names another."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.models
from conftest import TINY, TINY_BACKBONES, tiny_cnn, tiny_vit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import methods
from methods import Backbone, Meaning, wrap
from methods._probe import POSITIONS, blank, patches, places

MEAN, STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]


def backbone(network: nn.Module, layer: str, size: int = TINY, **others: Any) -> Backbone:
    spec: dict[str, Any] = {"name": "net", "mean": MEAN, "std": STD, "size": size, "classes": 5}
    return Backbone(network, **spec, taps=[layer], cam_layer=layer, **others)


def vit(**others: Any) -> VisionTransformer:
    """A tiny vision transformer, whose head has random weights."""
    common = {"img_size": TINY, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionTransformer(**common | {"num_classes": 5} | others).eval()


class Then(nn.Module):
    """A layer of 4 x 4 averages that `change` works on, and a head on what it gives."""

    def __init__(self, change: Callable[[Tensor], Any], back: Callable[[Any], Tensor]) -> None:
        super().__init__()

        class Layer(nn.Module):
            def forward(self, images: Tensor) -> Any:
                return change(images)

        self.pool, self.layer, self.back = nn.AvgPool2d(8), Layer(), back
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.back(self.layer(self.pool(images))).mean(dim=(2, 3)))
        return logits


def tokens(grid: Tensor) -> Tensor:
    """Grids (B, C, h, w) as tokens (B, N, C)."""
    return grid.flatten(2).transpose(1, 2)


def grids(found: Tensor) -> Tensor:
    """Tokens (B, 16, C) as grids."""
    return found.transpose(1, 2).unflatten(2, (4, 4))


ORDER = torch.randperm(16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("layer", "rows"), [("0", 16), ("1", 8), ("2", 4), ("0.0", 16), ("3.0", None)]
)
def test_grids_of_a_cnn(layer: str, rows: int | None) -> None:
    cnn = tiny_cnn()
    if rows is None:
        with pytest.raises(ValueError, match=r"layer '3.0': it gives \(1, 8, 1, 1\) .* no places"):
            cnn.use(layer)
        return
    found = cnn.use(layer)
    assert (found.channel_axis, found.prefix_tokens) == (1, None)
    assert (found.rows, found.columns) == (rows, rows)
    assert found.follows >= 0.95


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        (1, {}),
        (0, {"class_token": False, "global_pool": "avg"}),
        (5, {"reg_tokens": 4}),
        (4, {"reg_tokens": 4, "class_token": False, "global_pool": "avg"}),
    ],
)
def test_tokens_that_are_no_patches_are_counted(prefix: int, others: dict[str, Any]) -> None:
    network = vit(**others)
    found = backbone(network, "blocks.1.norm1", prefix_tokens=prefix).use("blocks.1.norm1")
    assert (found.channel_axis, found.prefix_tokens) == (-1, prefix)
    assert (found.rows, found.columns) == (4, 4)
    said = backbone(network, "blocks.1.norm1", prefix_tokens=prefix + 1)
    expected = rf"gives tokens \(B, N, D\) with {prefix} in front .* expected .* with {prefix + 1}"
    with pytest.raises(ValueError, match=expected):
        said.use("blocks.1.norm1")


def test_a_layer_that_averages_cells_follows_exactly() -> None:
    found = backbone(Then(lambda x: 1 * x, lambda x: x), "layer").use("layer")
    peak = 16.0  # one cell changes, and fifteen do not
    assert found == Meaning(1, None, 4, 4, follows=1.0, peak=pytest.approx(peak))


@pytest.mark.parametrize(
    ("change", "back", "said", "why"),
    [
        (lambda x: x.permute(0, 2, 3, 1), lambda x: x.permute(0, 3, 1, 2), {},
         r"it gives a grid \(B, h, w, C\), expected a grid \(B, C, h, w\)"),
        (lambda x: tokens(x).mT.contiguous(), lambda x: x.unflatten(2, (4, 4)),
         {"prefix_tokens": 0}, r"it gives tokens \(B, D, N\)"),
        (lambda x: tokens(x).transpose(0, 1), lambda x: grids(x.transpose(0, 1)),
         {"prefix_tokens": 0}, "the first axis is not the batch"),
        (lambda x: tokens(x)[:, ORDER], lambda x: grids(x[:, ORDER.argsort()]),
         {"prefix_tokens": 0}, r"no place of it follows the image \(rank correlation"),
        (lambda x: x.flip(3), lambda x: x, {}, "no place of it follows the image"),
        (lambda x: x.transpose(2, 3), lambda x: x, {}, "no place of it follows the image"),
        (lambda x: (x, x), lambda x: x[0], {}, "it gives a tuple, not one tensor"),
        (lambda x: x.mean(dim=(2, 3)), lambda x: x[:, :, None, None], {},
         r"it gives \(1, 3\) for one image, which has no places"),
        (lambda x: torch.ones_like(x), lambda x: x, {}, "it does not depend on the image"),
        (lambda x: 1 * x, lambda x: x.relu_(), {}, "what follows works in place and overwrites"),
    ],
    ids=[
        "channels last", "channels before tokens", "tokens before images", "another order",
        "mirrored", "transposed", "a tuple", "pooled", "blind", "overwritten",
    ],
)  # fmt: skip
def test_a_layer_that_means_something_else_is_refused(
    change: Callable[[Tensor], Any], back: Callable[[Any], Tensor], said: dict[str, Any], why: str
) -> None:
    network = backbone(Then(change, back), "layer", **said)
    nearest = "'pool'" if not said else "it has no layer that they can"
    line = rf"^backbone 'net': explainers cannot read layer 'layer': .*{why}.*; .*{nearest}"
    with pytest.raises(ValueError, match=line) as refused:
        network.use("layer")
    assert "\n" not in str(refused.value)
    settings: dict[str, Any] = {"tokens": "drop"} if said else {}
    for name in ("ttame", "gradcam", "scorecam", "eigencam", "ablationcam"):
        with pytest.raises(ValueError, match=why):
            methods.build(methods.load(name), network, settings if name == "ttame" else {})


@pytest.mark.parametrize(("front", "behind"), [(0, 1), (0, 3), (1, 1), (4, 2)])
@pytest.mark.parametrize("size", [(4, 4), (7, 7)])
def test_tokens_behind_the_patches_are_seen(front: int, behind: int, size: tuple[int, int]) -> None:
    """Read as if they stood in front, every place would be shifted along its row."""
    side, count = size[0], math.prod(size)

    def surrounded(x: Tensor) -> Tensor:
        return torch.cat(
            [x.new_zeros(len(x), front, 3), tokens(x), x.new_ones(len(x), behind, 3)], 1
        )

    def back(x: Tensor) -> Tensor:
        return x[:, front : front + count].transpose(1, 2).unflatten(2, size)

    made = Then(surrounded, back)
    made.pool = nn.AvgPool2d(8)
    network = backbone(made, "layer", size=8 * side, prefix_tokens=front + behind)
    found = rf"gives tokens \(B, N, D\) with {front} in front and {behind} behind that are no"
    with pytest.raises(ValueError, match=found):
        network.use("layer")
    alone = Then(lambda x: torch.cat([x.new_zeros(len(x), front, 3), tokens(x)], 1), back)
    network = backbone(alone, "layer", size=8 * side, prefix_tokens=front)
    assert network.use("layer") == Meaning(-1, front, *size, 1.0, pytest.approx(count, rel=0.9))


@pytest.mark.parametrize(("side", "others"), [(14, 1), (14, 2), (28, 1)])
def test_tokens_among_the_patches_are_seen(side: int, others: int) -> None:
    """A class token in the middle, as Vision Mamba has it: half of the places would be shifted."""
    middle = side * side // 2

    def split(x: Tensor) -> Tensor:
        patches = tokens(x)
        own = x.new_zeros(len(x), others, 3)
        return torch.cat([patches[:, :middle], own, patches[:, middle:]], 1)

    def back(x: Tensor) -> Tensor:
        patches = torch.cat([x[:, :middle], x[:, middle + others :]], 1)
        return patches.transpose(1, 2).unflatten(2, (side, side))

    for prefix in (0, others):
        network = backbone(Then(split, back), "layer", size=8 * side, prefix_tokens=prefix)
        with pytest.raises(ValueError, match="no patches stand among the patches, not in front"):
            network.use("layer")


def test_a_copy_shares_what_is_known() -> None:
    """Whoever looks first looks for both, at the network that nobody altered."""
    network = backbone(Then(lambda x: 1 * x, lambda x: x), "layer")
    passed: list[int] = []
    network.network.register_forward_pre_hook(lambda _m, inputs: passed.append(len(inputs[0])))
    altered, again = network.alterable(), network.alterable()
    altered.network.layer.forward = lambda x: x.flip(3)  # type: ignore[assignment, union-attr]
    assert altered.use("layer").follows == 1.0
    assert again.use("layer") == network.use("layer") == network.probed.layers["layer"]
    assert passed == [1, POSITIONS**2 + 1]


def test_tokens_are_asked_of_a_layer_that_has_some() -> None:
    network = backbone(vit(), "blocks.1.norm1", prefix_tokens=1)
    network.cam_layer = "patch_embed.proj"
    with pytest.raises(ValueError, match=r"layer 'patch_embed.proj' gives no tokens: expected"):
        network.has_class_token()


def test_a_layer_that_runs_twice_for_a_batch_alone() -> None:
    class Again(Then):
        def forward(self, images: Tensor) -> Tensor:
            grid = self.layer(self.pool(images))
            if len(images) > 1:
                grid = self.layer(grid)
            logits: Tensor = self.head(grid.mean(dim=(2, 3)))
            return logits

    with pytest.raises(ValueError, match="it runs 2 times a forward pass"):
        backbone(Again(lambda x: 1 * x, lambda x: x), "layer").use("layer")


def test_a_layer_that_is_not_finite_is_named_as_such() -> None:
    network = backbone(Then(lambda x: x.log() - x.log() * torch.inf, torch.nan_to_num), "layer")
    with pytest.raises(ValueError, match=r"cannot read layer 'layer': it gives NaN or infinite"):
        network.use("layer")


def test_reading_and_changing_a_layer_ask_what_it_means() -> None:
    """Whoever forgets to ask in the constructor is refused all the same."""
    network = backbone(Then(lambda x: 1 * x, lambda x: x.relu_()), "layer")
    image = torch.rand(1, 3, TINY, TINY)
    with pytest.raises(ValueError, match="overwrites it"), network.tap(["pool", "layer"]):
        network(image)
    with pytest.raises(ValueError, match="overwrites it"), network.changed("layer", torch.relu):
        network(image)
    with network.tap(["pool"]) as outputs:
        network(image)
    assert outputs["pool"].shape == (1, 3, 4, 4)
    assert not any(m._forward_hooks for m in network.network.modules())


def test_half_precision_around_it_does_not_matter() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half = tiny_vit().use("blocks.2.norm1")
    assert half == tiny_vit().use("blocks.2.norm1")


def test_building_and_probing_take_twenty_passes_of_one_image() -> None:
    """And a second time none, see `methods.Probed`."""
    made, passed = vit(), list[int]()
    made.register_forward_pre_hook(lambda _m, inputs: passed.append(len(inputs[0])))
    seen: dict[str, Any] = {"taps": ["blocks.1.norm1"], "cam_layer": "blocks.1.norm1"}
    spec = {"name": "net", "mean": MEAN, "std": STD, "size": TINY, "prefix_tokens": 1}
    network = wrap(made, **seen, **spec)  # type: ignore[arg-type]
    methods.build(methods.load("ttame"), network, {})
    assert network.has_class_token()
    channels = 1  # not of the probe: T-TAME asks for the number of channels
    assert sum(passed) == 1 + (1 + 1 + POSITIONS**2) + 1 + channels
    assert sum(passed) - channels <= 20


def test_a_layer_that_fails_the_place_alone_can_be_trusted() -> None:
    network = Then(lambda x: x.flip(3), lambda x: x)
    found = backbone(network, "layer", trusted=["layer"]).use("layer")
    assert found.follows == pytest.approx(-1.0)
    blind = backbone(Then(torch.ones_like, lambda x: x), "layer", trusted=["layer"])
    with pytest.raises(ValueError, match="does not depend"):
        blind.use("layer")
    with pytest.raises(ValueError, match="no layer 'lyer': near names are layer"):
        backbone(network, "layer", trusted=["lyer"])


@pytest.mark.parametrize(
    ("model", "layer", "why", "nearest"),
    [
        ("resnet18", "layer4.1.relu", "it runs 2 times a forward pass", "layer4.1"),
        (
            "densenet121",
            "features.norm5",
            "works in place and overwrites it",
            "features.denseblock4",
        ),
        ("vgg11", "features.18", "works in place and overwrites it", "features.19"),
        ("googlenet", "aux1", "it never runs", None),
    ],
)
def test_networks_of_torchvision(model: str, layer: str, why: str, nearest: str | None) -> None:
    made = torchvision.models.get_model(model, weights=None, **AUXILIARY.get(model, {}))
    network = backbone(made.eval(), layer, size=128)
    with pytest.raises(ValueError, match=why) as refused:
        network.use(layer)
    if nearest is not None:
        assert str(refused.value).endswith(f"the nearest that they can is {nearest!r}")
        network.use(nearest)


AUXILIARY: dict[str, dict[str, Any]] = {"googlenet": {"init_weights": False, "aux_logits": True}}


@pytest.mark.parametrize("build", TINY_BACKBONES.values(), ids=TINY_BACKBONES)
def test_it_is_probed_once_and_leaves_no_trace(build: Callable[[], Backbone]) -> None:
    tiny, passed = build(), list[int]()
    tiny.network.register_forward_pre_hook(lambda _m, inputs: passed.append(len(inputs[0])))
    state = torch.random.get_rng_state()
    for layer in tiny.taps:
        tiny.use(layer)
    assert passed == [1, POSITIONS**2 + 1]
    assert tiny.passes == methods.Passes()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(m._forward_hooks for m in tiny.network.modules())
    tiny.has_class_token()
    tiny.has_class_token()
    expected = [1, POSITIONS**2 + 1, *([1] if tiny.prefix_tokens else [])]
    assert passed == expected
    assert sum(expected) <= 20


@pytest.mark.parametrize(
    ("others", "prefix", "expected"),
    [
        ({}, 1, True),
        ({"reg_tokens": 4}, 5, True),
        ({"global_pool": "avg"}, 1, False),
        ({"global_pool": "avg", "class_token": False}, 0, False),
        ({"global_pool": "avg", "class_token": False, "reg_tokens": 2}, 2, False),
    ],
)
def test_whether_there_is_a_class_token(
    others: dict[str, Any], prefix: int, expected: bool, pixels: Tensor
) -> None:
    """T-TAME multiplies by the first token only where that is the one that the head reads."""
    network = backbone(vit(**others), "blocks.1.norm1", prefix_tokens=prefix)
    assert network.has_class_token() is expected
    ttame = methods.load("ttame")
    if not expected:
        with pytest.raises(ValueError, match="reads no class token: expected 'drop'"):
            methods.build(ttame, network, {})
    explainer = methods.build(ttame, network, {} if expected else {"tokens": "drop"})
    maps = explainer.explain(pixels, torch.tensor([0, 1, 2]))
    assert maps.shape == (3, 4, 4)


def test_a_head_of_zeros_reads_the_class_token() -> None:
    """As torchvision's transformers have it before they are trained."""
    network = vit()
    nn.init.zeros_(network.head.weight)
    assert backbone(network, "blocks.1.norm1", prefix_tokens=1).has_class_token()


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (196, (224, 224), (14, 14)),
        (144, (128, 288), (8, 18)),
        (144, (288, 128), (18, 8)),
        (63, (100, 130), (7, 9)),  # patches of 16, padded
        (48, (100, 130), (6, 8)),  # patches of 16, the rest cut off
        (1, (224, 224), (1, 1)),
        (6, (32, 32), None),
        (197, (224, 224), None),
        (144, (224, 224), (12, 12)),
        (96, (33, 512), (3, 32)),  # narrow images: the ratio of the sides says less
        (64, (47, 512), (2, 32)),
        (32, (512, 31), (32, 1)),
        (64, (512, 31), (32, 2)),
    ],
)
def test_rows_and_columns_of_patches(
    count: int, size: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    assert places(count, size) == expected


def test_tokens_of_an_image_that_is_not_square() -> None:
    """128 x 288 pixels are 8 x 18 patches of 16, not 12 x 12."""
    network = backbone(vit(dynamic_img_size=True), "blocks.1.norm1", prefix_tokens=1)
    images = torch.rand(2, 3, 32, 72, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), network.tap(["blocks.1.norm1"]) as outputs:
        network(images)
    features = outputs["blocks.1.norm1"]
    grid = network.grid(features)
    assert grid.shape == (2, 12, 4, 9)
    assert torch.equal(grid[1, :, 2, 5], features[1, 1 + 2 * 9 + 5])
    maps = methods.load("gradcam")(network)(images, torch.tensor([0, 1]))
    assert maps.shape == (2, 4, 9)
    with pytest.raises(ValueError, match=r"35 patch tokens of 'net' form no grid .* 32 x 72"):
        network.grid(features[:, :36])


def test_the_patch_moves_over_the_image() -> None:
    base, moved = blank((32, 64)), patches((32, 64))
    assert moved.shape == (POSITIONS**2, 3, 32, 64)
    changed = (moved - base).abs().amax(dim=1) > 0
    first, last = changed[0].nonzero(), changed[-1].nonzero()
    assert first.min(dim=0).values.tolist() == [2, 4]
    assert first.max(dim=0).values.tolist() == [5, 11]
    assert last.min(dim=0).values.tolist() == [26, 52]
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert changed.sum(dim=(1, 2)).tolist() == [4 * 8] * POSITIONS**2


def test_every_layer_of_the_tiny_transformer_that_can_be_read() -> None:
    readable = tiny_vit().readable_layers()
    assert {f"blocks.{i}.norm1" for i in range(3)} <= readable.keys()
    assert not {"head", "fc_norm", "patch_embed.proj", "blocks.0.attn.q_norm"} & readable.keys()
