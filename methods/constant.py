"""A constant map: no explanation. What it scores is due to the metric alone."""

import torch
from torch import Tensor

from methods._base import Explainer


class Constant(Explainer):
    """Zeros. Metrics that rank pixels break the ties at random, by a seed of the image.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Constant(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Constant"
    paper = "baseline"
    cost = "none"
    kind = "baseline"

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps (B, 7, 7)."""
        return torch.zeros(len(images), 7, 7, device=images.device)
