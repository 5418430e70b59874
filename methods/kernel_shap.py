"""KernelSHAP over superpixels, by captum."""

import torch
from captum.attr import KernelShap as CaptumKernelShap
from torch import Tensor

from methods._base import (
    Backbone,
    Explainer,
    Scores,
    image_seeds,
    refuse_unless_one_of,
    scored,
    seeded,
)
from methods._captum import region_maps, superpixels
from methods._fill import SegmentFill, without_superpixels


class KernelShap(Explainer):
    """Shapley values of superpixels, estimated by a weighted linear regression.

    Args:
        backbone: the classifier.
        samples: coalitions of superpixels, each one image.
        segments: about so many superpixels (SLIC).
        seed: of the coalitions, together with the image.
        fill: the colour of a superpixel that is left out: white in the authors' notebook on
            ImageNet; one of methods._fill.Fill, or `segment` for its own mean.
        scores: what is explained: `probabilities`, as in that notebook, or `logits`.
        batch_size: images through the network at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = KernelShap(wrap("efficientnet_lite0"), samples=20)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "KernelSHAP"
    paper = "Lundberg & Lee 2017, NeurIPS, arXiv 1705.07874"
    cost = "samples forward"
    kind = "perturbation"

    def __init__(
        self,
        backbone: Backbone,
        *,
        samples: int = 500,
        segments: int = 49,
        seed: int = 0,
        fill: SegmentFill = "white",
        scores: Scores = "probabilities",
        batch_size: int = 32,
    ) -> None:
        super().__init__(backbone)
        if min(samples, segments - 1, batch_size) < 1:
            raise ValueError(
                f"samples is {samples}, segments {segments}, batch_size {batch_size}: expected at "
                "least 1, 2 and 1"
            )
        self._samples = samples
        self._segments = segments
        refuse_unless_one_of("fill", fill, SegmentFill)
        self._fill = fill
        self._seed = seed
        self._batch_size = batch_size
        self._attribute = CaptumKernelShap(scored(backbone, scores)).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        values = []
        for image, target, seed in zip(images, targets, image_seeds(images), strict=True):
            labels = superpixels(image, self._segments)
            with torch.no_grad(), seeded(seed ^ self._seed):
                values.append(
                    self._attribute(
                        image.detach()[None],
                        baselines=without_superpixels(self.backbone, image, labels, self._fill),
                        target=int(target),
                        feature_mask=labels[None, None],
                        n_samples=self._samples,
                        perturbations_per_eval=self._batch_size,
                    )
                )
        return region_maps(torch.cat(values))
