"""Grad-CAM."""

from torch import Tensor

from methods._cam import WeightedCAM


class GradCAM(WeightedCAM):
    """Grad-CAM: relu(sum_c w_c A_c), A_c the CAM layer's features, w_c the mean of their gradient.

    Equations 1 and 2 of the paper.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = GradCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Grad-CAM"
    paper = "Selvaraju et al. 2017, ICCV, arXiv 1610.02391"

    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See WeightedCAM."""
        return gradients.mean(dim=(2, 3))
