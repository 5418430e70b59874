"""Opti-CAM: the weights of the channels are found by optimisation, image by image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._base import Backbone, Explainer, normalise
from methods._fill import Fill, colour_of


class OptiCAM(Explainer):
    """Opti-CAM: sum_c softmax(u)_c A_c^+, with the u for which the masked image's logit is largest.

    A^+ are the features of the CAM layer without what is negative, as in the authors' code; the
    paper leaves it in on transformers. The map, resized to the image and min-max normalised, is the
    mask. Adam starts at equal weights. Images are optimised one by one; the authors' code stops a
    batch early if its summed loss stands still, which would make maps depend on the images beside
    them and is left out.

    Args:
        backbone: the classifier.
        layer: the module whose channels are weighted; the backbone's CAM layer if None.
        steps: of Adam; 50 in the authors' demonstration, 100 at most in the paper.
        rate: of Adam.
        fill: the colour under the mask; its authors multiply raw pixels, which is black.

    Raises:
        ValueError: no steps, or a rate that is not positive.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = OptiCAM(wrap("efficientnet_lite0"), steps=2)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Opti-CAM"
    paper = "Zhang et al. 2024, CVIU, arXiv 2301.07002"
    cost = "steps + 1 forward, steps backward"
    kind = "CAM"

    def __init__(
        self,
        backbone: Backbone,
        *,
        layer: str | None = None,
        steps: int = 50,
        rate: float = 0.1,
        fill: Fill = "black",
    ) -> None:
        super().__init__(backbone)
        if steps < 1 or not rate > 0:
            raise ValueError(f"steps is {steps}, rate {rate}: expected 1 or more, and more than 0")
        self._layer = layer or backbone.cam_layer
        backbone.use(self._layer)
        self._steps, self._rate = steps, rate
        self._colour = colour_of(backbone, fill)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        maps = []
        for image, target in zip(images.detach().split(1), targets, strict=True):
            with torch.no_grad(), self.backbone.tap([self._layer]) as outputs:
                self.backbone(image)  # alone: Adam makes much of a rounding in the features
            features = self.backbone.grid(outputs[self._layer])[0].relu().float()
            maps.append(self._optimised(image[0], features, int(target)))
        return normalise(torch.stack(maps))

    def _optimised(self, image: Tensor, features: Tensor, target: int) -> Tensor:
        """The weighted sum (h, w) of the features (C, h, w) of one image (3, H, W)."""
        weights = torch.zeros(len(features), device=features.device, requires_grad=True)
        optimiser = torch.optim.Adam([weights], lr=self._rate)
        with torch.enable_grad():
            for _ in range(self._steps):
                mask = masked_by(weights, features, image.shape[1:])
                logits = self.backbone(torch.lerp(self._colour[0], image, mask)[None])
                optimiser.zero_grad()
                (-logits[0, target]).backward(inputs=[weights])
                optimiser.step()
        return mixed(weights.detach(), features)


def masked_by(weights: Tensor, features: Tensor, size: torch.Size) -> Tensor:
    """The mask (H, W) in [0, 1] that weights (C,) make of features (C, h, w)."""
    resized = F.interpolate(mixed(weights, features)[None, None], size=size, mode="bilinear")
    return normalise(resized[:, 0])[0]


def mixed(weights: Tensor, features: Tensor) -> Tensor:
    """The sum (h, w) of features (C, h, w), by the softmax of weights (C,)."""
    return (weights.softmax(dim=0)[:, None, None] * features).sum(dim=0)
