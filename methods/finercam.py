"""Finer-CAM: what tells the class from those that look like it."""

from torch import Tensor

from methods._base import Backbone, target_logits
from methods.gradcam import GradCAM


class FinerCAM(GradCAM):
    """Finer-CAM: Grad-CAM of sum_k p_k (y_c - alpha y_k) / sum_k p_k instead of the logit y_c.

    k are the classes whose logits are nearest to that of the explained class c, p_k their
    probabilities, which are derived as well.

    Args:
        backbone: the classifier.
        layer: see GradientCAM.
        alpha: how much of the similar classes is taken away, 1 as in pytorch-grad-cam; at 0 it
            is Grad-CAM.
        comparisons: how many similar classes, three as in the authors' code; of a network with
            fewer classes all others.

    Raises:
        ValueError: alpha is negative, there are no comparisons, or one class alone.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = FinerCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Finer-CAM"
    paper = "Zhang et al. 2025, CVPR, arXiv 2501.11309"

    def __init__(
        self,
        backbone: Backbone,
        *,
        layer: str | None = None,
        alpha: float = 1.0,
        comparisons: int = 3,
    ) -> None:
        super().__init__(backbone, layer=layer)
        if not alpha >= 0:
            raise ValueError(f"alpha is {alpha}: expected 0 or more")
        if comparisons < 1:
            raise ValueError(f"comparisons is {comparisons}: expected 1 or more")
        if backbone.classes < 2:
            raise ValueError(
                f"backbone {backbone.name!r} has one class: expected two, of which one is compared"
            )
        self._alpha, self._comparisons = alpha, comparisons

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See GradientCAM: the weighted difference from the most similar classes."""
        own = target_logits(logits, targets)[:, None]
        distances = (logits - own).abs().scatter(1, targets[:, None], -1.0)
        nearest = distances.topk(min(self._comparisons + 1, logits.shape[1]), largest=False)
        others = nearest.indices[:, 1:]  # after the class itself
        compared = logits.gather(1, others)
        weights = compared.softmax(dim=1)  # their probabilities, divided by the sum of these
        return (weights * (own - self._alpha * compared)).sum(dim=1)
