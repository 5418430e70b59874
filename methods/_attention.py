"""What T-TAME, TAME and L-CAM share: the attention mechanisms and the loss that trains them.

Source: Ntrougkas, Gkalelis, Mezaris: T-TAME, IEEE Access 2024, arXiv 2403.04523. Modules are named
as in the released checkpoints (`convs`, `bns`, `fuser`; `op`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods._base import (
    Backbone,
    TrainableExplainer,
    normalise,
    refuse_unless_one_of,
)

MAX_GRID = 56
"""Feature maps are fused at the largest tapped grid, but the longer side is no more than this."""

Tokens = Literal["multiply", "drop"]
"""What becomes of the CLS token of a transformer: every patch token is multiplied by it, channel by
channel, or it is dropped."""

Branch = Literal["convolution", "self_attention"]
"""What a branch does with a feature set: a 1x1 convolution, or self-attention over its places."""

Activation = Literal["relu", "sigmoid"]
"""The end of a branch."""

Masking = Literal["random", "diagonal"]
"""Which maps area and smoothness are of: of every image those of all labels of the batch, or that
of its own label."""

Arrangement = Literal["raw", "normalised"]
"""What a mask multiplies in training: the raw image, or the normalised one, which fills with the
mean colour instead of black. (The reference's "renormalize" undoes the normalisation first: it is
the raw arrangement.)"""

HEAD = 64
"""Channels of a head of self-attention, if the number of channels allows it."""


class Mechanism(nn.Module):
    """Feature sets to one map a class, by a 1x1 convolution over what `fused` makes of them."""

    @abstractmethod
    def fused(self, features: Sequence[Tensor]) -> Tensor:
        """Feature sets (B, C_i, h_i, w_i) each, as one (B, C, h, w)."""

    @property
    @abstractmethod
    def output(self) -> nn.Conv2d:
        """The 1x1 convolution C to K, the number of classes."""

    def class_maps(self, features: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Logit maps (B, L, h, w) of the L `classes` (L,) for every image."""
        bias = None if self.output.bias is None else self.output.bias[classes]
        return F.conv2d(self.fused(features), self.output.weight[classes], bias)

    def own_maps(self, features: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Logit maps (B, h, w), for each image the map of its own class in `targets` (B,)."""
        maps = self.weighted(features, self.output.weight[targets, :, 0, 0])
        return maps if self.output.bias is None else maps + self.output.bias[targets, None, None]

    def weighted(self, features: Sequence[Tensor], rows: Tensor) -> Tensor:
        """What `fused` makes of the features, summed (B, h, w) with the weights `rows` (B, C)."""
        return torch.einsum("bchw,bc->bhw", self.fused(features), rows)


class Branches(Mechanism):
    """A branch a feature set (`transformed`, skip, activation), fused by a 1x1 convolution.

    Args:
        skip: add the features to what a branch makes of them before the activation.
        activation: the end of a branch.
    """

    fuser: nn.Conv2d

    def __init__(self, *, skip: bool, activation: Activation) -> None:
        super().__init__()
        self.skip = skip
        self.activation = activation

    @abstractmethod
    def transformed(self, number: int, feature: Tensor) -> Tensor:
        """What branch `number` makes of its feature set (B, C, h, w) before the skip connection."""

    @property
    def output(self) -> nn.Conv2d:
        """See Mechanism."""
        return self.fuser

    def fused(self, features: Sequence[Tensor]) -> Tensor:
        """See Mechanism: all branches at one resolution, concatenated."""
        size = self._size(features)
        return torch.cat([_resize(branch, size) for branch in self._branches(features)], dim=1)

    def weighted(self, features: Sequence[Tensor], rows: Tensor) -> Tensor:
        """See Mechanism. Branches are summed before they are resized.

        Resizing is linear: it gives the same up to rounding, and one channel an image is resized
        instead of all.
        """
        parts = rows.split([f.shape[1] for f in features], dim=1)
        maps = [
            (part[:, None] @ branch.flatten(2)).unflatten(2, branch.shape[2:])
            for part, branch in zip(parts, self._branches(features), strict=True)
        ]
        size = self._size(features)
        return torch.stack([_resize(own, size)[:, 0] for own in maps]).sum(dim=0)

    def _branches(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each feature set through its branch, at its own resolution."""
        branches = []
        for number, feature in enumerate(features):
            branch = self.transformed(number, feature)
            if self.skip:
                branch = branch + feature
            branches.append(F.relu(branch) if self.activation == "relu" else branch.sigmoid())
        return branches

    def _size(self, features: Sequence[Tensor]) -> tuple[int, int]:
        """The resolution (h, w) of the maps."""
        height, width = (max(f.shape[axis] for f in features) for axis in (-2, -1))
        shrunk = min(1.0, MAX_GRID / max(height, width))
        return max(1, round(shrunk * height)), max(1, round(shrunk * width))


class AttentionMechanism(Branches):
    """That of T-TAME and TAME: a branch is a 1x1 convolution, batch norm, skip and ReLU.

    Args:
        channels: C_i of each feature set.
        classes: K, the number of class maps.
        skip, activation: see Branches.
        batch_norm: normalise the convolution's output.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        *,
        skip: bool = True,
        batch_norm: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__(skip=skip, activation=activation)
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 1) for c in channels)
        self.bns = nn.ModuleList(
            nn.BatchNorm2d(c) if batch_norm else nn.Identity() for c in channels
        )
        self.fuser = nn.Conv2d(sum(channels), classes, 1)

    def transformed(self, number: int, feature: Tensor) -> Tensor:
        """See Branches."""
        normalised: Tensor = self.bns[number](self.convs[number](feature))
        return normalised


class SelfAttention(Branches):
    """A branch is layer norm, self-attention over the places, skip and ReLU.

    The variant for transformers in the ablation of the T-TAME repository, here with the same fuser
    as the others.

    Args:
        channels: C_i of each feature set.
        classes: K, the number of class maps.
        skip, activation: see Branches.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        *,
        skip: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__(skip=skip, activation=activation)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(c, heads(c), batch_first=True) for c in channels
        )
        self.fuser = nn.Conv2d(sum(channels), classes, 1)

    def transformed(self, number: int, feature: Tensor) -> Tensor:
        """See Branches."""
        places = self.norms[number](feature.flatten(2).transpose(1, 2))
        mixed: Tensor = self.attentions[number](places, places, places, need_weights=False)[0]
        return mixed.transpose(1, 2).reshape(feature.shape)


