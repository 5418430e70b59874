"""The attention explainers against other people's code, other formulas and known answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP, LayerGradientXActivation
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from benchmark.engine.promises import PROMISES, Case
from methods import Backbone, Explainer, Passes
from methods._base import normalise
from methods._transformer import attention_gradients, attentions, blocks, recorded, rolled_out
from methods.attnlrp import AttnLRP
from methods.generic_attention import GenericAttention
from methods.legrad import LeGrad, Pooling
from methods.raw_attention import RawAttention
from methods.rollout import Rollout
from methods.transformer_lrp import (
    TransformerLRP,
    relevances,
    through_linear,
    through_product,
    through_sum,
)

TARGETS = torch.tensor([0, 3, 1])
EXPLAINERS: list[type[Explainer]] = [
    Rollout, RawAttention, GenericAttention, TransformerLRP, LeGrad, AttnLRP
]  # fmt: skip
SIDE = 32


def wrap(network: nn.Module, tap: str, prefix_tokens: int | None = 1) -> Backbone:
    """A backbone whose weights are large enough for attention that is not uniform."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            centre = 1.0 if weight.ndim == 1 and name.endswith("weight") else 0.0
            weight.copy_(centre + 0.3 * torch.randn(weight.shape, generator=generator))
    return Backbone(
        network,
        name="small",
        mean=[0.5] * 3,
        std=[0.5] * 3,
        size=SIDE,
        classes=5,
        taps=[tap],
        cam_layer=tap,
        prefix_tokens=prefix_tokens,
    )


def timm_vit(depth: int = 3, **changes: Any) -> Backbone:
    settings: dict[str, Any] = {"img_size": SIDE, "patch_size": 8, "embed_dim": 12, "depth": depth}
    settings |= {"num_heads": 2, "mlp_ratio": 2, "num_classes": 5}
    return wrap(
        VisionTransformer(**settings | changes), "blocks.0", 1 + changes.get("reg_tokens", 0)
    )


def torchvision_vit(**changes: Any) -> Backbone:
    settings: dict[str, Any] = {"image_size": SIDE, "patch_size": 8, "num_layers": 3}
    settings |= {"num_heads": 2, "hidden_dim": 12, "mlp_dim": 24, "num_classes": 5}
    return wrap(TorchvisionTransformer(**settings | changes), "encoder.layers.encoder_layer_0")


# At a width of 12, all products of some output are negative; at 32 none, so that sums are exact.
WIDE: list[Callable[[], Backbone]] = [
    lambda: timm_vit(embed_dim=32),
    lambda: torchvision_vit(hidden_dim=32, mlp_dim=64),
]
BUILDERS: list[Callable[[], Backbone]] = [timm_vit, torchvision_vit]


@pytest.fixture(params=BUILDERS, ids=["timm", "torchvision"])
def small(request: pytest.FixtureRequest) -> Backbone:
    """A small transformer of each library."""
    backbone: Backbone = request.param()
    return backbone


NAMES = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj": "conv_proj",
    "blocks.": "encoder.layers.encoder_layer_",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "head": "heads.head",
}


def twins() -> tuple[Backbone, Backbone]:
    """One network, in timm and in torchvision."""
    first, second = timm_vit(), torchvision_vit()
    state = {}
    for name, weight in first.network.state_dict().items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        state["encoder.ln." + name[5:] if name.startswith("norm.") else name] = weight
    second.network.load_state_dict(state)
    return first, second


@pytest.fixture
def open_vit() -> tuple[Backbone, list[nn.Module]]:
    """A timm transformer that computes its attention openly, and the modules that put it out."""
    backbone = timm_vit()
    layers = list(backbone.network.blocks)  # type: ignore[arg-type]
    for layer in layers:
        layer.attn.fused_attn = False
    return backbone, [layer.attn.attn_drop for layer in layers]


def test_logits_stay_and_rows_sum_to_1(small: Backbone, pixels: Tensor) -> None:
    expected = small(pixels).detach()
    for grad in (True, False):
        with torch.set_grad_enabled(grad), attentions(small) as collected:
            logits = small(pixels)
        assert torch.allclose(logits, expected, atol=1e-5)
        assert [tuple(a.shape) for a in collected] == [(3, 2, 17, 17)] * 3
        assert all(torch.allclose(a.sum(dim=-1), torch.ones(3, 2, 17)) for a in collected)
        assert all(a.requires_grad == grad for a in collected)
    assert float(collected[0].std(dim=-1).mean()) > 0.01


