"""Iterated Integrated Attributions: gradients integrated along the image and along a layer."""

import torch
from torch import Tensor

from methods._base import Backbone, Explainer, normalise
from methods._transformer import attentions, blocks, rolled_out, token_maps


class IIA(Explainer):
    """IIA with two iterated integrals, each from zero, by right Riemann sums.

    The outer path a x leads from a black image to the image x. Of a CNN, the inner path b u(a x)
    leads to the output u of the CAM layer: the evidence is the mean of u times the gradient at
    b u, over both paths, channels added up, negative values cut off. With one step outside it is
    Integrated Gradients of the layer; with one step each, HiRes-CAM. Of a transformer, the inner
    path scales the attention of the last block: (gradient * attention)^+ of every block, averaged
    over both paths and the heads, is rolled out (the gradient rollout of the paper).

    The authors' code is not this integral. Of a CNN a minimum over an axis of one element makes its
    inner path collapse: it is HiRes-CAM, summed along the outer path. Of a transformer the scaled
    attention is a constant there, through which no gradient passes, and both paths have ten points,
    the ends included.

    Args:
        backbone: the classifier.
        image_steps, layer_steps: points of the outer and of the inner path.
        layer: of the inner path on a CNN; the backbone's CAM layer if None.
        batch_size: images through a transformer at a time.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = IIA(wrap("efficientnet_lite0"), image_steps=2, layer_steps=2)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "IIA"
    paper = "Barkan et al. 2023, ICCV, arXiv 2310.20221"
    cost = "image steps x layer steps forward and backward"
    kind = "gradient"

    def __init__(
        self,
        backbone: Backbone,
        *,
        image_steps: int = 10,
        layer_steps: int = 10,
        layer: str | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(backbone)
        if min(image_steps, layer_steps, batch_size) < 1:
            raise ValueError(
                f"image_steps is {image_steps}, layer_steps {layer_steps}, batch_size "
                f"{batch_size}: expected at least 1 each"
            )
        self._layer = layer or backbone.cam_layer
        backbone.use(self._layer)
        self._image_steps = image_steps
        self._layer_steps = layer_steps
        self._batch_size = batch_size
        self._last = len(blocks(backbone)) - 1 if backbone.family == "transformer" else None

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the layer or on the grid of the patches."""
        evidence = self._of_features if self._last is None else self._of_attention
        with torch.enable_grad():
            maps = [
                evidence(image[None], int(target))
                for image, target in zip(images.detach(), targets, strict=True)
            ]
        return torch.cat(maps)

    def _of_features(self, image: Tensor, target: int) -> Tensor:
        """The map (1, h, w) of one image (1, 3, H, W) from the features of a CNN."""
        along = [self._along(a * image, target) for a in path(self._image_steps, image)]
        return normalise(torch.stack(along).sum(dim=0).relu().float())

    def _along(self, image: Tensor, target: int) -> Tensor:
        """The evidence (1, h, w) integrated along the inner path of one image (1, 3, H, W)."""
        seen: list[Tensor] = []

        def scaled(output: Tensor) -> Tensor:
            points = path(self._layer_steps, image)[:, None, None, None] * output.detach()
            seen.extend([output.detach(), points.requires_grad_()])
            return points.clone()  # what follows may work in place

        with self.backbone.changed(self._layer, scaled):
            logits = self.backbone(image)
            (gradients,) = torch.autograd.grad(logits[:, target].sum(), seen[1])
        return self.backbone.grid(seen[0] * gradients.mean(dim=0)).sum(dim=1)

    def _of_attention(self, image: Tensor, target: int) -> Tensor:
        """The map (1, h, w) of one image (1, 3, H, W) from the attention of a transformer."""
        points = torch.cartesian_prod(
            path(self._image_steps, image), path(self._layer_steps, image)
        ).view(-1, 2)
        parts = [
            self._gradient_times_attention(a[:, None, None, None] * image, b, target)
            for a, b in (chosen.unbind(1) for chosen in points.split(self._batch_size))
        ]
        means = [torch.stack(block).sum(dim=0) / len(points) for block in zip(*parts, strict=True)]
        return token_maps(self.backbone, rolled_out(means))

    def _gradient_times_attention(
        self, images: Tensor, scales: Tensor, target: int
    ) -> list[Tensor]:
        """Of each block, (1, 1, N, N): the positive part, mean over heads, sum over images."""

        def change(index: int, attention: Tensor) -> Tensor:
            return scales[:, None, None, None] * attention if index == self._last else attention

        with attentions(self.backbone, change) as collected:
            logits = self.backbone(images)
            gradients = torch.autograd.grad(logits[:, target].sum(), collected)
        return [
            (gradient * attention.detach()).relu().mean(dim=1, keepdim=True).sum(0, keepdim=True)
            for gradient, attention in zip(gradients, collected, strict=True)
        ]


def path(steps: int, like: Tensor) -> Tensor:
    """1/steps, 2/steps, ... 1, as a tensor (steps,) on the device of `like`."""
    return torch.arange(1, steps + 1, device=like.device) / steps
