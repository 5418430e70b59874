"""Grad-CAM."""

from torch import Tensor

from methods._cam import WeightedCAM


class GradCAM(WeightedCAM):
    """Grad-CAM at the backbone's CAM layer: weights are the mean gradients (equations 1 and 2)."""

    label = "Grad-CAM"
    paper = "Selvaraju et al. 2017, ICCV, arXiv 1610.02391"

    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See WeightedCAM."""
        return gradients.mean(dim=(2, 3))
