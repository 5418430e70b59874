"""Guided backpropagation."""

from collections.abc import Callable

from torch import Tensor

from methods._rectifiers import Positive, RectifiedGradient


class GuidedBackprop(RectifiedGradient):
    """Guided backpropagation: the gradient of the logit, at each ReLU only what is positive.

    At a ReLU the gradient g of its output becomes g 1[g > 0] 1[x > 0], x its input; at a ReLU6 also
    1[x < 6].

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = GuidedBackprop(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Guided backprop"
    paper = "Springenberg et al. 2015, ICLR workshop, arXiv 1412.6806"

    @staticmethod
    def rectify(relu: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See RectifiedGradient."""
        values = relu(inputs)
        found: Tensor = Positive.apply(values, values.detach())
        return found
