"""T-TAME: a trained attention mechanism over several feature maps, one forward pass a map."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._attention import AttentionMechanism, area, masked_images, smoothness
from methods._base import Backbone, TrainableExplainer, normalise

Tokens = Literal["multiply", "drop"]


class TTAME(TrainableExplainer):
    """T-TAME. On a CNN it is TAME (Ntrougkas 2022).

    Args:
        backbone: the frozen classifier.
        layers: the tapped modules; the backbone's taps if None.
        skip: the skip connection of every branch.
        tokens: what becomes of the CLS token of a transformer: `multiply` every patch token by
            it, channel by channel, or `drop` it. Without meaning for a CNN.
        cross_entropy, area, smoothness: weights of the loss terms.
        gain: of the fuser's initial weights; 1 is the reference's. The larger a backbone's
            features are, the more a short training needs it small: the sigmoid saturates at once.
        seed: of the initial weights.
    """

    attention: AttentionMechanism
    label = "T-TAME"
    paper = "Ntrougkas et al. 2024, IEEE Access, arXiv 2403.04523"

    def __init__(
        self,
        backbone: Backbone,
        *,
        layers: Sequence[str] | None = None,
        skip: bool = True,
        tokens: Tokens = "multiply",
        cross_entropy: float = 1.5,
        area: float = 2.0,
        smoothness: float = 0.01,
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone)
        if tokens not in get_args(Tokens):
            raise ValueError(f"tokens is {tokens!r}: expected one of {', '.join(get_args(Tokens))}")
        self.layers = tuple(backbone.taps if layers is None else layers)
        self.tokens = tokens
        self.weights = {
            "cross_entropy": cross_entropy,
            "area": area,
            "smoothness": smoothness,
        }
        channels = backbone.tapped_channels(self.layers)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            mechanism = AttentionMechanism(channels, backbone.classes, skip=skip, gain=gain)
        self.attention = mechanism.eval().to(backbone.device)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: one forward pass; maps at the resolution of the largest tapped grid."""
        with torch.no_grad():
            features, _ = self._features(images)
            return normalise(self.attention.own_maps(features, targets))

    def losses(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """See TrainableExplainer: `loss`, `cross_entropy`, `area` and `smoothness`.

        Area and smoothness are over the maps of all labels of the batch for every image.
        """
        with torch.no_grad():
            features, logits = self._features(images)
        labels = logits.argmax(dim=1) if labels is None else labels
        masks = self.attention.class_maps(features, labels).sigmoid()
        own = masks.diagonal().permute(2, 0, 1)
        terms = {
            "cross_entropy": F.cross_entropy(self.backbone(masked_images(images, own)), labels),
            "area": area(masks),
            "smoothness": smoothness(masks),
        }
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss} | terms

    def _features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        with self.backbone.tap(self.layers) as outputs:
            logits = self.backbone(images)
        return [self._arranged(outputs[layer]) for layer in self.layers], logits

    def _arranged(self, features: Tensor) -> Tensor:
        grid = self.backbone.grid(features)
        if self.backbone.prefix_tokens is None or self.tokens == "drop":
            return grid
        return grid * features[:, 0, :, None, None]
