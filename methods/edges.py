"""The magnitude of the image's edges, which knows nothing of the network."""

import numpy as np
import torch
from scipy.ndimage import gaussian_gradient_magnitude
from torch import Tensor

from methods._base import Backbone, Explainer, normalise

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue: ITU-R BT.601."""


class Edges(Explainer):
    """Gaussian gradient magnitude of the luminance (an edge detector, Adebayo et al. 2018).

    Args:
        backbone: the classifier; it is not asked.
        sigma: of the Gaussian derivative, in pixels.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = Edges(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Edges"
    paper = "baseline, as in Adebayo et al. 2018, NeurIPS, arXiv 1810.03292"
    cost = "none"
    kind = "baseline"

    def __init__(self, backbone: Backbone, *, sigma: float = 2.0) -> None:
        super().__init__(backbone)
        self._sigma = sigma

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        grey = np.tensordot(images.cpu().numpy(), np.asarray(LUMINANCE, np.float32), axes=(1, 0))
        edges = np.stack([gaussian_gradient_magnitude(image, self._sigma) for image in grey])
        return normalise(torch.from_numpy(edges).float().to(images.device))
