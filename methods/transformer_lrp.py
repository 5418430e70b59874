"""Transformer attribution: attention's relevance times its gradient, through all blocks."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods._base import Backbone
from methods._inputs import exact_device
from methods._transformer import (
    AttentionExplainer,
    Block,
    attention_gradients,
    blocks,
    head,
    recorded,
    token_maps,
    weighted_rollout,
)

Seen = dict[nn.Module, tuple[Tensor, Tensor]]
EPSILON = 1e-9
"""Added to the magnitude of every denominator."""


class TransformerLRP(AttentionExplainer):
    """Layer-wise relevance of attention, weighted by its gradient and multiplied over the blocks.

    A map is the CLS row of the product of 1 + mean_h((dy/dA * R_A)^+) over the blocks, y being
    the logit of the explained class and R_A the relevance of the attention A. Relevance starts
    as 1 at that class and goes back through the whole network; written from the paper:

    - A linear layer (head, MLP, projections, qkv) shares it out in proportion to the products
      x w >= 0 (alpha 1, beta 0). The bias gets nothing, so that the sum is kept.
    - GELU, LayerNorm, softmax and the factor of the queries pass it on unchanged.
    - A product of two matrices gives either operand input times gradient of its output. Each
      sums to the whole; the paper's normalisation (equations 8 to 10) therefore halves both.
    - An addition gives either operand its proportion, which may be huge and of either sign. The
      same normalisation shrinks each operand as a whole, image by image, to the part
      abs(sum of its own) / (abs(sum of its own) + abs(sum of the other's)) of what came in.
    - Taking the CLS token leaves the other tokens none.
    - A denominator of exactly 0 says nothing of the proportions and passes nothing on: all products
      x w of an output are negative, as may happen in a narrow network, or a sum cancels.

    Products of queries and keys, and sums that cancel, are denominators of any size and sign, by
    which rounding in the network grows without bound: of an untrained ViT of 6 blocks, maps in
    float32 are up to 0.7 off. Everything is therefore computed in float64, in a copy of the
    backbone that lives as long as the call and counts its passes as the backbone's.

    Args:
        backbone: a vision transformer.
        start_layer: the first block of the product; those before it are left out.

    Raises:
        ValueError: the backbone has no such blocks, see methods._transformer.blocks, or
            `start_layer` is none of them.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = TransformerLRP(wrap("vit_tiny_patch16_224", weights="none"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 14, 14])
    """

    label = "Transformer LRP"
    paper = "Chefer et al. 2021, CVPR, arXiv 2012.09838"
    cost = "1 forward, 1 backward"

    def __init__(self, backbone: Backbone, *, start_layer: int = 0) -> None:
        super().__init__(backbone)
        if not 0 <= start_layer < self._depth:
            raise ValueError(
                f"start_layer is {start_layer}: expected a block from 0 to {self._depth - 1}"
            )
        self._start_layer = start_layer

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps on the grid of the patches."""
        found = relevances(self.backbone, images, targets)
        used = slice(self._start_layer, None)
        scores = weighted_rollout(found.attentions[used], found.gradients[used])
        return token_maps(self.backbone, scores.to(images.device))


class Relevances(NamedTuple):
    """What one forward and one backward pass say of an image and a class."""

    tokens: list[Tensor]
    """Relevance (B, N, D) at the input of each block, and at the output of the last."""
    attentions: list[Tensor]
    """Relevance (B, heads, N, N) of each block's attention."""
    gradients: list[Tensor]
    """Gradient (B, heads, N, N) of the logit with respect to each block's attention."""


def relevances(backbone: Backbone, images: Tensor, targets: Tensor) -> Relevances:
    """The relevance of every part of the network for `targets`; see TransformerLRP.

    The tokens' relevance sums to 1 for each image, before and after every block (but for what a
    denominator of 0 keeps, see there). All in float64.
    """
    where = exact_device(images.device)
    exact = copy.deepcopy(backbone).to(where).double()
    exact.passes = backbone.passes
    layers, last = blocks(exact), head(exact)
    parts = [m for b in layers for m in (b.norm1, b.proj, b.norm2, b.fc2)]
    with recorded([*parts, last]) as seen:
        collected, gradients = attention_gradients(
            exact, images.to(where).double(), targets.to(where)
        )
    with torch.no_grad():
        features, logits = seen[last]
        chosen = F.one_hot(targets.to(where), logits.shape[1]).to(logits.dtype)
        relevance = torch.zeros_like(seen[layers[-1].fc2][1])
        relevance[:, 0] = through_linear(features, last.weight, chosen)
        tokens, of_attention = [relevance], []
        for block, attention in zip(reversed(layers), reversed(collected), strict=True):
            relevance, share = _through_block(block, seen, attention, relevance)
            tokens.append(relevance)
            of_attention.append(share)
    return Relevances(tokens[::-1], of_attention[::-1], gradients)


def _through_block(
    block: Block, seen: Seen, attention: Tensor, relevance: Tensor
) -> tuple[Tensor, Tensor]:
    """Relevance of the block's input (B, N, D) and of its attention, from that of its output."""
    before, normed_before = seen[block.norm1]
    mixed, attended = seen[block.proj]
    between, normed_between = seen[block.norm2]
    hidden, answer = seen[block.fc2]
    skipped, share = through_sum(between, answer, relevance)
    share = through_linear(hidden, block.fc2.weight, share)
    relevance = skipped + through_linear(normed_between, block.fc1.weight, share)
    skipped, share = through_sum(before, attended, relevance)
    share = block.split(through_linear(mixed, block.proj.weight, share))
    queries, keys, values = block.qkv(normed_before)
    of_attention, of_values = through_product(attention, values, share)
    of_queries, of_keys = through_product(queries, keys.mT, of_attention)
    parts = [part.transpose(1, 2).flatten(2) for part in (of_queries, of_keys.mT, of_values)]
    share = through_linear(normed_before, block.qkv_weight, torch.cat(parts, dim=2))
    return skipped + share, of_attention


def through_linear(inputs: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of inputs (..., D) of a linear layer (K, D), from that of its outputs (..., K)."""
    pairs = [
        (inputs.clamp(min=0), weight.clamp(min=0)),
        (inputs.clamp(max=0), weight.clamp(max=0)),
    ]
    share = _divided(relevance, sum((x @ w.mT for x, w in pairs), torch.zeros_like(relevance)))
    return sum((x * (share @ w) for x, w in pairs), torch.zeros_like(inputs))


def through_product(left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of both factors of left @ right, from that of the product."""
    share = _divided(relevance, left @ right)
    return left * (share @ right.mT) / 2, right * (left.mT @ share) / 2


def through_sum(left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of both terms (B, N, D) of left + right, from that of the sum."""
    share = _divided(relevance, left + right)
    parts = left * share, right * share
    sums = [part.sum(dim=(1, 2), keepdim=True) for part in parts]
    factor = _divided(relevance.sum(dim=(1, 2), keepdim=True), sums[0].abs() + sums[1].abs())
    return parts[0] * sums[0].sign() * factor, parts[1] * sums[1].sign() * factor


def _divided(relevance: Tensor, by: Tensor) -> Tensor:
    return torch.where(by == 0, 0.0, relevance / (by + by.sign() * EPSILON))