def test_attention_is_timms(open_vit: tuple[Backbone, list[nn.Module]], pixels: Tensor) -> None:
    backbone, modules = open_vit
    with recorded(modules) as seen:
        backbone(pixels)
    with attentions(backbone) as collected:
        backbone(pixels)
    for module, attention in zip(modules, collected, strict=True):
        assert torch.allclose(seen[module][1], attention, atol=1e-6)


def test_attention_is_torchvisions(pixels: Tensor) -> None:
    backbone = torchvision_vit()
    found = blocks(backbone)
    with recorded([block.norm1 for block in found]) as seen, attentions(backbone) as collected:
        backbone(pixels)
    for block, attention in zip(found, collected, strict=True):
        tokens = seen[block.norm1][1]
        _, expected = block.attention(tokens, tokens, tokens, average_attn_weights=False)
        assert torch.allclose(attention, expected, atol=1e-6)


def test_gradients_are_finite_differences(small: Backbone, pixels: Tensor) -> None:
    small, step = small.double(), 1e-6
    collected, gradients = attention_gradients(small, pixels.double(), TARGETS)
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        direction = torch.randn(collected[index].shape, generator=generator, dtype=torch.float64)
        scores = []
        for sign in (1, -1):

            def moved(
                i: int, attention: Tensor, by: Tensor = sign * step * direction, own: int = index
            ) -> Tensor:
                return attention + by if i == own else attention

            with attentions(small, moved):
                scores.append(small(pixels.double())[range(3), TARGETS].detach())
        expected = (scores[0] - scores[1]) / (2 * step)
        found = (gradients[index] * direction).sum(dim=(1, 2, 3))
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_change_sees_every_block_in_order_and_its_result_counts(
    small: Backbone, pixels: Tensor
) -> None:
    asked = []

    def halved(index: int, attention: Tensor) -> Tensor:
        asked.append(index)
        return attention / 2 if index == 2 else attention

    with attentions(small, halved) as collected:
        changed = small(pixels)
    assert asked == [0, 1, 2]
    assert torch.allclose(collected[2].sum(dim=-1), torch.full((3, 2, 17), 0.5))
    assert not torch.allclose(changed, small(pixels), atol=1e-3)


def test_only_the_latest_pass_is_kept(small: Backbone, pixels: Tensor) -> None:
    with attentions(small) as collected:
        small(pixels)
        small(pixels[:1])
    assert [len(a) for a in collected] == [1, 1, 1]


def forwards(backbone: Backbone) -> list[bool]:
    return ["forward" in vars(module) for module in backbone.modules()]


def test_forward_goes_back(small: Backbone, pixels: Tensor) -> None:
    before, expected = forwards(small), small(pixels)
    with pytest.raises(KeyError), attentions(small):
        raise KeyError
    assert forwards(small) == before
    with attentions(small, lambda _, a: a / 2) as outer:
        with attentions(small) as inner:
            small(pixels)
        small(pixels)
    assert float(inner[0].detach().sum()) == pytest.approx(2 * float(outer[0].detach().sum()))
    assert forwards(small) == before
    assert torch.equal(small(pixels), expected)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("cls", EXPLAINERS)
def test_contract_on_torchvision(
    cls: type[Explainer], promise: Callable[[Case], None], pixels: Tensor
) -> None:
    promise(Case(cls, torchvision_vit(), pixels, TARGETS))


@pytest.mark.parametrize("cls", EXPLAINERS)
def test_same_weights_same_maps(cls: type[Explainer], pixels: Tensor) -> None:
    first, second = twins()
    assert torch.allclose(first(pixels), second(pixels), atol=1e-5)
    maps = cls(first)(pixels, TARGETS)
    assert torch.allclose(maps, cls(second)(pixels, TARGETS), atol=1e-5)
    assert torch.equal(maps.amax(dim=(1, 2)), torch.ones(3))


@pytest.mark.parametrize("cls", EXPLAINERS)
def test_prefix_tokens_are_left_out(cls: type[Explainer], pixels: Tensor) -> None:
    assert cls(timm_vit(reg_tokens=3))(pixels, TARGETS).shape == (3, 4, 4)


