"""AttnLRP: every rule against its formula, and conservation where it holds."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import Tensor, nn

from methods import Backbone
from methods._transformer import blocks, computing
from methods.attnlrp import AttnLRP, attended, normed, passed_on, rules, weighted

TARGETS = torch.tensor([0, 3, 1])


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(math.prod(shape)))


def relevance(function: Callable[[Tensor], Tensor], values: Tensor, arriving: Tensor) -> Tensor:
    """Input times gradient, if `arriving` is the relevance of the outputs."""
    given = values.detach().requires_grad_()
    outputs = function(given)
    (gradient,) = torch.autograd.grad(outputs, given, arriving / outputs.detach())
    return given.detach() * gradient


def through(inputs: Tensor, weight: Tensor, outputs: Tensor, arriving: Tensor) -> Tensor:
    """The epsilon rule of a linear layer, epsilon 0, as a sum over its products."""
    products = inputs[..., None, :] * weight  # (..., K, D)
    return (products * (arriving / outputs)[..., None]).sum(dim=-2)


def test_attention_by_the_rules_of_the_paper(vit: Backbone) -> None:
    """Relevance of values, attention, products, queries and keys, each from that behind it."""
    block = blocks(vit)[0]
    tokens, arriving = rand(2, 7, 12), rand(2, 7, 12)
    found = relevance(lambda own: attended(block, own), tokens, arriving)
    queries, keys, values = block.qkv(tokens)
    products = queries * block.scale @ keys.mT
    attention = products.softmax(dim=-1)
    mixed = attention @ values
    joined = mixed.transpose(1, 2).flatten(2)
    of_mixed = block.split(through(joined, block.proj.weight, block.proj(joined), arriving))
    terms = attention[..., None] * values[:, :, None]  # (B, heads, query, key, d)
    shares = terms * (of_mixed / mixed)[:, :, :, None] / 2
    of_attention, of_values = shares.sum(dim=-1), shares.sum(dim=2)
    of_products = products * (of_attention - attention * of_attention.sum(dim=-1, keepdim=True))
    terms = (queries * block.scale)[:, :, :, None] * keys[:, :, None]
    shares = terms * (of_products / products)[..., None] / 2
    of_queries, of_keys = shares.sum(dim=3), shares.sum(dim=2)
    arrived = [own.transpose(1, 2).flatten(2) for own in (of_queries, of_keys, of_values)]
    linear = nn.functional.linear(tokens, block.qkv_weight, block.qkv_bias)
    expected = through(tokens, block.qkv_weight, linear, torch.cat(arrived, dim=2))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert torch.allclose(attended(block, tokens), block.attention(tokens), atol=1e-5)


def test_norms_and_activations_pass_relevance_on() -> None:
    """Unchanged; that of a norm's mean and bias is a sum like any other."""
    values, arriving = rand(4, 6), rand(4, 6)
    for activation in (nn.GELU(), nn.SiLU()):
        found = relevance(lambda own, act=activation: passed_on(act, own), values, arriving)
        assert torch.allclose(found, arriving, atol=1e-5)
        assert torch.allclose(passed_on(activation, values), activation(values), atol=1e-6)
    assert torch.equal(passed_on(nn.GELU(), torch.zeros(2)), torch.zeros(2))
    norm = nn.LayerNorm(6)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    centred = values - values.mean(dim=-1, keepdim=True)
    found = relevance(lambda own: normed(norm, own), centred, arriving)
    assert torch.allclose(found.sum(dim=-1), arriving.sum(dim=-1), atol=1e-4)
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(normed(norm, values), norm(values), atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 3.0])
def test_the_gamma_rule_by_loops(gamma: float) -> None:
    linear, values, arriving = nn.Linear(5, 4), rand(3, 5), rand(3, 4)
    weight, bias = linear.weight.detach(), linear.bias.detach()
    expected = torch.zeros(3, 5)
    outputs = linear(values).detach()
    for row in range(3):
        for out in range(4):
            sign = 1 if outputs[row, out] > 0 else -1
            terms = [float(values[row, i] * weight[out, i]) for i in range(5)]
            grown = [t * (1 + gamma * (t * sign > 0)) for t in (*terms, float(bias[out]))]
            for i in range(5):
                expected[row, i] += grown[i] / sum(grown) * arriving[row, out]
    found = relevance(lambda own: weighted(linear, gamma, own), values, arriving)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.equal(weighted(linear, gamma, values), linear(values))


