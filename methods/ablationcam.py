"""Ablation-CAM."""

import torch
from torch import Tensor

from methods._base import Backbone, Explainer, normalise


class AblationCAM(Explainer):
    """Ablation-CAM: a channel's weight is the relative drop of the logit without it (equation 3).

    Without it means zero, as in the paper, whatever the sign of the activations
    (pytorch-grad-cam subtracts 1e7 where there are negative ones). Only what lies behind the layer
    is repeated for each channel.

    The logit by which the drop is divided has a sign. The same number taken from all logits changes
    no prediction, but where it makes this one negative the map is turned over; with `relative`
    false it changes nothing.

    Args:
        backbone: the classifier.
        layer: the module whose channels are ablated; the backbone's CAM layer if None.
        relative: divide the drop by the logit, as in the paper; or weight by the drop alone.
        batch_size: ablations through the rest of the network at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = AblationCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Ablation-CAM"
    paper = "Desai & Ramaswamy 2020, WACV"
    cost = "channels + 1 forward, behind the layer"
    kind = "CAM"

    def __init__(
        self,
        backbone: Backbone,
        *,
        layer: str | None = None,
        relative: bool = True,
        batch_size: int = 256,
    ) -> None:
        super().__init__(backbone)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected at least 1")
        self._layer = layer or backbone.cam_layer
        backbone.use(self._layer)
        self._relative = relative
        self._batch_size = batch_size

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        with torch.no_grad():
            maps = [
                self._weighted(image[None], int(target))
                for image, target in zip(images, targets, strict=True)
            ]
        return normalise(torch.cat(maps).relu().float())

    def _weighted(self, image: Tensor, target: int) -> Tensor:
        """The weighted sum (1, h, w) of the features of one image (1, 3, H, W)."""
        with self.backbone.tap([self._layer]) as outputs:
            whole = self.backbone(image)[0, target]
        own = outputs[self._layer]
        axis = self.backbone.channel_axis % own.ndim
        left = [
            self.backbone.from_layer(self._layer, image, without(own, chosen, axis))[:, target]
            for chosen in torch.arange(own.shape[axis], device=own.device).split(self._batch_size)
        ]
        weights = whole - torch.cat(left)
        if self._relative:
            weights = weights / whole
        return torch.einsum("c,bchw->bhw", weights, self.backbone.grid(own))


def without(features: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Copies of features (1, ...), one for each of the `chosen` (n,) channels, it set to zero."""
    copies = features.repeat(len(chosen), *[1] * (features.ndim - 1))
    shape = [1] * features.ndim
    shape[0] = len(chosen)
    index = chosen.view(shape).expand(*copies.shape[:axis], 1, *copies.shape[axis + 1 :])
    return copies.scatter_(axis, index, 0.0)