def heads(channels: int) -> int:
    """The number of heads of self-attention, of about HEAD channels each."""
    return next(h for h in range(max(1, channels // HEAD), 0, -1) if channels % h == 0)


class LastFeatures(Mechanism):
    """L-CAM: a 1x1 convolution over the last feature set.

    Args:
        channels: C_i of each feature set.
        classes: K, the number of class maps.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels[-1], classes, 1)

    @property
    def output(self) -> nn.Conv2d:
        """See Mechanism."""
        return self.op

    def fused(self, features: Sequence[Tensor]) -> Tensor:
        """See Mechanism."""
        return features[-1]


class MaskExplainer(TrainableExplainer):
    """An explainer whose class maps are learned as masks: T-TAME, TAME, L-CAM.

    A subclass says in `mechanism` which attention mechanism it has, and in `masked_logits` what
    its masks multiply.

    Args:
        backbone: the frozen classifier.
        layers: the tapped modules; the backbone's taps if None.
        cross_entropy, area, smoothness: weights of the loss terms.
        masking: which maps area and smoothness are of.
        arrangement: what a mask multiplies in training.
        gain: factor of the initial weights of the mechanism's output; 1 is the reference's. The
            larger a backbone's features are, the more a short training needs it small: the sigmoid
            saturates at once.
        seed: of the initial weights.
    """

    attention: Mechanism
    tokens: Tokens = "drop"
    cost = "1 forward"
    kind = "trained"

    def __init__(
        self,
        backbone: Backbone,
        *,
        layers: Sequence[str] | None = None,
        cross_entropy: float = 1.5,
        area: float = 2.0,
        smoothness: float = 0.01,
        masking: Masking = "random",
        arrangement: Arrangement = "raw",
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone)
        refuse_unless_one_of("masking", masking, Masking)
        refuse_unless_one_of("arrangement", arrangement, Arrangement)
        self.masking, self.arrangement = masking, arrangement
        self.layers = tuple(backbone.taps if layers is None else layers)
        self.weights = {"cross_entropy": cross_entropy, "area": area, "smoothness": smoothness}
        for layer in self.layers:
            backbone.use(layer)
        of_tokens = backbone.prefix_tokens is not None
        if self.tokens == "multiply" and of_tokens and not backbone.has_class_token():
            raise ValueError(
                f"tokens is 'multiply', and the head of {backbone.name!r} reads no class token: "
                "expected 'drop'"
            )
        channels = backbone.tapped_channels(self.layers)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            mechanism = self.mechanism(channels, backbone.classes)
        with torch.no_grad():
            mechanism.output.weight.mul_(gain)
        self.attention = mechanism.eval().to(backbone.device)

    @abstractmethod
    def mechanism(self, channels: Sequence[int], classes: int) -> Mechanism:
        """The untrained attention mechanism for feature sets of so many channels."""

    def masked_logits(self, images: Tensor, masks: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W) under their masks (B, h, w) in [0, 1]."""
        fill = 0.0 if self.arrangement == "raw" else self.backbone.mean
        logits: Tensor = self.backbone(fill + masked_images(images - fill, masks))
        return logits

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: one forward pass; maps at the resolution of the mechanism."""
        with torch.no_grad():
            features, _ = self._features(images)
            return normalise(self.attention.own_maps(features, targets))

    def losses(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """See TrainableExplainer: `loss`, `cross_entropy`, `area` and `smoothness`.

        With random masking area and smoothness are over the maps of all labels of the batch for
        every image (of the batches of all processes, see `whole_batch`).
        """
        with torch.no_grad():
            features, logits = self._features(images)
        labels = logits.argmax(dim=1) if labels is None else labels
        of_all = self.whole_batch(labels)
        self.count_classes(of_all)
        if self.masking == "random":
            masks = self.attention.class_maps(features, of_all).sigmoid()
            own = masks[:, : len(labels)].diagonal().permute(2, 0, 1)
        else:
            own = self.attention.own_maps(features, labels).sigmoid()
            masks = own[:, None]
        terms = {
            "cross_entropy": F.cross_entropy(self.masked_logits(images, own), labels),
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


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def area(masks: Tensor) -> Tensor:
    """Mean of (m + 0.0005) ** 0.3 over masks of any shape in [0, 1]."""
    return ((masks + 0.0005) ** 0.3).mean()


def smoothness(masks: Tensor) -> Tensor:
    """Squared differences of neighbours, and 0.3 times the squared borders, over 2 B.

    Args:
        masks: (B, L, h, w) in [0, 1].
    """
    vertical = masks.diff(dim=-2).square().sum()
    horizontal = masks.diff(dim=-1).square().sum()
    top_bottom = masks[..., 0, :].square().sum() + masks[..., -1, :].square().sum()
    left_right = masks[..., :, 0].square().sum() + masks[..., :, -1].square().sum()
    return (vertical + horizontal + 0.3 * (top_bottom + left_right)) / (2 * len(masks))


def masked_images(images: Tensor, masks: Tensor) -> Tensor:
    """Images (B, 3, H, W) times masks (B, h, w), resized bilinearly."""
    resized = F.interpolate(
        masks[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False
    )
    return images * resized
