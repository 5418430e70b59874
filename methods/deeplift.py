"""DeepLIFT."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._base import Backbone, Explainer, normalise, refuse_unless_one_of, target_logits
from methods._fill import Fill, colour_of
from methods._rectifiers import Replaced, Sign, refuse_unless_defined, unsigned


class DeepLIFT(Explainer):
    """DeepLIFT, rescale rule: (pixel - reference) times the product of slopes between the two.

    The slope of a ReLU is the difference of its outputs over that of its inputs, for the image and
    for a plain image; where the inputs are the same, its derivative. Max pooling hands the
    difference of its outputs to the places of both maxima. The attributions of an image, summed,
    are the difference of its logit from that of the plain image.

    Args:
        backbone: a CNN whose only activations are ReLU and ReLU6.
        baseline: the colour of the plain image.
        sign: of the channels' sum the `magnitude`, or the `positive` part.

    Raises:
        ValueError: the backbone has another activation, another max pooling than in 2-D, or
            another normalisation than batch norm.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = DeepLIFT(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "DeepLIFT"
    paper = "Shrikumar et al. 2017, ICML, arXiv 1704.02685"
    cost = "2 forward, 2 backward"
    kind = "gradient"
    families = frozenset({"cnn"})

    def __init__(
        self, backbone: Backbone, *, baseline: Fill = "black", sign: Sign = "magnitude"
    ) -> None:
        super().__init__(backbone)
        refuse_unless_one_of("sign", sign, Sign)
        self._sign = sign
        self._colour = colour_of(backbone, baseline)
        refuse_unless_defined(backbone, lambda relu, inputs: relu(inputs), F.max_pool2d)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        summed = self.attribute(images, targets).sum(dim=1)
        return normalise(unsigned(summed, self._sign).float())

    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Contributions (B, 3, H, W) of the values of images to their targets' logits."""
        plain = self._colour.expand_as(images)
        pixels = images.detach().clone().requires_grad_()
        with torch.enable_grad(), Replaced(self.backbone, rescale, pool):
            logits = self.backbone(torch.cat([pixels, plain]))[: len(images)]
        (slopes,) = torch.autograd.grad(target_logits(logits, targets).sum(), pixels)
        return slopes * (images - plain)


def rescale(relu: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """See methods._rectifiers.Rule: the rescale rule; half of the inputs are of plain images."""
    found: Tensor = _Rescaled.apply(inputs, relu(inputs.detach()))
    return found


def pool(inputs: Tensor, *arguments: Any, return_indices: bool = False, **options: Any) -> Tensor:
    """See methods._rectifiers.Pooling: half of the inputs are of plain images."""
    values, places = F.max_pool2d(inputs.detach(), *arguments, return_indices=True, **options)
    found: Tensor = _Pooled.apply(inputs, values, places)
    return found


class _Rescaled(torch.autograd.Function):
    """The values of a ReLU, whose gradient is the slope between image and plain image."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, values: Tensor) -> Tensor:
        run, rise = (own - plain for own, plain in (t.chunk(2) for t in (inputs, values)))
        own = inputs.chunk(2)[0]
        derivative = ((own > 0) & (own == values.chunk(2)[0])).to(run.dtype)
        ctx.save_for_backward(torch.where(run == 0, derivative, rise / run))
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        own = gradients[0].chunk(2)[0] * slope
        return torch.cat([own, torch.zeros_like(own)]), None


class _Pooled(torch.autograd.Function):
    """The values of a max pooling, whose gradient is that of DeepLIFT."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, values: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, values, places)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        inputs, values, places = ctx.saved_tensors
        gradient = gradients[0].chunk(2)[0]
        own, plain = values.chunk(2)
        at_own, at_plain = (place.flatten(2) for place in places.chunk(2))
        own_inputs, plain_inputs = (part.flatten(2) for part in inputs.chunk(2))
        tied = plain_inputs.gather(2, at_own) == plain.flatten(2)
        at_plain = torch.where(tied, at_own, at_plain)  # of equal places of a plain image
        most = torch.maximum(own, plain)
        given = torch.zeros_like(own_inputs)
        for part, place in ((most - plain, at_own), (own - most, at_plain)):
            given.scatter_add_(2, place, (gradient * part).flatten(2))
        run = own_inputs - plain_inputs
        slope = torch.where(run == 0, 0.0, given / run).view_as(inputs.chunk(2)[0])
        return torch.cat([slope, torch.zeros_like(slope)]), None, None
