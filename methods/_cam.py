"""What the CAM family shares: features of a layer, and the gradient of the class's score there.

pytorch-grad-cam is the reference in the tests. It goes back through the whole network; here the
gradient ends at the layer, which gives the same maps in less than half the time.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from methods._base import Backbone, Explainer, normalise, target_logits


class GradientCAM(Explainer):
    """A map from the features of the CAM layer and their gradient; negative evidence is cut off.

    A subclass says in `combine` how.

    Args:
        backbone: the classifier.
        layer: the module whose output is weighted; the backbone's CAM layer if None.
    """

    cost = "1 forward, 1 backward"
    kind = "CAM"

    def __init__(self, backbone: Backbone, *, layer: str | None = None) -> None:
        super().__init__(backbone)
        self._layer = layer or backbone.cam_layer
        backbone.use(self._layer)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        features, gradients = features_and_gradients(
            self.backbone, self._layer, images, targets, self.score
        )
        return normalise(self.combine(features, gradients).relu().float())

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What is derived (B,), of logits (B, K) and the explained classes (B,): their logits."""
        return target_logits(logits, targets)

    @abstractmethod
    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Evidence (B, h, w) from features and gradients, both (B, C, h, w)."""


class WeightedCAM(GradientCAM):
    """Channels weighted by one number each; a subclass says in `weights` by which."""

    def combine(self, features: Tensor, gradients: Tensor) -> Tensor:
        """See GradientCAM: the weighted sum of the channels."""
        return torch.einsum("bc,bchw->bhw", self.weights(features, gradients), features)

    @abstractmethod
    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Weights (B, C) from features and gradients, both (B, C, h, w)."""


def features_and_gradients(
    backbone: Backbone,
    layer: str,
    images: Tensor,
    targets: Tensor,
    score: Callable[[Tensor, Tensor], Tensor] = target_logits,
) -> tuple[Tensor, Tensor]:
    """Output of a layer, and the gradient of each image's score there.

    Args:
        backbone: the classifier.
        layer: name of the module.
        images: (B, 3, H, W) in [0, 1].
        targets: (B,), the explained classes.
        score: what is derived (B,), of logits (B, K) and the classes.

    Returns:
        Two tensors (B, C, h, w); of tokens, the patches.
    """
    with torch.enable_grad(), begun(backbone, layer) as outputs:
        logits = backbone(images.detach())
        (gradients,) = torch.autograd.grad(score(logits, targets).sum(), outputs[0])
    return backbone.grid(outputs[0].detach()), backbone.grid(gradients)


@contextmanager
def begun(backbone: Backbone, layer: str) -> Iterator[list[Tensor]]:
    """Within the block, the graph begins at a layer's output, which the list has after a pass."""
    outputs: list[Tensor] = []

    def begin(output: Tensor) -> Tensor:
        outputs[:] = [output.detach().requires_grad_()]
        return outputs[0].clone()  # what follows may work in place

    with backbone.changed(layer, begin):
        yield outputs
