"""L-CAM-Img: a trained 1x1 convolution over the last features, whose masks multiply the image."""

from collections.abc import Sequence

from methods._attention import LastFeatures, MaskExplainer


class LCAMImg(MaskExplainer):
    """L-CAM-Img: the map of class k is w_k F + b_k, min-max normalised.

    F are the features of the last layer, w and b a 1x1 convolution with an output a class. They
    are learnt while the image is multiplied by sigmoid(w F + b), resized. The settings are those
    of MaskExplainer.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = LCAMImg(wrap("efficientnet_lite0"))
        >>> explainer.load_state("results/states/efficientnet_lite0/lcam_img.safetensors")
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "L-CAM-Img"
    paper = "Gkartzonika et al. 2022, ECCVW, arXiv 2209.11189"
    families = frozenset({"cnn"})

    def mechanism(self, channels: Sequence[int], classes: int) -> LastFeatures:
        """See MaskExplainer: a 1x1 convolution over the last tapped layer."""
        return LastFeatures(channels, classes)
