"""Localisation: does the map lie on the object?"""

import torch
from torch import Tensor

from metrics._base import Measure, Reading, Values
from metrics._maps import Maps, exact_device


class Localisation(Reading):
    """Pointing game, energy-based pointing game, and IoU at two thresholds of the map.

    With M the map at the size of the image and O the pixels of the object: whether the brightest
    pixel is in O; the sum of M in O as a share of its whole sum; and, of the pixels T where M is
    above a threshold, the size of T and O in common as a share of both joined, with the best
    threshold of the image, and with that which makes T as large as O.

    Args:
        tolerance: a hit of the pointing game may miss the object by so many pixels; Zhang et al.
            allow 15 for their boxes.

    Raises:
        ValueError: a negative tolerance.

    Example:
        >>> import torch
        >>> from metrics import Maps, build
        >>> maps = Maps(torch.tensor([[[1.0, 0.0], [0.0, 0.6]]]), (2, 2), seeds=[0])
        >>> objects = torch.tensor([[[True, True], [False, False]]])
        >>> found = build("localisation", {}).read(maps, objects)
        >>> {value.measure: round(float(value.per_image[0]), 1) for value in found[:2]}
        {'pointing_game': 100.0, 'energy_pointing_game': 62.5}
    """

    measures = (
        Measure(
            name="pointing_game",
            label="Pointing game",
            unit="% hits",
            bounds=(0, 100),
            higher_is_better=True,
            paper="Zhang et al. 2018, IJCV, arXiv 1608.00507",
        ),
        Measure(
            name="energy_pointing_game",
            label="Energy in object",
            unit="% of the map",
            bounds=(0, 100),
            higher_is_better=True,
            paper="Wang et al. 2020 (Score-CAM), arXiv 1910.01279",
        ),
        Measure(
            name="iou_best",
            label="IoU, best threshold",
            unit="%",
            bounds=(0, 100),
            higher_is_better=True,
            paper="Choe et al. 2020, arXiv 2001.07437; threshold of each image",
        ),
        Measure(
            name="iou_matched",
            label="IoU, matched area",
            unit="%",
            bounds=(0, 100),
            higher_is_better=True,
            paper="Arras et al. 2022 (relevance rank accuracy), arXiv 2003.07258; as IoU",
        ),
    )

    def __init__(self, tolerance: float = 0.0) -> None:
        if not tolerance >= 0:
            raise ValueError(f"tolerance of localisation is {tolerance}: expected 0 or more pixels")
        self._tolerance = tolerance

    def read(self, maps: Maps, objects: Tensor) -> list[Values]:
        """See Reading.

        Raises:
            ValueError: an image without an object.
        """
        empty = (~objects.flatten(1).any(dim=1)).nonzero()
        if len(empty):
            raise ValueError(
                f"image {int(empty[0])} of the batch has no object pixel: expected at least one, "
                "localisation needs a mask or box of every image"
            )
        return [
            Values("pointing_game", None, pointing_game(maps.ranks, objects, self._tolerance)),
            Values("energy_pointing_game", None, energy_pointing_game(maps.resized, objects)),
            Values("iou_best", None, iou_best(maps.resized, objects)),
            Values("iou_matched", None, iou_matched(maps.ranks, objects)),
        ]


def pointing_game(ranks: Tensor, objects: Tensor, tolerance: float = 0.0) -> Tensor:
    """100 where the pixel of rank 0 is at most `tolerance` pixels off the object, else 0; (B,)."""
    width = ranks.shape[-1]
    hits = []
    for best, there in zip(ranks.flatten(1).argmin(dim=1), objects, strict=True):
        at = torch.stack([best // width, best % width])
        distance = (there.nonzero() - at).square().sum(dim=1).amin()
        hits.append(distance <= tolerance**2)
    return 100.0 * torch.stack(hits).float()


def energy_pointing_game(maps: Tensor, objects: Tensor) -> Tensor:
    """The part of a map (B, H, W) that is inside the object, in per cent; 0 of a map of zeros."""
    exact, there = (tensor.to(exact_device(maps.device)) for tensor in (maps, objects))
    total = exact.sum(dim=(1, 2), dtype=torch.float64)
    inside = (exact * there).sum(dim=(1, 2), dtype=torch.float64)
    share = torch.where(total > 0, 100 * inside / total.clamp_min(1e-30), 0.0)
    return share.float().to(maps.device)


def iou_best(maps: Tensor, objects: Tensor) -> Tensor:
    """The largest IoU, in per cent, of {map >= threshold} and object over all thresholds.

    A map of one value has only the whole image to offer.
    """
    values, order = maps.flatten(1).sort(dim=1, descending=True)
    there = objects.flatten(1)
    inside = there.gather(1, order).cumsum(dim=1)
    taken = torch.arange(1, values.shape[1] + 1, device=maps.device)
    iou = inside / (taken + there.sum(dim=1, keepdim=True) - inside)
    last_of_its_value = torch.ones_like(there)
    last_of_its_value[:, :-1] = values[:, 1:] < values[:, :-1]
    return 100 * iou.where(last_of_its_value, 0.0).amax(dim=1)


def iou_matched(ranks: Tensor, objects: Tensor) -> Tensor:
    """The IoU, in per cent, of the object and as many of the most relevant pixels as it has."""
    area = objects.sum(dim=(1, 2))
    inside = ((ranks < area[:, None, None]) & objects).sum(dim=(1, 2))
    return 100 * inside / (2 * area - inside)
