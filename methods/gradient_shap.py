"""GradientSHAP, by captum."""

import torch
from captum.attr import GradientShap as CaptumGradientShap
from torch import Tensor

from methods._base import Backbone, Explainer, image_seeds, seeded
from methods._captum import pixel_maps


class GradientShap(Explainer):
    """Expected gradients between the image and a blank, black or of the mean colour at random.

    All samples of one image pass the network together, so that the draws are the image's own.

    Args:
        backbone: the classifier.
        samples: random points between the image and a blank.
        seed: of the draws, together with the image.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = GradientShap(wrap("efficientnet_lite0"), samples=2)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "GradientSHAP"
    paper = "Lundberg & Lee 2017, NeurIPS, arXiv 1705.07874"
    cost = "samples forward and backward"
    kind = "gradient"

    def __init__(self, backbone: Backbone, *, samples: int = 50, seed: int = 0) -> None:
        super().__init__(backbone)
        if samples < 1:
            raise ValueError(f"samples is {samples}: expected at least 1")
        self._samples = samples
        self._seed = seed
        self._attribute = CaptumGradientShap(backbone).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        attributions = []
        for image, target, seed in zip(images, targets, image_seeds(images), strict=True):
            inputs = image.detach().clone()[None].requires_grad_()
            mean = self.backbone.mean.expand_as(inputs)
            blanks = torch.cat([torch.zeros_like(inputs), mean]).detach()
            with seeded(seed ^ self._seed):
                attributions.append(
                    self._attribute(inputs, blanks, n_samples=self._samples, target=int(target))
                )
        return pixel_maps(torch.cat(attributions))
