"""SmoothGrad, by captum."""

import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor

from methods._base import Backbone, Explainer, image_seeds, normalise, seeded


class SmoothGrad(Explainer):
    """The mean gradient under noise; of it, the largest magnitude among the channels.

    All samples of one image pass the network together, so that the noise is the image's own.

    Args:
        backbone: the classifier.
        samples: noisy copies of an image.
        sigma: standard deviation of the noise, in pixels of [0, 1].
        seed: of the noise, together with the image.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = SmoothGrad(wrap("efficientnet_lite0"), samples=2)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "SmoothGrad"
    paper = "Smilkov et al. 2017, arXiv 1706.03825"
    cost = "samples forward and backward"
    kind = "gradient"

    def __init__(
        self, backbone: Backbone, *, samples: int = 50, sigma: float = 0.15, seed: int = 0
    ) -> None:
        super().__init__(backbone)
        if samples < 1 or sigma < 0:
            raise ValueError(
                f"samples is {samples}, sigma {sigma}: expected at least 1, and at least 0"
            )
        self._samples = samples
        self._sigma = sigma
        self._seed = seed
        self._attribute = NoiseTunnel(Saliency(backbone)).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        means = []
        for image, target, seed in zip(images, targets, image_seeds(images), strict=True):
            with seeded(seed ^ self._seed):
                means.append(
                    self._attribute(
                        image.detach().clone()[None].requires_grad_(),
                        nt_type="smoothgrad",
                        nt_samples=self._samples,
                        stdevs=self._sigma,
                        target=int(target),
                        abs=False,
                    )
                )
        return normalise(torch.cat(means).detach().abs().amax(dim=1).float())
