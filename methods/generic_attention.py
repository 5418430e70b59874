"""Generic attention explainability: attention times its gradient, through all blocks."""

from torch import Tensor

from methods._transformer import (
    AttentionExplainer,
    attention_gradients,
    token_maps,
    weighted_rollout,
)


class GenericAttention(AttentionExplainer):
    """Generic attention explainability, for self-attention: R <- R + mean_h((dy/dA * A)^+) R.

    y is the logit of the explained class, R the identity before the first block.

    Args:
        backbone: a vision transformer.

    Raises:
        ValueError: the backbone has no such blocks, see methods._transformer.blocks.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = GenericAttention(wrap("vit_tiny_patch16_224", weights="none"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 14, 14])
    """

    label = "Generic attention"
    paper = "Chefer et al. 2021, ICCV, arXiv 2103.15679"
    cost = "1 forward, 1 backward"

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps on the grid of the patches."""
        collected, gradients = attention_gradients(self.backbone, images, targets)
        return token_maps(self.backbone, weighted_rollout(collected, gradients))
