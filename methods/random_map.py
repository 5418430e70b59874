"""A random map: the explanation of somebody who saw neither image nor network."""

import torch
from torch import Tensor

from methods._base import Backbone, Explainer, image_seeds, normalise


class RandomMap(Explainer):
    """Uniform noise on a coarse grid, as coarse as the maps it is compared with.

    Args:
        backbone: the classifier; only its device is used.
        cells: side of the grid.
        seed: of the noise, together with the image.

    Example:
        >>> import torch
        >>> from methods import wrap
        >>> explainer = RandomMap(wrap("efficientnet_lite0"))
        >>> explainer(torch.rand(1, 3, 224, 224), torch.tensor([759])).shape
        torch.Size([1, 7, 7])
    """

    label = "Random"
    paper = "baseline"
    cost = "none"
    kind = "baseline"

    def __init__(self, backbone: Backbone, *, cells: int = 7, seed: int = 0) -> None:
        super().__init__(backbone)
        self._cells = cells
        self._seed = seed

    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """See Explainer: maps (B, cells, cells)."""
        maps = [
            torch.rand(
                self._cells,
                self._cells,
                generator=torch.Generator().manual_seed(seed ^ self._seed),
            )
            for seed in image_seeds(images)
        ]
        return normalise(torch.stack(maps).to(images.device))