def test_rollout_by_hand(open_vit: tuple[Backbone, list[nn.Module]], pixels: Tensor) -> None:
    backbone, modules = open_vit
    with recorded(modules) as seen:
        backbone(pixels)
    joint = np.stack([np.eye(17)] * 3)
    for module in modules:
        mixed = 0.5 * seen[module][1].double().numpy().mean(axis=1) + 0.5 * np.eye(17)
        joint = np.einsum("bij,bjk->bik", mixed / mixed.sum(axis=2, keepdims=True), joint)
    expected = normalise(torch.from_numpy(joint[:, 0, 1:].reshape(3, 4, 4)))
    assert torch.allclose(Rollout(backbone)(pixels, TARGETS), expected.float(), atol=1e-5)


def test_rollout_of_known_attention() -> None:
    uniform = torch.full((1, 2, 5, 5), 0.2, dtype=torch.float64)
    assert torch.allclose(rolled_out([uniform]), torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]]).double())
    assert float(rolled_out([uniform] * 4)[0, 1:].std()) < 1e-12
    identity = torch.eye(5).expand(1, 2, 5, 5)
    assert rolled_out([identity] * 3).tolist() == [[1, 0, 0, 0, 0]]
    # CLS reads from token 2 in the last block, which had read from token 3 in the first.
    first, last = torch.eye(5).repeat(2, 1, 1, 1, 1)
    first[0, 0, 2], last[0, 0, 0] = torch.eye(5)[3], torch.eye(5)[2]
    assert rolled_out([first, last]).tolist() == [[0.5, 0, 0.25, 0.25, 0]]
    assert rolled_out([last, first]).tolist() == [[0.5, 0, 0.5, 0, 0]]


def test_rollout_is_the_same_for_every_class(small: Backbone, pixels: Tensor) -> None:
    explainer = Rollout(small)
    assert torch.equal(explainer(pixels, TARGETS), explainer(pixels, TARGETS + 1))


def test_generic_attention_in_loops_from_captums_products(
    open_vit: tuple[Backbone, list[nn.Module]], pixels: Tensor
) -> None:
    backbone, modules = open_vit
    products = [
        LayerGradientXActivation(backbone, module)
        .attribute(pixels.clone().requires_grad_(), target=TARGETS)
        .detach()
        for module in modules
    ]
    for image in range(3):
        relevance = np.eye(17)
        for product in products:
            step = np.zeros((17, 17))
            for i in range(17):
                for j in range(17):
                    step[i, j] = sum(max(float(product[image, h, i, j]), 0) for h in range(2)) / 2
            relevance = relevance + step @ relevance
        expected = normalise(torch.from_numpy(relevance[0, 1:].reshape(1, 4, 4)).float())
        maps = GenericAttention(backbone)(pixels[image, None], TARGETS[image, None])
        assert torch.allclose(maps, expected, atol=1e-5)


def test_generic_attention_of_one_block(pixels: Tensor) -> None:
    backbone = timm_vit(depth=1)
    (attention,), (gradient,) = attention_gradients(backbone, pixels, TARGETS)
    row = (attention * gradient).clamp(min=0).mean(dim=1)[:, 0, 1:]
    maps = GenericAttention(backbone)(pixels, TARGETS)
    assert torch.allclose(maps, normalise(row.reshape(3, 4, 4)), atol=1e-6)


def test_raw_attention_is_the_last_blocks(
    open_vit: tuple[Backbone, list[nn.Module]], pixels: Tensor
) -> None:
    backbone, modules = open_vit
    with recorded(modules) as seen:
        backbone(pixels)
    row = seen[modules[-1]][1][:, :, 0, 1:].mean(dim=1)
    maps = RawAttention(backbone)(pixels, TARGETS)
    assert torch.allclose(maps, normalise(row.reshape(3, 4, 4)), atol=1e-5)
    assert torch.equal(maps, RawAttention(backbone)(pixels, TARGETS + 1))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_legrad_in_loops(
    pooling: Pooling, open_vit: tuple[Backbone, list[nn.Module]], pixels: Tensor
) -> None:
    """Each block by itself, on the tokens that reach it, from the attention in timm's dropout."""
    backbone, modules = open_vit
    network: Any = backbone.network
    with recorded(list(network.blocks)) as seen:
        backbone(pixels)
    for image in range(3):
        relevance = np.zeros(17)
        for block, dropout in zip(network.blocks, modules, strict=True):
            kept: list[Tensor] = []

            def keep(_m: nn.Module, _i: Any, output: Tensor, kept: list[Tensor] = kept) -> None:
                kept.append(output.requires_grad_())

            handle = dropout.register_forward_hook(keep)
            tokens = block(seen[block][0][image, None])[0]
            handle.remove()
            read = tokens[0] if pooling == "cls" else sum(tokens) / 17
            score = network.head(network.norm(read))[TARGETS[image]]
            (gradient,) = torch.autograd.grad(score, kept)
            for head in range(2):
                for query in range(17):
                    for key in range(17):
                        relevance[key] += max(float(gradient[0, head, query, key]), 0)
        expected = normalise(torch.from_numpy(relevance[1:].reshape(1, 4, 4)).float())
        maps = LeGrad(backbone, pooling=pooling)(pixels[image, None], TARGETS[image, None])
        assert torch.allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("cls", [GenericAttention, TransformerLRP, LeGrad])
