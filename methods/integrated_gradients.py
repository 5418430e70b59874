"""Integrated Gradients, by captum."""

from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor

from methods._base import Backbone, Explainer
from methods._captum import pixel_maps


class IntegratedGradients(Explainer):
    """Integrated Gradients: a pixel times the mean gradient on the way from a black image to it.

    The mean is a Gauss-Legendre quadrature; a map is the magnitude of the channels' sum.

    Args:
        backbone: the classifier.
        steps: points of the quadrature.
        batch_size: images through the network at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = IntegratedGradients(wrap("efficientnet_lite0"), steps=4)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Integrated Gradients"
    paper = "Sundararajan et al. 2017, ICML, arXiv 1703.01365"
    cost = "steps forward and backward"
    kind = "gradient"

    def __init__(self, backbone: Backbone, *, steps: int = 50, batch_size: int = 32) -> None:
        super().__init__(backbone)
        self._steps = steps
        self._batch_size = batch_size
        self._attribute = CaptumIntegratedGradients(backbone).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        attributions = self._attribute(
            images.detach(),
            baselines=0.0,
            target=targets,
            n_steps=self._steps,
            internal_batch_size=max(self._batch_size, len(images)),
        )
        return pixel_maps(attributions)
