"""Eigen-CAM."""

import torch
from torch import Tensor

from methods._base import Backbone, Explainer, normalise


class EigenCAM(Explainer):
    """Eigen-CAM: the CAM layer's features along their first principal axis, whatever the class.

    Features are centred, as in pytorch-grad-cam. The sign of an axis is arbitrary; it is the one
    that makes the largest magnitude positive (Seg-Eigen-CAM, Chung & Ying 2025, equation 13).

    Args:
        backbone: the classifier.
        layer: the module whose output is projected; the backbone's CAM layer if None.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = EigenCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Eigen-CAM"
    paper = "Muhammad & Yeasin 2020, IJCNN, arXiv 2008.00299"
    cost = "1 forward"
    kind = "CAM"

    def __init__(self, backbone: Backbone, *, layer: str | None = None) -> None:
        super().__init__(backbone)
        self._layer = layer or backbone.cam_layer
        backbone.use(self._layer)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        with torch.no_grad(), self.backbone.tap([self._layer]) as outputs:
            self.backbone(images)
        features = self.backbone.grid(outputs[self._layer]).float()
        finite = features.isfinite().flatten(1).all(dim=1)[:, None, None]
        features = torch.where(finite[..., None], features, 0.0)  # which has axes
        pixels = features.flatten(2).transpose(1, 2)
        centred = pixels - pixels.mean(dim=1, keepdim=True)
        axes = torch.linalg.svd(centred, full_matrices=False).Vh[:, :1]
        projection = (centred * axes).sum(dim=2).unflatten(1, features.shape[2:])
        flipped = projection.amax(dim=(1, 2)) < -projection.amin(dim=(1, 2))
        signed = torch.where(flipped[:, None, None], -projection, projection)
        return normalise(signed.relu()).where(finite, torch.nan)
