"""The other side of the comparisons: what a user has without this suite."""

from typing import Any

import pytorch_grad_cam
import torch
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from methods import Backbone

RISE_BATCH = 100
"""Masked images through the network at a time in the reference."""


def library_cam(name: str, backbone: Backbone, layer: str, image: Tensor, target: int) -> Tensor:
    """A map (1, H, W) of pytorch-grad-cam for one image (1, 3, H, W), with its own defaults."""
    options: dict[str, Any] = {"reshape_transform": backbone.grid}
    if name == "AblationCAM" and backbone.family == "transformer":
        options["ablation_layer"] = AblationLayerVit()
    if name == "AblationCAM" and backbone.family == "cnn":
        options = {}
    with getattr(pytorch_grad_cam, name)(backbone, [backbone.layer(layer)], **options) as cam:
        inputs = image.clone().requires_grad_(name == "GradCAM")
        return torch.from_numpy(cam(inputs, [ClassifierOutputTarget(target)]))


def plain_rise(backbone: Backbone, image: Tensor, masks: Tensor, target: int) -> Tensor:
    """RISE (H, W) as its formula stands there: all masks in float64, all images, all classes.

    The reference of T-TAME works like this.
    """
    masked = image.double() * masks.double()[:, None]
    scores = torch.cat([backbone.probabilities(part.float()) for part in masked.split(RISE_BATCH)])
    maps = scores.double().T @ masks.double().flatten(1)
    return maps[target].view(image.shape[2:]).float() / len(masks)
