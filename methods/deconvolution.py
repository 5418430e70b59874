"""Deconvolution."""

from collections.abc import Callable

from torch import Tensor

from methods._rectifiers import Positive, RectifiedGradient


class Deconvolution(RectifiedGradient):
    """Deconvolution: the gradient of the logit, at each ReLU rectified itself instead of masked.

    At a ReLU or ReLU6 the gradient g of its output becomes g 1[g > 0], whatever its input was.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Deconvolution(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Deconvolution"
    paper = "Zeiler & Fergus 2014, ECCV, arXiv 1311.2901"

    @staticmethod
    def rectify(relu: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See RectifiedGradient."""
        found: Tensor = Positive.apply(inputs, relu(inputs.detach()))
        return found
