"""Layer-CAM."""

from torch import Tensor

from methods._cam import GradientCAM


class LayerCAM(GradientCAM):
    """Layer-CAM at the backbone's CAM layer: every activation times its own positive gradient."""

    label = "Layer-CAM"
    paper = "Jiang et al. 2021, IEEE TIP, doi 10.1109/TIP.2021.3089943"

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See GradientCAM."""
        return (gradients.relu() * features).sum(dim=1)
