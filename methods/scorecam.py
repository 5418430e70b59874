"""Score-CAM."""

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._base import Backbone, Explainer, normalise
from methods._fill import Fill, colour_of


class ScoreCAM(Explainer):
    """Score-CAM as in pytorch-grad-cam: channels weighted by the softmax of their logits.

    The logit of a channel is the explained class's, for the image times that channel's map,
    resized and min-max normalised. (In the paper the logit of a blank image is subtracted, which
    the softmax does not see.) Maps that are constant all make the same blank image, which passes
    the network once.

    Args:
        backbone: the classifier.
        layer: the module whose channels are used; the backbone's CAM layer if None.
        channels: use only so many, those with the largest range in the image; all if None, which
            is the method. For demonstrations.
        fill: the colour under a map; its authors, and the T-TAME reference, multiply normalised
            images, which is the mean.
        batch_size: masked images through the network at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = ScoreCAM(wrap("efficientnet_lite0"), channels=4)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Score-CAM"
    paper = "Wang et al. 2020, CVPRW, arXiv 1910.01279"
    cost = "channels + 1 forward"
    kind = "CAM"

    def __init__(
        self,
        backbone: Backbone,
        *,
        layer: str | None = None,
        channels: int | None = None,
        fill: Fill = "mean",
        batch_size: int = 16,
    ) -> None:
        super().__init__(backbone)
        if batch_size < 1 or (channels is not None and channels < 1):
            raise ValueError(
                f"batch_size is {batch_size}, channels {channels}: expected at least 1, channels "
                "may be null for all"
            )
        self._layer = layer or backbone.cam_layer
        backbone.use(self._layer)
        self._channels = channels
        self._colour = colour_of(backbone, fill)
        self._batch_size = batch_size

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        with torch.no_grad():
            with self.backbone.tap([self._layer]) as outputs:
                self.backbone(images)
            features = self.backbone.grid(outputs[self._layer]).float()
            maps = [
                self._weighted(image, own, int(target))
                for image, own, target in zip(images, features, targets, strict=True)
            ]
        return normalise(torch.stack(maps).relu().float())

    def _weighted(self, image: Tensor, features: Tensor, target: int) -> Tensor:
        """The weighted sum (h, w) of the features (C, h, w) of one image (3, H, W)."""
        if self._channels is not None and self._channels < len(features):
            spread = features.amax(dim=(1, 2)) - features.amin(dim=(1, 2))
            features = features[spread.topk(self._channels).indices.sort().values]
        alive = (features.amax(dim=(1, 2)) > features.amin(dim=(1, 2))).nonzero()[:, 0]
        logits = torch.empty(len(features), device=features.device)
        if len(alive) < len(features):
            logits[:] = self.backbone(self._colour.expand(1, *image.shape))[0, target]
        for chosen in alive.split(self._batch_size) if len(alive) else ():
            shares = masks(features[chosen], image.shape[1:])[:, None]
            masked = torch.lerp(self._colour, image, shares)
            logits[chosen] = self.backbone(masked)[:, target].float()
        return torch.einsum("c,chw->hw", logits.softmax(dim=0), features)


def masks(features: Tensor, size: torch.Size) -> Tensor:
    """Features (C, h, w) resized to (C, H, W) and min-max normalised, each by itself."""
    resized = F.interpolate(features[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
    low = resized.amin(dim=(1, 2), keepdim=True)
    return (resized - low) / (resized.amax(dim=(1, 2), keepdim=True) - low + 1e-8)
