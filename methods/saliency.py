"""Saliency, by captum."""

from captum.attr import Saliency as CaptumSaliency
from torch import Tensor

from methods._base import Backbone, Explainer, normalise


class Saliency(Explainer):
    """The largest magnitude among the channels of the gradient of the logit.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Saliency(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Saliency"
    paper = "Simonyan et al. 2014, ICLR workshop, arXiv 1312.6034"
    cost = "1 forward, 1 backward"
    kind = "gradient"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._attribute = CaptumSaliency(backbone).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        gradients = self._attribute(images.detach().clone().requires_grad_(), target=targets)
        return normalise(gradients.amax(dim=1).float())
