"""L-CAM-Fm: a trained 1x1 convolution over the last features, whose masks multiply them."""

from collections.abc import Sequence

from torch import Tensor

from methods._attention import LastFeatures, MaskExplainer


class LCAMFm(MaskExplainer):
    """L-CAM-Fm: the map of class k is w_k F + b_k, min-max normalised.

    F are the features of the last layer, w and b a 1x1 convolution with an output a class. They
    are learnt while F itself is multiplied by sigmoid(w F + b). The settings are those of
    MaskExplainer.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = LCAMFm(wrap("efficientnet_lite0"))
        >>> explainer.load_state("results/states/efficientnet_lite0/lcam_fm.safetensors")
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "L-CAM-Fm"
    paper = "Gkartzonika et al. 2022, ECCVW, arXiv 2209.11189"
    families = frozenset({"cnn"})

    def mechanism(self, channels: Sequence[int], classes: int) -> LastFeatures:
        """See MaskExplainer: a 1x1 convolution over the last tapped layer."""
        return LastFeatures(channels, classes)

    def masked_logits(self, images: Tensor, masks: Tensor) -> Tensor:
        """See MaskExplainer: the features of the last layer under the masks (B, h, w)."""
        masks = masks.unsqueeze(self.backbone.channel_axis)
        with self.backbone.changed(self.layers[-1], lambda output: output * masks):
            logits: Tensor = self.backbone(images)
        return logits
