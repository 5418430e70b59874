"""LeGrad: how the attention of each block makes the class, summed over the blocks."""

from typing import Literal

import torch
from torch import Tensor

from methods._base import Backbone, refuse_unless_one_of, target_logits
from methods._transformer import (
    AttentionExplainer,
    attentions,
    final_norm,
    head,
    separated,
    token_maps,
)

Pooling = Literal["cls", "mean"]
"""What of a block's output tokens the head reads: the CLS token, or the mean of all tokens."""


class LeGrad(AttentionExplainer):
    """LeGrad: the mean over blocks, heads and queries of (ds_l / dA_l)^+.

    A_l is the attention of block l; its values are not in the map. s_l is the logit that the
    network's final norm and head give for the output of that block, and its gradient stays within
    the block. With `cls` only the query of the CLS token has one. All blocks count, as in the
    paper; the authors' code takes the last two unless told otherwise.

    Args:
        backbone: a vision transformer.
        pooling: what the head reads of a block's output: `cls` is what it was trained to read;
            `mean` is what the authors' code does for CLIP.

    Raises:
        ValueError: the backbone has no such blocks, see methods._transformer.blocks.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = LeGrad(wrap("vit_tiny_patch16_224", weights="none"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 14, 14])
    """

    label = "LeGrad"
    paper = "Bousselham et al. 2025, ICCV, arXiv 2404.03214"
    cost = "1 forward, 1 backward"

    def __init__(self, backbone: Backbone, *, pooling: Pooling = "cls") -> None:
        super().__init__(backbone)
        refuse_unless_one_of("pooling", pooling, Pooling)
        self._pooling = pooling

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps on the grid of the patches."""
        backbone = self.backbone
        with torch.enable_grad(), attentions(backbone) as collected, separated(backbone) as outputs:
            backbone(images.detach())
            logits = torch.stack([self._logits(tokens) for tokens in outputs]).sum(dim=0)
            gradients = torch.autograd.grad(target_logits(logits, targets).sum(), collected)
        backbone.passes.backward += len(images)  # which no logit of the backbone has seen
        relevance = [gradient.clamp(min=0).mean(dim=(1, 2)) for gradient in gradients]
        return token_maps(backbone, torch.stack(relevance).mean(dim=0))

    def _logits(self, tokens: Tensor) -> Tensor:
        """What the network's end makes of a block's output (B, N, D): logits (B, K)."""
        read = tokens[:, 0] if self._pooling == "cls" else tokens.mean(dim=1)
        logits: Tensor = head(self.backbone)(final_norm(self.backbone)(read))
        return logits