def test_maps_depend_on_the_class(cls: type[Explainer], small: Backbone, pixels: Tensor) -> None:
    explainer = cls(small)
    difference = explainer(pixels, TARGETS) - explainer(pixels, TARGETS + 1)
    assert bool((difference.abs().amax(dim=(1, 2)) > 0.05).all())


@pytest.mark.parametrize("build", WIDE, ids=["timm", "torchvision"])
def test_relevance_is_conserved_at_every_block(
    build: Callable[[], Backbone], pixels: Tensor
) -> None:
    found = relevances(build(), pixels, TARGETS)
    assert len(found.tokens) == 4
    assert len(found.attentions) == len(found.gradients) == 3
    for relevance in found.tokens:
        assert relevance.dtype == torch.float64
        assert torch.allclose(relevance.sum(dim=(1, 2)), torch.ones(3).double(), rtol=1e-5)
    assert float(found.tokens[3][:, 1:].abs().max()) == 0
    assert all(bool((r[:, 1:].abs().sum(dim=(1, 2)) > 0.01).all()) for r in found.tokens[:3])


def test_linear_rule_by_hand() -> None:
    # Products x w: 2 and -2 for the first output, -1 and 6 for the second.
    inputs, weight = torch.tensor([[1.0, -2.0]]), torch.tensor([[2.0, 1.0], [-1.0, -3.0]])
    found = through_linear(inputs, weight, torch.tensor([[5.0, 12.0]]))
    assert torch.allclose(found, torch.tensor([[5.0, 12.0]]))
    weight = torch.tensor([[2.0, -1.0], [6.0, -1.0]])
    found = through_linear(inputs, weight, torch.tensor([[4.0, 8.0]]))
    assert torch.allclose(found, torch.tensor([[2.0 + 6.0, 2.0 + 2.0]]))
    assert through_linear(inputs, -weight, torch.ones(1, 2)).tolist() == [[0, 0]]


def test_linear_rule_is_captums_for_positive_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, classes = torch.rand(2, 6, generator=generator), torch.tensor([1, 3])
    layer = nn.Linear(6, 4, bias=False)
    layer.weight.data = torch.randn(4, 6, generator=generator)
    layer.rule = Alpha1_Beta0_Rule()
    expected = LRP(nn.Sequential(layer)).attribute(inputs.clone().requires_grad_(), target=classes)
    relevance = layer(inputs).detach() * F.one_hot(classes, 4)
    found = through_linear(inputs, layer.weight.detach(), relevance)
    assert torch.allclose(found, expected.detach(), atol=1e-5)
    assert float(found.abs().max()) > 0.1


def test_product_rule_halves_input_times_gradient() -> None:
    left, right = torch.rand(2, 3, 4).requires_grad_(), torch.rand(2, 4, 5).requires_grad_()
    relevance = torch.randn(2, 3, 5)
    product = left @ right
    gradients = torch.autograd.grad(product, (left, right), relevance / product.detach())
    found = through_product(left.detach(), right.detach(), relevance)
    for operand, gradient, share in zip((left, right), gradients, found, strict=True):
        assert torch.allclose(share, (operand * gradient / 2).detach(), atol=1e-5)
        assert torch.allclose(share.sum(dim=(1, 2)), relevance.sum(dim=(1, 2)) / 2, atol=1e-4)


