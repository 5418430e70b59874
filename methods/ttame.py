"""T-TAME: a trained attention mechanism over several feature maps, one forward pass a map."""

from collections.abc import Sequence
from typing import Any, get_args

from methods._attention import AttentionMechanism, MaskExplainer, Tokens
from methods._base import Backbone


class TTAME(MaskExplainer):
    """T-TAME. On a CNN it is TAME.

    Args:
        backbone: the frozen classifier.
        skip: the skip connection of every branch.
        tokens: what becomes of the CLS token of a transformer: `multiply` every patch token by
            it, channel by channel, or `drop` it. Without meaning for a CNN.
        settings: those of MaskExplainer.
    """

    label = "T-TAME"
    paper = "Ntrougkas et al. 2024, IEEE Access, arXiv 2403.04523"

    def __init__(
        self,
        backbone: Backbone,
        *,
        skip: bool = True,
        tokens: Tokens = "multiply",
        **settings: Any,
    ) -> None:
        if tokens not in get_args(Tokens):
            raise ValueError(f"tokens is {tokens!r}: expected one of {', '.join(get_args(Tokens))}")
        self.skip = skip
        self.tokens = tokens
        super().__init__(backbone, **settings)

    def mechanism(self, channels: Sequence[int], classes: int) -> AttentionMechanism:
        """See MaskExplainer: a branch a tapped layer, and the fuser."""
        return AttentionMechanism(channels, classes, skip=self.skip)
