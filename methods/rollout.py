"""Attention rollout: what reaches the CLS token through the attention of all blocks."""

import torch
from torch import Tensor

from methods._transformer import AttentionExplainer, attentions, rolled_out, token_maps


class Rollout(AttentionExplainer):
    """Attention rollout: the mean over heads, half of it identity, multiplied over the blocks.

    It reads no logit: the map is the same for every class.

    Args:
        backbone: a vision transformer.

    Raises:
        ValueError: the backbone has no such blocks, see methods._transformer.blocks.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Rollout(wrap("vit_tiny_patch16_224", weights="none"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 14, 14])
    """

    label = "Attention rollout"
    paper = "Abnar & Zuidema 2020, ACL, arXiv 2005.00928"
    cost = "1 forward"

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps on the grid of the patches, whatever the targets."""
        with torch.no_grad(), attentions(self.backbone) as collected:
            self.backbone(images)
        return token_maps(self.backbone, rolled_out(collected))
