"""Occlusion, by captum."""

import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor

from methods._base import Backbone, Explainer
from methods._captum import region_maps
from methods._fill import Fill, colour_of


class Occlusion(Explainer):
    """The drop of the logit under a grey square, a mean over the squares of a pixel.

    Args:
        backbone: the classifier.
        window: side of the square, in pixels; a seventh of the image if None.
        stride: from one square to the next, in pixels; half the window if None.
        fill: the colour of the square; the authors' grey is the mean.
        batch_size: occluded images through the network at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Occlusion(wrap("efficientnet_lite0"), window=112, stride=56)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Occlusion"
    paper = "Zeiler & Fergus 2014, ECCV, arXiv 1311.2901"
    cost = "squares + 1 forward"
    kind = "perturbation"

    def __init__(
        self,
        backbone: Backbone,
        *,
        window: int | None = None,
        stride: int | None = None,
        fill: Fill = "mean",
        batch_size: int = 32,
    ) -> None:
        super().__init__(backbone)
        self._window = backbone.size // 7 if window is None else window
        self._stride = self._window // 2 if stride is None else stride
        if not 1 <= self._stride <= self._window <= backbone.size or batch_size < 1:
            raise ValueError(
                f"window is {self._window}, stride {self._stride}, batch_size {batch_size}: "
                f"expected 1 <= stride <= window <= {backbone.size}, and at least 1"
            )
        self._colour = colour_of(backbone, fill)
        self._batch_size = batch_size
        self._attribute = CaptumOcclusion(backbone).attribute

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        with torch.no_grad():
            drops = [
                self._attribute(
                    image,
                    sliding_window_shapes=(3, self._window, self._window),
                    strides=(3, self._stride, self._stride),
                    baselines=self._colour.expand_as(image),
                    target=int(target),
                    perturbations_per_eval=self._batch_size,
                )
                for image, target in zip(images.detach().split(1), targets, strict=True)
            ]
        return region_maps(torch.cat(drops))
