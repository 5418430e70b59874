"""XGrad-CAM."""

from torch import Tensor

from methods._cam import WeightedCAM


class XGradCAM(WeightedCAM):
    """XGrad-CAM at the backbone's CAM layer: gradients averaged by the share of the activation.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = XGradCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "XGrad-CAM"
    paper = "Fu et al. 2020, BMVC, arXiv 2008.02312"

    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See WeightedCAM."""
        total = features.sum(dim=(2, 3), keepdim=True)
        return (gradients * features / (total + 1e-7)).sum(dim=(2, 3))
