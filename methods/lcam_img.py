"""L-CAM-Img: a trained 1x1 convolution over the last features, whose masks multiply the image."""

from collections.abc import Sequence

from methods._attention import LastFeatures, MaskExplainer


class LCAMImg(MaskExplainer):
    """L-CAM-Img. Its settings are those of MaskExplainer; of the layers it uses the last."""

    label = "L-CAM-Img"
    paper = "Gkartzonika et al. 2022, ECCVW, arXiv 2209.11189"
    families = frozenset({"cnn"})

    def mechanism(self, channels: Sequence[int], classes: int) -> LastFeatures:
        """See MaskExplainer: a 1x1 convolution over the last tapped layer."""
        return LastFeatures(channels, classes)
