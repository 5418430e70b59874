"""TAME: the attention mechanism of T-TAME; of a transformer it sees the patch tokens alone."""

from collections.abc import Sequence

from methods._attention import AttentionMechanism, MaskExplainer


class TAME(MaskExplainer):
    """TAME: the map of class k is fuser(relu(norm(W_i F_i) + F_i))_k, min-max normalised.

    F_i are the features of some layers, W_i a 1x1 convolution each, norm a batch norm; the results
    are resized to one grid and joined for the fuser, a 1x1 convolution with an output a class. In
    training the sigmoid of its output multiplies the image. On a CNN it is the same network as
    T-TAME.

    Its settings are those of MaskExplainer; the CLS token of a transformer is dropped.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = TAME(wrap("efficientnet_lite0"))
        >>> sorted(explainer.losses(torch.rand(2, 3, 224, 224)))
        ['area', 'cross_entropy', 'loss', 'smoothness']
    """

    label = "TAME"
    paper = "Ntrougkas et al. 2022, ISM, arXiv 2301.07407"

    def mechanism(self, channels: Sequence[int], classes: int) -> AttentionMechanism:
        """See MaskExplainer: a branch a tapped layer, and the fuser."""
        return AttentionMechanism(channels, classes)
