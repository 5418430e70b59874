"""Layer-CAM."""

from torch import Tensor

from methods._cam import GradientCAM


class LayerCAM(GradientCAM):
    """Layer-CAM at the backbone's CAM layer: every activation times its own positive gradient.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = LayerCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Layer-CAM"
    paper = "Jiang et al. 2021, IEEE TIP, doi 10.1109/TIP.2021.3089943"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See GradientCAM."""
        return (gradients.relu() * features).sum(dim=1)
