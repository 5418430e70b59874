"""T-TAME with its initial weights: what training has to beat."""

from torch import Tensor

from methods._base import Backbone, Explainer
from methods.ttame import TTAME


class TTAMEUntrained(Explainer):
    """T-TAME before training.

    Args:
        backbone: the frozen classifier.
        seed: of the initial weights.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = TTAMEUntrained(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 28, 28])
    """

    label = "T-TAME (untrained)"
    paper = "control, of Ntrougkas et al. 2024"
    cost = "1 forward"
    kind = "trained"

    def __init__(self, backbone: Backbone, *, seed: int = 0) -> None:
        super().__init__(backbone)
        self._untrained = TTAME(backbone, seed=seed)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer."""
        return self._untrained.explain(images, targets)
