"""Raw attention: where the CLS token looks in the last block."""

import torch
from torch import Tensor

from methods._transformer import AttentionExplainer, attentions, token_maps


class RawAttention(AttentionExplainer):
    """Raw attention: the row of the CLS token in the last block's attention, mean over heads.

    It reads no logit: the map is the same for every class.

    Args:
        backbone: a vision transformer.

    Raises:
        ValueError: the backbone has no such blocks, see methods._transformer.blocks.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = RawAttention(wrap("vit_tiny_patch16_224", weights="none"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 14, 14])
    """

    label = "Raw attention"
    paper = "Chefer et al. 2021, CVPR, arXiv 2012.09838 (there a baseline)"
    cost = "1 forward"

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps on the grid of the patches, whatever the targets."""
        with torch.no_grad(), attentions(self.backbone) as collected:
            self.backbone(images)
        return token_maps(self.backbone, collected[-1].mean(dim=1)[:, 0])
