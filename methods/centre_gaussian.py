"""A Gaussian at the centre of the image: photographers put the object there."""

import torch
from torch import Tensor

from methods._base import Backbone, Explainer, normalise


class CentreGaussian(Explainer):
    """An isotropic Gaussian at the image's centre, the same for every image.

    Args:
        backbone: the classifier; it is not asked.
        sigma: standard deviation, as a share of each side of the image.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = CentreGaussian(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "Centre Gaussian"
    paper = "baseline"
    cost = "none"
    kind = "baseline"

    def __init__(self, backbone: Backbone, *, sigma: float = 0.25) -> None:
        super().__init__(backbone)
        if sigma <= 0:
            raise ValueError(f"sigma is {sigma}: expected a positive share of the image's side")
        self._sigma = sigma

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        profiles = []
        for side in images.shape[-2:]:
            offsets = (torch.arange(side, device=images.device) + 0.5) / side - 0.5
            profiles.append(torch.exp(-0.5 * (offsets / self._sigma) ** 2))
        gaussian = normalise(torch.outer(*profiles)[None])
        return gaussian.expand(len(images), -1, -1).clone()