def without_biases(backbone: Backbone) -> None:
    """No biases, no positions, an empty CLS, and attention that every token gets alike."""
    with torch.no_grad():
        for name, parameter in backbone.network.named_parameters():
            if name.endswith("bias") or name in ("pos_embed", "cls_token"):
                parameter.zero_()
            if name.endswith("attn.qkv.weight"):
                parameter[: 2 * len(parameter) // 3] = 0


@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_a_block_that_attends_to_nothing_keeps_the_sum(gamma: float, vit: Backbone) -> None:
    """Additions, norms, activations and linear layers: what arrives is what leaves."""
    without_biases(vit)
    block = vit.layer("blocks.1")
    with torch.no_grad():
        blocks(vit)[1].proj.weight.zero_()
    tokens, arriving = rand(2, 17, 12), rand(2, 17, 12)
    with computing(rules(vit, gamma)):
        found = relevance(block, tokens - tokens.mean(dim=-1, keepdim=True), arriving)
    assert torch.allclose(found.sum(dim=(1, 2)), arriving.sum(dim=(1, 2)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_relevance_sums_to_half_of_the_logit(gamma: float, vit: Backbone, pixels: Tensor) -> None:
    """All that an empty CLS reads comes by one attention, whose own half stays there."""
    without_biases(vit)
    with torch.no_grad():
        for block in blocks(vit)[1:]:
            block.proj.weight.zero_()
    found = AttnLRP(vit, gamma=gamma).attribute(pixels, TARGETS).sum(dim=(1, 2, 3))
    logits = vit(pixels).gather(1, TARGETS[:, None])[:, 0]
    assert float(logits.abs().min()) > 1e-3
    assert torch.allclose(found, logits / 2, rtol=1e-3, atol=1e-5)


def test_its_rules_change_no_logit_and_leave_no_trace(vit: Backbone, pixels: Tensor) -> None:
    expected = vit(pixels)
    for gamma in (0.0, 0.25):
        with computing(rules(vit, gamma)):
            assert torch.allclose(vit(pixels), expected, atol=1e-5)
        AttnLRP(vit, gamma=gamma)(pixels, TARGETS)
        assert torch.equal(vit(pixels), expected)


def test_a_map_is_the_relevance_of_each_patch(vit: Backbone, pixels: Tensor) -> None:
    explainer = AttnLRP(vit)
    summed = explainer.attribute(pixels, TARGETS).sum(dim=1)
    patches = summed.unflatten(2, (4, 8)).unflatten(1, (4, 8)).sum(dim=(2, 4)).relu()
    low, high = patches.amin(dim=(1, 2), keepdim=True), patches.amax(dim=(1, 2), keepdim=True)
    assert torch.allclose(explainer(pixels, TARGETS), (patches - low) / (high - low), atol=1e-5)


def test_images_may_require_gradients(vit: Backbone, pixels: Tensor) -> None:
    expected = AttnLRP(vit)(pixels, TARGETS)
    maps = AttnLRP(vit)(pixels.clone().requires_grad_(), TARGETS)
    assert not maps.requires_grad
    assert torch.equal(maps, expected)


def test_half_precision_with_gamma_gives_maps(vit: Backbone, pixels: Tensor) -> None:
    expected = AttnLRP(vit, gamma=0.01).attribute(pixels, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = AttnLRP(vit, gamma=0.01).attribute(pixels, TARGETS)
    assert float((found - expected).norm() / expected.norm()) < 0.2


def test_a_stem_of_several_layers_is_refused() -> None:
    stem = nn.Conv2d(3, 4, 1)
    stem.num_features = 4  # type: ignore[assignment]
    network = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=5,
        embed_layer=partial(HybridEmbed, backbone=stem, feature_size=(32, 32)),
    )  # fmt: skip
    taps = ["blocks.0.norm1"]
    backbone = Backbone(
        network, name="hybrid", mean=[0.5] * 3, std=[0.5] * 3, size=32, classes=5, taps=taps,
        cam_layer=taps[0], prefix_tokens=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="'hybrid' makes patches by a HybridEmbed: expected one"):
        AttnLRP(backbone)


def test_gamma_is_not_negative(vit: Backbone) -> None:
    with pytest.raises(ValueError, match="gamma is -1: expected 0 or more"):
        AttnLRP(vit, gamma=-1)
