"""The other side of the comparisons: what a user has without this suite."""

from collections.abc import Callable
from typing import Any

import pytorch_grad_cam
import torch
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmark.core import params
from methods import Backbone, build_network, wrap

RISE_BATCH = 100
"""Masked images through the network at a time, as in the authors' code."""


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


Network = Callable[[Tensor], Tensor]
"""Pixels (B, 3, H, W) in [0, 1] to class probabilities (B, K)."""


def as_given(backbone: str) -> Backbone:
    """A backbone of params.yaml with its network as timm gives it, not made faster."""
    spec = params.load().backbones[backbone].spec
    made = {key: spec.pop(key) for key in ("source", "model", "arguments", "weights")}
    return wrap(build_network(backbone, **made), name=backbone, **spec)


def plain_rise(network: Network, image: Tensor, masks: Tensor, target: int) -> Tensor:
    """RISE (H, W) as its formula stands there: all masked images at once, scores of all classes."""
    masked = image * masks[:, None]
    scores = torch.cat([network(part) for part in masked.split(RISE_BATCH)])
    maps = scores.T @ masks.flatten(1)
    return maps[target].view(image.shape[2:]) / len(masks)
