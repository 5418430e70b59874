"""ShapleyCAM: Grad-CAM with the curvature of the score."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods._base import normalise, target_logits
from methods._cam import begun
from methods.gradcam import GradCAM


class ShapleyCAM(GradCAM):
    """ShapleyCAM: relu(sum_c w_c A_c), w_c the mean of (g - H A / 2)_c over the places.

    A are the features of the CAM layer, g and H gradient and Hessian there of the score y_c +
    log p_c, the logit of the explained class and the logarithm of its probability, which the paper
    calls ReST. Of a score that is linear behind the layer it is Grad-CAM.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = ShapleyCAM(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "ShapleyCAM"
    paper = "Cai 2025, arXiv 2501.06261"
    cost = "1 forward, 2 backward"

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer."""
        backbone = self.backbone
        with (
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),  # others have no second derivative
            begun(backbone, self._layer) as outputs,
        ):
            score = self.score(backbone(images.detach()), targets).sum()
            (first,) = torch.autograd.grad(score, outputs[0], create_graph=True)
            (product,) = torch.autograd.grad(first, outputs[0], outputs[0].detach())
        features = outputs[0].detach()
        weighted = self.combine(backbone.grid(features), backbone.grid(first - product / 2))
        return normalise(weighted.detach().relu().float())

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See GradientCAM: logit and logarithm of the probability."""
        return target_logits(logits, targets) + target_logits(logits.log_softmax(dim=1), targets)