def test_sum_rule_by_hand() -> None:
    left, right = torch.tensor([[[3.0, -1.0]]]), torch.tensor([[[1.0, 2.0]]])
    found = through_sum(left, right, torch.tensor([[[4.0, 2.0]]]))
    # Proportions: 3, -2 of sum 1 and 1, 4 of sum 5; the sum of 6 is shared as 1 to 5.
    assert torch.allclose(found[0], torch.tensor([[[3.0, -2.0]]]))
    assert torch.allclose(found[1], torch.tensor([[[1.0, 4.0]]]))
    found = through_sum(left, right, torch.tensor([[[4.0, 8.0]]]))
    # Proportions: 3, -8 of sum -5 and 1, 16 of sum 17; the sum of 12 is shared as 5 to 17.
    assert torch.allclose(found[0], torch.tensor([[[3.0, -8.0]]]) / -5 * 12 * 5 / 22)
    assert torch.allclose(found[1], torch.tensor([[[1.0, 16.0]]]) / 17 * 12 * 17 / 22)


class LinearRule(torch.autograd.Function):
    """A linear layer (weight, bias) whose backward pass carries relevance, pair by pair."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward((x[..., None, :] * weight).relu())
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (pairs,) = ctx.saved_tensors
        return (relevance[..., None] * pairs / pairs.sum(-1, keepdim=True)).sum(-2), None, None


class SameRule(torch.autograd.Function):
    """A function whose backward pass carries relevance through unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return relevance, None


class PairRule(torch.autograd.Function):
    """A product or sum of two tensors whose backward pass carries normalised relevance (9, 10)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, function: Callable[..., Tensor]) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(u, v)
        return function(u, v)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        u, v = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            out = ctx.function(u, v)
            gradients = torch.autograd.grad(out, (u, v), relevance / out.detach())
        r_u, r_v = (t.detach() * g for t, g in zip((u, v), gradients, strict=True))
        whole = r_u.sum().abs() + r_v.sum().abs()
        r_u = r_u * r_u.sum().abs() / whole * relevance.sum() / r_u.sum()
        r_v = r_v * r_v.sum().abs() / whole * relevance.sum() / r_v.sum()
        return r_u, r_v, None


def relevance_by_backward(network: Any, image: Tensor, target: int) -> list[Tensor]:
    """Each block's R_A (1, heads, N, N) of a timm transformer, by a backward pass of relevance."""
    linear, same, pair = LinearRule.apply, SameRule.apply, PairRule.apply
    kept = []
    embedded = network.patch_embed(image)
    x = torch.cat([network.cls_token, embedded], dim=1) + network.pos_embed
    x = x.detach().requires_grad_()
    for block in network.blocks:
        n = same(x, block.norm1)
        n = linear(n, block.attn.qkv.weight, block.attn.qkv.bias)
        q, k, v = n.reshape(1, 17, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind()
        dots = pair(q, k, lambda a, b: a @ b.transpose(-2, -1))
        attention = same(dots, lambda d: (d * 16**-0.5).softmax(dim=-1))
        kept.append(attention)
        mixed = pair(attention, v, torch.matmul).transpose(1, 2).reshape(1, 17, 32)
        x = pair(x, linear(mixed, block.attn.proj.weight, block.attn.proj.bias), torch.add)
        n = linear(same(x, block.norm2), block.mlp.fc1.weight, block.mlp.fc1.bias)
        n = linear(same(n, F.gelu), block.mlp.fc2.weight, block.mlp.fc2.bias)
        x = pair(x, n, torch.add)
    logits = linear(same(x, network.norm)[:, 0], network.head.weight, network.head.bias)
    assert torch.allclose(logits, network(image))
    return list(torch.autograd.grad(logits, kept, F.one_hot(torch.tensor([target]), 5).double()))


def test_relevance_is_that_of_a_backward_pass_of_relevance(pixels: Tensor) -> None:
    backbone = WIDE[0]().double()
    found = relevances(backbone, pixels.double(), TARGETS).attentions
    for i in range(3):
        image = (pixels[i, None].double() - backbone.mean) / backbone.std
        expected = relevance_by_backward(backbone.network, image, int(TARGETS[i]))
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours[i, None], theirs, rtol=1e-4, atol=1e-6 * theirs.abs().max())


def test_lrp_starts_at_a_layer(small: Backbone, pixels: Tensor) -> None:
    found = relevances(small, pixels, TARGETS)
    row = (found.attentions[2] * found.gradients[2]).clamp(min=0).mean(dim=1)[:, 0, 1:]
    maps = TransformerLRP(small, start_layer=2)(pixels, TARGETS)
    assert torch.allclose(maps, normalise(row.reshape(3, 4, 4)).float(), atol=1e-6)
    assert not torch.allclose(maps, TransformerLRP(small)(pixels, TARGETS), atol=1e-2)
    with pytest.raises(ValueError, match="start_layer is 3: expected a block from 0 to 2"):
        TransformerLRP(small, start_layer=3)


