"""AttnLRP: relevance through the attention itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from methods._base import Backbone, normalise, target_logits
from methods._transformer import AttentionExplainer, Block, blocks, computing, recorded


class AttnLRP(AttentionExplainer):
    """AttnLRP: layer-wise relevance of the pixels, summed over each patch.

    Relevance is computed as input times a gradient that is changed so that it follows the paper's
    rules, with the logit of the explained class at the end:

    - A product of two matrices (queries and keys, attention and values) gives either half.
    - Softmax has its own gradient: R_i = x_i (R'_i - s_i sum_j R'_j), s its outputs, R' theirs.
    - LayerNorm's deviation and the slope of GELU, output by input, are constants: both pass
      relevance on unchanged.
    - An addition gives its terms their proportions, a linear layer its products of input and weight
      (epsilon rule); what a bias or a position contributes stays with it.

    Args:
        backbone: a vision transformer.
        gamma: how much more the MLPs' weights count that agree in sign with their outputs, the
            gamma rule; 0 is the epsilon rule. Its authors look for the best value of each network
            on a grid from 0 to 1, and for one of the patch embedding, which here follows the
            epsilon rule, like the head.

    Raises:
        ValueError: the backbone has no such blocks, see methods._transformer.blocks, or a stem
            that is more than a convolution; or gamma is negative.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = AttnLRP(wrap("vit_tiny_patch16_224", weights="none"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 14, 14])
    """

    label = "AttnLRP"
    paper = "Achtibat et al. 2024, ICML, arXiv 2402.05602"
    cost = "1 forward, 1 backward"

    def __init__(self, backbone: Backbone, *, gamma: float = 0.0) -> None:
        super().__init__(backbone)
        if not gamma >= 0:
            raise ValueError(f"gamma is {gamma}: expected 0 or more")
        self._gamma = gamma
        refuse_stem(backbone)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps on the grid of the patches; what is negative is cut off."""
        with recorded([blocks(self.backbone)[0].norm1]) as seen:
            relevance = self.attribute(images, targets).sum(dim=1, keepdim=True)
        ((tokens, _),) = seen.values()
        height, width = self.backbone.grid(tokens).shape[2:]
        return normalise(F.adaptive_avg_pool2d(relevance, (height, width))[:, 0].relu().float())

    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance (B, 3, H, W) of the values of images for their targets' logits."""
        pixels = images.detach().clone().requires_grad_()
        with torch.enable_grad(), computing(rules(self.backbone, self._gamma)):
            score = target_logits(self.backbone(pixels), targets).sum()
            (gradients,) = torch.autograd.grad(score, pixels)
        return gradients * (images.detach() - self.backbone.mean)


def refuse_stem(backbone: Backbone) -> None:
    """Refuse a transformer whose patches are more than linear functions of their pixels.

    Raises:
        ValueError: names the backbone, and what makes its patches.
    """
    network: Any = backbone.network
    timm = hasattr(network, "patch_embed")
    stem = network.patch_embed if timm else network.conv_proj
    if type(stem) is not (PatchEmbed if timm else nn.Conv2d):
        raise ValueError(
            f"backbone {backbone.name!r} makes patches by a {type(stem).__name__}: expected one "
            "convolution; put this explainer into the backbone's `skip`"
        )


def rules(backbone: Backbone, gamma: float) -> dict[nn.Module, Callable[..., Any]]:
    """What the modules of a vision transformer compute: the same, with the gradients of AttnLRP."""
    norms = [own for own in backbone.network.modules() if isinstance(own, nn.LayerNorm)]
    found: dict[nn.Module, Callable[..., Any]] = {own: partial(normed, own) for own in norms}
    for block in blocks(backbone):
        found[block.attention] = partial(attended, block)
        found[block.act] = partial(passed_on, block.act.forward)
        if gamma:
            found |= {own: partial(weighted, own, gamma) for own in (block.fc1, block.fc2)}
    return found


def halved(values: Tensor) -> Tensor:
    """The same values, with half of the gradient."""
    return values / 2 + values.detach() / 2


def attended(block: Block, tokens: Tensor, *_same: Tensor, **_options: object) -> Any:
    """Self-attention, whose products give half of the relevance to either factor."""
    queries, keys, values = block.qkv(tokens)
    attention = (halved(queries) * block.scale @ halved(keys).mT).softmax(dim=-1)
    mixed = halved(attention) @ halved(values)
    output = block.proj(mixed.transpose(1, 2).flatten(2))
    return (output, None) if isinstance(block.attention, nn.MultiheadAttention) else output


def normed(norm: nn.LayerNorm, values: Tensor) -> Tensor:
    """LayerNorm, whose deviation is a constant."""
    centred = values - values.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    found = centred * (variance + norm.eps).rsqrt().detach()
    found = found if norm.weight is None else found * norm.weight
    return found if norm.bias is None else found + norm.bias


def passed_on(activation: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """An activation, whose gradient is its output divided by its input."""
    with torch.no_grad():
        found = activation(values.clone())
        slope = torch.where(values == 0, 0.0, found / values)
    return found + slope * (values - values.detach())


def weighted(linear: nn.Linear, gamma: float, inputs: Tensor) -> Tensor:
    """A linear layer, whose gradient times its inputs is the relevance of the gamma rule."""
    found: Tensor = _Gamma.apply(inputs, linear.weight, linear.bias, gamma)
    return found


class _Gamma(torch.autograd.Function):
    """See `weighted`.

    A product of input and weight that has the sign of the output counts 1 + gamma times. The bias
    is counted likewise and keeps its part.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, gamma: float
    ) -> Tensor:
        outputs = F.linear(inputs, weight, bias)
        ctx.save_for_backward(inputs, weight, bias, outputs)
        ctx.gamma = gamma
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        inputs, weight, bias, outputs = ctx.saved_tensors
        more, less = (
            weight + ctx.gamma * part for part in (weight.clamp(min=0), weight.clamp(max=0))
        )
        up, down = inputs.clamp(min=0), inputs.clamp(max=0)
        found = torch.zeros_like(inputs)
        for sign in (1, -1):
            agreeing, other = (more, less) if sign > 0 else (less, more)
            grown = F.linear(up, agreeing - weight) + F.linear(down, other - weight)
            if bias is not None:
                grown = grown + ctx.gamma * (sign * bias).clamp(min=0) * sign
            total = outputs + grown  # both of that sign: nothing cancels
            share = torch.where(outputs * sign > 0, gradients[0] * outputs / total, 0.0)
            found += torch.where(inputs > 0, share @ agreeing, share @ other)
        return found, None, None, None
