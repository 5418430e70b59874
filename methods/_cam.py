"""Adapter over pytorch-grad-cam."""

from typing import Any, ClassVar

import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from methods._base import Backbone, Explainer, normalise


class _NativeSize:
    """Keeps a CAM at the resolution of its layer; resizing is the metric's business."""

    def get_target_width_height(self, _input: Tensor) -> None:
        return None


class CAM(Explainer):
    """An explainer of pytorch-grad-cam at the backbone's CAM layer.

    A subclass names the library's class in `cam`.

    Args:
        backbone: the classifier.
        layer: the module whose output is weighted; the backbone's CAM layer if None.
    """

    cam: ClassVar[type[BaseCAM]]

    def __init__(self, backbone: Backbone, *, layer: str | None = None) -> None:
        super().__init__(backbone)
        self._layer = backbone.layer(layer or backbone.cam_layer)
        self._native: Any = type(f"Native{self.cam.__name__}", (_NativeSize, self.cam), {})

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        # The library's backward pass needs an input with a gradient, as the weights have none.
        inputs = images.detach().clone().requires_grad_()
        classes = [ClassifierOutputTarget(int(t)) for t in targets]
        cam = self._native(self.backbone, [self._layer], reshape_transform=self.backbone.grid)
        try:
            with torch.enable_grad():
                maps = cam(inputs, classes)
        finally:
            cam.activations_and_grads.release()
        return normalise(torch.from_numpy(maps).float().to(images.device))
