"""T-TAME with its initial weights: what training has to beat."""

from torch import Tensor

from methods._base import Backbone, Explainer
from methods.ttame import TTAME


class TTAMEUntrained(Explainer):
    """T-TAME before training.

    Args:
        backbone: the frozen classifier.
        seed: of the initial weights.
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
