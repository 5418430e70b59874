"""Complexity: on how few pixels does a map stand?"""

import math

import torch
from torch import Tensor

from metrics._base import Measure, Reading, Values
from metrics._maps import Maps, exact_device


class Complexity(Reading):
    """Gini sparseness and entropy of the map at the size of the image.

    Of the values in ascending order, as shares s_1 ... s_n of their sum: the Gini index is
    1 - 2 sum_k s_k (n - k + 1/2) / n, the entropy - sum_k s_k ln s_k in per cent of ln n.

    A map of zeros spreads over all pixels alike.

    Example:
        >>> import torch
        >>> from metrics import Maps, build
        >>> maps = Maps(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), (2, 2), seeds=[0])
        >>> gini, entropy = build("complexity", {}).read(maps, torch.ones(1, 2, 2) > 0)
        >>> float(gini.per_image[0]), float(entropy.per_image[0])
        (0.5, 50.0)
    """

    measures = (
        Measure(
            name="gini",
            label="Gini sparseness",
            unit="1",
            bounds=(0, 1),
            higher_is_better=True,
            paper="Chalasani et al. 2020, ICML, arXiv 1810.06583; Hurley and Rickard 2009",
        ),
        Measure(
            name="entropy",
            label="Entropy",
            unit="% of a uniform map's",
            bounds=(0, 100),
            higher_is_better=False,
            paper="Bhatt et al. 2020, IJCAI, arXiv 2005.00631",
        ),
    )

    def read(self, maps: Maps, objects: Tensor) -> list[Values]:
        """See Reading."""
        return [
            Values("gini", None, gini(maps.ascending)),
            Values("entropy", None, entropy(maps.resized)),
        ]


def gini(ascending: Tensor) -> Tensor:
    """Gini index of values (B, n), at least 0, sorted: 0 if all are equal, 1 - 1/n if one is all.

    1 - 2 sum_k c_k / |c| (n - k + 1/2) / n.
    """
    values = ascending.to(exact_device(ascending.device)).double()
    n = values.shape[1]
    ranks = torch.arange(1, n + 1, device=values.device, dtype=torch.float64)
    weights = (n - ranks + 0.5) / n
    total = values.sum(dim=1)
    index = 1 - 2 * (values @ weights) / total
    return index.where(total > 0, 0.0).float().to(ascending.device)


def entropy(maps: Tensor) -> Tensor:
    """Shannon entropy of non-negative maps (B, H, W) as shares of their sum, 100 for ln(HW)."""
    values = maps.flatten(1).to(exact_device(maps.device)).double()
    values = torch.where((values.sum(dim=1) > 0)[:, None], values, 1.0)
    shares = values / values.sum(dim=1, keepdim=True)
    nats = -torch.special.xlogy(shares, shares).sum(dim=1)
    uniform = math.log(shares.shape[1])
    percent: Tensor = 100 * nats / uniform
    return percent.float().to(maps.device)