def test_lrp_counts_the_passes_of_its_copy(small: Backbone, pixels: Tensor) -> None:
    TransformerLRP(small)(pixels, TARGETS)
    assert small.passes == Passes(forward=3, backward=3)
    assert {weight.dtype for weight in small.state_dict().values()} == {torch.float32}


def test_lrp_does_not_depend_on_rounding(small: Backbone, pixels: Tensor) -> None:
    noise = 1e-13 * torch.randn(pixels.shape, dtype=torch.float64)
    explainer = TransformerLRP(small)
    moved = explainer.explain(pixels.double() + noise, TARGETS)
    assert torch.allclose(explainer(pixels, TARGETS), moved, atol=1e-5)


class Other(VisionTransformer):
    """May compute anything."""


def swin() -> Backbone:
    network = SwinTransformer(
        img_size=SIDE,
        patch_size=2,
        window_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 1),
        num_classes=5,
    )
    return wrap(network, "layers.0", 0)


def other(cls: type[VisionTransformer]) -> Backbone:
    network = cls(img_size=SIDE, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=5)
    return wrap(network, "blocks.0")


REFUSED: dict[str, tuple[Callable[[], Backbone], str]] = {
    "sequential": (
        lambda: wrap(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten()), "0", None),
        "does not support 'small': it is a cnn, expected transformer",
    ),
    "swin": (
        swin,
        "backbone 'small' is of class SwinTransformer: expected the VisionTransformer of",
    ),
    "subclass": (lambda: other(Other), "'small' is of class Other: expected the VisionTransformer"),
    "distilled": (
        lambda: other(VisionTransformerDistilled),
        "is of class VisionTransformerDistilled",
    ),
    "layer scale": (
        lambda: timm_vit(init_values=0.1),
        "block 0 of 'small' has a LayerScale as ls1: expected an Identity there",
    ),
    "query norm": (
        lambda: timm_vit(qk_norm=True, norm_layer=nn.LayerNorm),
        "has a LayerNorm as attn.q_norm: expected an Identity",
    ),
    "drop path": (lambda: timm_vit(drop_path_rate=0.1), "block 1 .* has a DropPath as drop_path1"),
    "another block": (
        lambda: timm_vit(block_fn=ResPostBlock),
        "block 0 of 'small' is a ResPostBlock: expected a Block",
    ),
    "another norm": (
        lambda: timm_vit(norm_layer=nn.RMSNorm),
        "has a RMSNorm as norm1: expected a LayerNorm",
    ),
    "pooling": (
        lambda: timm_vit(global_pool="avg"),
        "has a head Linear on pooling 'avg': expected one Linear on the CLS token",
    ),
    "head of two layers": (
        lambda: torchvision_vit(representation_size=7),
        "expected one Linear on the CLS token ('token'), with nothing between",
    ),
}


@pytest.mark.parametrize("cls", EXPLAINERS)
@pytest.mark.parametrize("case", REFUSED)
def test_refuses_other_networks(cls: type[Explainer], case: str) -> None:
    build, message = REFUSED[case]
    backbone = build()
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=pattern) as refusal:
        cls(backbone)
    assert "\n" not in str(refusal.value)
    assert "small" in str(refusal.value)


def test_maps_of_an_image_that_is_not_square(pixels: Tensor) -> None:
    """They are those of the tokens, in rows as long as the image has patches side by side."""
    backbone = timm_vit(img_size=(SIDE, 2 * SIDE))
    images = torch.cat([pixels, pixels.flip(3)], dim=3)
    maps = Rollout(backbone)(images, TARGETS)
    with torch.no_grad(), attentions(backbone) as collected:
        backbone(images)
    expected = rolled_out(collected)[:, 1:]
    assert maps.shape == (3, SIDE // 8, 2 * SIDE // 8)
    assert torch.equal(maps, normalise(expected.unflatten(1, maps.shape[1:])))


def test_blocks_are_read_without_a_copy() -> None:
    backbone = timm_vit()
    first: Block = backbone.network.blocks[0]  # type: ignore[index]
    block = blocks(backbone)[0]
    assert block.qkv_weight is first.attn.qkv.weight
    assert (block.heads, block.scale) == (2, pytest.approx(6**-0.5))
