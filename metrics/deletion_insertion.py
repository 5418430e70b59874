"""Deletion and insertion: how fast the probability falls and rises along the map's order."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from metrics._base import Measure, Perturbation, Values
from metrics._maps import Maps

BASELINES = ("black", "mean", "blur")
"""What stands for a pixel that is not there: 0; the image's mean colour; the blurred image."""

STEPS = 224
"""Steps of the curve in Petsiuk et al., one row of pixels a step."""

BLUR_SIDE, BLUR_SIGMA = 11, 5.0
"""The Gaussian blur of Petsiuk et al., in pixels."""

PAPER = "Petsiuk et al. 2018, BMVC, arXiv 1806.07421"


def _measure(name: str, baseline: str, higher_is_better: bool) -> Measure:
    return Measure(
        name=f"{name}_{baseline}",
        label=f"{name.capitalize()} ({baseline})",
        unit="% (area under the curve of the probability)",
        bounds=(0, 100),
        higher_is_better=higher_is_better,
        paper=PAPER,
    )


class DeletionInsertion(Perturbation):
    """Areas under the deletion and insertion curves, for one or more baselines.

    Deletion replaces the most relevant pixels by the baseline, step by step, until nothing of the
    image is left; insertion puts them into the baseline until the image is whole. The area is the
    trapezoidal mean of the explained class's probability over the steps. The paper deletes to zero
    after normalisation, which is the mean colour of ImageNet, and inserts into the blurred image;
    the mean here is the image's own.

    Args:
        deletion: baselines of deletion: black, mean, blur.
        insertion: baselines of insertion.
        steps: of equal numbers of pixels.

    Raises:
        ValueError: an unknown baseline, one twice, none, or no step.

    Example:
        >>> import torch
        >>> from metrics import build
        >>> settings = {"deletion": ["black"], "insertion": [], "steps": 2}
        >>> metric = build("deletion_insertion", settings)
        >>> before, after = torch.tensor([[0.8, 0.2]]), torch.tensor([[[0.4, 0.6], [0.0, 1.0]]])
        >>> [value] = metric.judge(before, after, torch.tensor([0]))
        >>> value.measure, round(float(value.per_image[0]), 3)
        ('deletion_black', 40.0)
    """

    measures = tuple(
        _measure(name, baseline, better)
        for name, better in (("deletion", False), ("insertion", True))
        for baseline in BASELINES
    )

    def __init__(
        self,
        deletion: Sequence[str] = BASELINES,
        insertion: Sequence[str] = BASELINES,
        steps: int = STEPS,
    ) -> None:
        for baseline in (*deletion, *insertion):
            if baseline not in BASELINES:
                raise ValueError(
                    f"unknown baseline {baseline!r} of deletion_insertion: expected one of "
                    f"{', '.join(BASELINES)}"
                )
        for chosen in (deletion, insertion):
            if len(set(chosen)) < len(chosen):
                raise ValueError(
                    f"baselines of deletion_insertion are {', '.join(chosen)}: expected each once"
                )
        if not (deletion or insertion) or steps < 1:
            raise ValueError(
                f"deletion_insertion has {len(deletion) + len(insertion)} baselines and {steps} "
                "steps: expected at least one of each"
            )
        self._deletion = tuple(deletion)
        self._insertion = tuple(insertion)
        self._steps = steps

    @property
    def versions(self) -> int:
        """One a step of each curve; the whole image is known."""
        return (len(self._deletion) + len(self._insertion)) * self._steps

    def perturb(self, pixels: Tensor, maps: Maps) -> Tensor:
        """See Perturbation: the curves one after the other, from few pixels to many."""
        counts = [maps.count(100 * i / self._steps) for i in range(self._steps + 1)]
        first = torch.stack([maps.ranks < count for count in counts], dim=1)[:, :, None]
        whole = pixels[:, None]
        deleted = [
            torch.where(first[:, 1:], _baseline(name, pixels)[:, None], whole)
            for name in self._deletion
        ]
        inserted = [
            torch.where(first[:, :-1], whole, _baseline(name, pixels)[:, None])
            for name in self._insertion
        ]
        return torch.cat(deleted + inserted, dim=1)

    def judge(self, before: Tensor, after: Tensor, targets: Tensor) -> list[Values]:
        """See Perturbation: areas in per cent, of each image."""
        rows = torch.arange(len(targets), device=targets.device)
        whole = before[rows, targets][:, None]
        curves = after[rows, :, targets].split(self._steps, dim=1)
        deletion, insertion = curves[: len(self._deletion)], curves[len(self._deletion) :]
        return [
            Values(f"deletion_{name}", None, area(torch.cat([whole, curve], dim=1)))
            for name, curve in zip(self._deletion, deletion, strict=True)
        ] + [
            Values(f"insertion_{name}", None, area(torch.cat([curve, whole], dim=1)))
            for name, curve in zip(self._insertion, insertion, strict=True)
        ]


def area(curve: Tensor) -> Tensor:
    """Area under curves (B, S + 1) of probabilities over S equal steps, in per cent, [0, 100]."""
    return 100 * torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)


def _baseline(name: str, pixels: Tensor) -> Tensor:
    """What an image (B, 3, H, W) is without any of its pixels."""
    if name == "black":
        return torch.zeros_like(pixels)
    if name == "mean":
        return pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)
    side = min(BLUR_SIDE, 2 * min(pixels.shape[-2:]) - 1)  # mirrored pixels are all there are
    blurred: Tensor = gaussian_blur(pixels, [side, side], [BLUR_SIGMA, BLUR_SIGMA])
    return blurred
