"""RefineCAM: the CAMs of several layers, multiplied."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._base import Backbone, Explainer, normalise, target_logits
from methods.gradcampp import GradCAMPlusPlus


class RefineCAM(Explainer):
    """RefineCAM: the product over layers of their Grad-CAM++ maps, each in [0, 1].

    Where the deep layer says yes, the early ones say where exactly. Maps are resized to the image
    before they are multiplied.

    Args:
        backbone: the classifier.
        layers: the modules whose maps are multiplied; the backbone's taps if None.

    Raises:
        ValueError: no layer, or one that explainers cannot read.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = RefineCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "RefineCAM"
    paper = "arXiv 2605.14641"
    cost = "1 forward, 1 backward"
    kind = "CAM"

    def __init__(self, backbone: Backbone, *, layers: Sequence[str] | None = None) -> None:
        super().__init__(backbone)
        self._layers = list(backbone.taps if layers is None else layers)
        if not self._layers:
            raise ValueError("layers is []: expected one or more")
        self._of_layer = [GradCAMPlusPlus(backbone, layer=layer) for layer in self._layers]

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        pixels = images.detach().clone().requires_grad_()
        with torch.enable_grad(), self.backbone.tap(self._layers) as outputs:
            score = target_logits(self.backbone(pixels), targets).sum()
            features = [outputs[layer] for layer in self._layers]
            gradients = torch.autograd.grad(score, features)
        product = torch.ones_like(images[:, 0])
        for cam, own, gradient in zip(self._of_layer, features, gradients, strict=True):
            grids = self.backbone.grid(own.detach()), self.backbone.grid(gradient)
            evidence = cam.combine(*grids).relu().float()[:, None]
            resized = F.interpolate(evidence, size=images.shape[2:], mode="bilinear")[:, 0]
            product *= normalise(resized)
        return normalise(product)
