"""Grad-CAM++."""

import torch
from torch import Tensor

from methods._cam import WeightedCAM


class GradCAMPlusPlus(WeightedCAM):
    """Grad-CAM++ at the backbone's CAM layer.

    Positive gradients are averaged with the weights of equation 19, where higher derivatives are
    powers of the gradient, as for an exponential score.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = GradCAMPlusPlus(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Grad-CAM++"
    paper = "Chattopadhay et al. 2018, WACV, arXiv 1710.11063"

    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See WeightedCAM."""
        square = gradients.square()
        total = features.sum(dim=(2, 3), keepdim=True)
        shares = square / (2 * square + total * square * gradients + 1e-6)
        shares = torch.where(gradients != 0, shares, 0.0)
        return (gradients.relu() * shares).sum(dim=(2, 3))
