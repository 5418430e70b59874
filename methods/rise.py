"""RISE: the mean of random masks, weighted by the score of the masked image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._base import Backbone, Explainer, Scores, normalise, scored
from methods._fill import Fill, colour_of
from methods._inputs import exact_device


class RISE(Explainer):
    """RISE: the mean of random masks, each times the class's probability of the image under it.

    Every image sees the same masks; they are never held all at once.

    Args:
        backbone: the classifier.
        masks: number of masks, N.
        cells: the grid of a mask is cells x cells before it is enlarged.
        probability: that a cell of the grid is kept.
        seed: of the masks.
        batch_size: masked images through the network at a time.
        scores: what weights a mask: `probabilities`, or `logits` as in the T-TAME reference.
        fill: the colour under a mask; its authors, and the T-TAME reference, multiply normalised
            images, which is the mean.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = RISE(wrap("efficientnet_lite0"), masks=8)
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 224, 224])
    """

    label = "RISE"
    paper = "Petsiuk et al. 2018, BMVC, arXiv 1806.07421"
    cost = "masks forward"
    kind = "perturbation"

    def __init__(
        self,
        backbone: Backbone,
        *,
        masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        seed: int = 0,
        batch_size: int = 32,
        scores: Scores = "probabilities",
        fill: Fill = "mean",
    ) -> None:
        super().__init__(backbone)
        if masks < 1 or cells < 1 or not 0 < probability < 1:
            raise ValueError(
                f"masks is {masks}, cells {cells}, probability {probability}: expected at least "
                "1, at least 1, and a probability between 0 and 1"
            )
        generator = torch.Generator().manual_seed(seed)
        self._grids = (torch.rand(masks, cells, cells, generator=generator) < probability).float()
        self._shifts = torch.rand(masks, 2, generator=generator)
        self._probability = probability
        self._batch_size = batch_size
        self._score = scored(backbone, scores)
        self._colour = colour_of(backbone, fill)

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps at the resolution of the image."""
        where = exact_device(images.device)
        sums = torch.zeros(images[:, 0].shape, dtype=torch.float64, device=where)
        for start in range(0, len(self._grids), self._batch_size):
            masks = self.masks(start, start + self._batch_size, images.shape[-2:]).to(images.device)
            for index, target in enumerate(targets.tolist()):
                masked = torch.lerp(self._colour, images[index], masks[:, None])
                scores = self._score(masked)[:, target]
                sums[index] += torch.einsum("n,nhw->hw", scores, masks).to(where)
        means = sums / (len(self._grids) * self._probability)
        return normalise(means.float().to(images.device))

    def masks(self, start: int, stop: int, size: tuple[int, int] | torch.Size) -> Tensor:
        """Masks `start` to `stop`, (n, H, W) in [0, 1]: grids enlarged and cropped at random."""
        grids, shifts = self._grids[start:stop], self._shifts[start:stop]
        cell = [math.ceil(side / grids.shape[-1]) for side in size]
        enlarged = F.interpolate(
            grids[:, None],
            size=[side + step for side, step in zip(size, cell, strict=True)],
            mode="bilinear",
            align_corners=False,
        )[:, 0]
        corners = (shifts * torch.tensor(cell)).long().tolist()
        return torch.stack(
            [
                m[y : y + size[0], x : x + size[1]]
                for m, (y, x) in zip(enlarged, corners, strict=True)
            ]
        )
