"""LIME over superpixels, by captum."""

import math
from typing import Any

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import Lime as CaptumLime
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

KERNEL_WIDTH = 0.25
"""Of the exponential kernel on the cosine distance, as in the authors' package."""


class Lime(Explainer):
    """Coefficients of superpixels in a local ridge regression of the class's probability.

    Kernel, distance and regression (ridge, alpha 1) are those of the authors' package.

    Args:
        backbone: the classifier.
        samples: random choices of superpixels, each one image.
        segments: about so many superpixels (SLIC).
        seed: of the choices, together with the image.
        scores: what is explained: `probabilities`, as its authors do, or `logits`.
        fill: the colour of a superpixel that is left out: `segment` for its own mean, as in the
            authors' package, or one of methods._fill.Fill.
        batch_size: images through the network at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Lime(wrap("efficientnet_lite0"), samples=20)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "LIME"
    paper = "Ribeiro et al. 2016, KDD, arXiv 1602.04938"
    cost = "samples forward"
    kind = "perturbation"

    def __init__(
        self,
        backbone: Backbone,
        *,
        samples: int = 500,
        segments: int = 49,
        seed: int = 0,
        scores: Scores = "probabilities",
        fill: SegmentFill = "segment",
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
        ridge = SkLearnRidge(alpha=1.0)
        asked = scored(backbone, scores)
        self._attribute = CaptumLime(asked, ridge, similarity_func=similarity).attribute

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


def similarity(_original: Tensor, _perturbed: Tensor, chosen: Tensor, **_: Any) -> float:
    """Weight of a choice (1, segments) of 0 and 1: by its cosine distance to all ones."""
    distance = 1 - math.sqrt(float(chosen.float().mean()))
    return math.exp(-(distance**2) / (2 * KERNEL_WIDTH**2))
