"""HiRes-CAM."""

from torch import Tensor

from methods._cam import GradientCAM


class HiResCAM(GradientCAM):
    """HiRes-CAM at the backbone's CAM layer: every activation times its own gradient.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = HiResCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "HiRes-CAM"
    paper = "Draelos & Carin 2020, arXiv 2011.08891"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See GradientCAM."""
        return (gradients * features).sum(dim=1)
