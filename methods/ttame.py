"""T-TAME: a trained attention mechanism over several feature maps, one forward pass a map."""

from collections.abc import Sequence
from typing import Any

from methods._attention import (
    Activation,
    AttentionMechanism,
    Branch,
    Branches,
    MaskExplainer,
    SelfAttention,
    Tokens,
)
from methods._base import Backbone, refuse_unless_one_of


class TTAME(MaskExplainer):
    """T-TAME: the map of class k is fuser(relu(norm(W_i F_i) + F_i))_k, min-max normalised.

    F_i are the features of some layers, W_i a 1x1 convolution each, norm a batch norm; the results
    are resized to one grid and joined for the fuser, a 1x1 convolution with an output a class. In
    training the sigmoid of its output multiplies the image. Of a transformer, F_i are the patch
    tokens, each times the CLS token. On a CNN it is TAME.

    Args:
        backbone: the frozen classifier.
        skip: the skip connection of every branch.
        batch_norm: the batch norm of every branch.
        activation: the end of every branch.
        branch: what a branch does with its feature set; `self_attention` has layer norms in
            front instead of batch norms.
        tokens: what becomes of the CLS token of a transformer: `multiply` every patch token by
            it, channel by channel, or `drop` it. Without meaning for a CNN.
        settings: those of MaskExplainer.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = TTAME(wrap("efficientnet_lite0"))
        >>> explainer.load_state("results/states/efficientnet_lite0/ttame.safetensors")
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 28, 28])
    """

    label = "T-TAME"
    paper = "Ntrougkas et al. 2024, IEEE Access, arXiv 2403.04523"

    def __init__(
        self,
        backbone: Backbone,
        *,
        skip: bool = True,
        batch_norm: bool = True,
        activation: Activation = "relu",
        branch: Branch = "convolution",
        tokens: Tokens = "multiply",
        **settings: Any,
    ) -> None:
        refuse_unless_one_of("activation", activation, Activation)
        refuse_unless_one_of("branch", branch, Branch)
        refuse_unless_one_of("tokens", tokens, Tokens)
        self.skip = skip
        self.batch_norm = batch_norm
        self.activation = activation
        self.branch = branch
        self.tokens = tokens
        super().__init__(backbone, **settings)

    def mechanism(self, channels: Sequence[int], classes: int) -> Branches:
        """See MaskExplainer: a branch a tapped layer, and the fuser."""
        common: dict[str, Any] = {"skip": self.skip, "activation": self.activation}
        if self.branch == "self_attention":
            return SelfAttention(channels, classes, **common)
        return AttentionMechanism(channels, classes, batch_norm=self.batch_norm, **common)
