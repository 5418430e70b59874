"""Input x Gradient, by captum."""

from captum.attr import InputXGradient as CaptumInputXGradient
from torch import Tensor

from methods._base import Backbone, Explainer
from methods._captum import pixel_maps


class InputXGradient(Explainer):
    """Pixels in [0, 1] times the gradient of the logit.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = InputXGradient(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Input x Gradient"
    paper = "Shrikumar et al. 2017, ICML, arXiv 1704.02685"
    cost = "1 forward, 1 backward"
    kind = "gradient"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._attribute = CaptumInputXGradient(backbone).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        return pixel_maps(self._attribute(images.detach().clone().requires_grad_(), target=targets))
