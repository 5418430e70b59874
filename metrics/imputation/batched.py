"""The solver of `metrics.imputation` in torch: all problems and channels as one batch, for GPUs.

Tensors are (P, C, h, w): P problems, each an image with a mask; C is 3 for the channels, 1 for
what they share, 9 for the combs that the coarse operators are read off.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics._maps import exact_device

_PROBLEMS = 128
"""Problems solved at a time, of about 20 MB each at 224 x 224 pixels."""


class _Level(NamedTuple):
    """One grid of the hierarchy.

    Attributes:
        mask: 1 at unknown pixels, else 0.
        matrix: (P, 1, h, w) each: d + 4 on the finest grid; on the others the coefficients of the
            pixel itself and of its right, lower, lower right and lower left neighbours.
        relax: the factor of a Jacobi step, zero at known pixels.
    """

    mask: Tensor
    matrix: list[Tensor]
    relax: Tensor


def solve(
    images: Tensor, removed: Tensor, tolerance: float, max_steps: int
) -> tuple[Tensor, Tensor]:
    """Impute images (B, 3, H, W) with masks (B, M, H, W), bool.

    Returns:
        (B, M, 3, H, W), and which of them (B, M) converged within `max_steps`; without any known
        pixel the result has no meaning.
    """
    masks = removed.flatten(0, 1)[:, None]
    repeated = images[:, None].expand(-1, removed.shape[1], -1, -1, -1).flatten(0, 1)
    parts = [
        _solve(p, m, tolerance, max_steps)
        for p, m in zip(repeated.split(_PROBLEMS), masks.split(_PROBLEMS), strict=True)
    ]
    out, converged = (torch.cat(part) for part in zip(*parts, strict=True))
    return out.unflatten(0, removed.shape[:2]), converged.unflatten(0, removed.shape[:2])


def _solve(
    images: Tensor, removed: Tensor, tolerance: float, max_steps: int
) -> tuple[Tensor, Tensor]:
    """The same for problems (P, 3, H, W) and (P, 1, H, W)."""
    known = (~removed).float()
    count = known.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = (images * known).sum(dim=(2, 3), keepdim=True) / count
    levels = _hierarchy(removed)
    r = _residual(levels[0], (images - mean) * known, torch.zeros_like(images))
    u, p, q = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r)
    active = torch.ones(*r.shape[:2], 1, 1, dtype=torch.bool, device=r.device)
    for _ in range(max_steps):
        z = _cycle(levels, 0, r)
        qp = _product(q, p)
        p = z - torch.where(qp < 0, _product(q, z) / qp, 0.0) * p
        q = _residual(levels[0], p, torch.zeros_like(p))
        pr, pq = _product(p, r), _product(p, q)
        alpha = torch.where(active & (pq < 0), -pr / pq, 0.0)
        u += alpha * p
        r += alpha * q
        # A step of zero is the end as well: no curvature is left along it.
        active &= (alpha * p).abs().amax(dim=(2, 3), keepdim=True) >= tolerance
        if not bool(active.any()):
            break
    return torch.where(removed, u + mean, images), ~active.flatten(1).any(dim=1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products (P, C, 1, 1), summed in double precision."""
    product = (a * b).to(exact_device(a.device))
    return product.sum(dim=(2, 3), keepdim=True, dtype=torch.float64).float().to(a.device)


def _residual(level: _Level, u: Tensor, right: Tensor) -> Tensor:
    """Mask * (right - A u)."""
    return level.mask * (right - _apply(level.matrix, u))


def _apply(matrix: list[Tensor], u: Tensor) -> Tensor:
    """A u."""
    padded = F.pad(u, (1, 1, 1, 1))
    if len(matrix) == 1:
        column = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
        around = column[..., :-2] + 2 * column[..., 1:-1] + column[..., 2:]
        return matrix[0] * u - around
    height, width = u.shape[2:]
    product = matrix[0] * u
    for coefficient, (down, across) in zip(matrix[1:], _NEIGHBOURS, strict=True):
        product += coefficient * _shifted(padded, down, across, height, width)
        mirrored = _shifted(F.pad(coefficient, (1, 1, 1, 1)), -down, -across, height, width)
        product += mirrored * _shifted(padded, -down, -across, height, width)
    return product


_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Right, lower, lower right, lower left; the others follow from symmetry."""


def _shifted(padded: Tensor, down: int, across: int, height: int, width: int) -> Tensor:
    return padded[..., 1 + down : 1 + down + height, 1 + across : 1 + across + width]


def _prolong(u: Tensor, size: torch.Size) -> Tensor:
    """P u without the mask: bilinear from every second pixel to a grid of `size`."""
    for dim, side in ((-2, size[-2]), (-1, size[-1])):
        after = torch.cat([u.narrow(dim, 1, u.shape[dim] - 1), u.narrow(dim, -1, 1)], dim)
        both = torch.stack([u, (u + after) / 2], dim=dim if dim == -1 else -2)
        u = both.flatten(-2 if dim == -1 else -3, dim if dim == -1 else -2).narrow(dim, 0, side)
    return u


def _restrict(f: Tensor) -> Tensor:
    """P' f without the mask."""
    for dim in (-2, -1):
        even = f[..., ::2, :] if dim == -2 else f[..., ::2]
        odd = f[..., 1::2, :] if dim == -2 else f[..., 1::2]
        count, halves = even.shape[dim], odd / 2
        total = even.clone()
        total.narrow(dim, 0, odd.shape[dim]).add_(halves)
        total.narrow(dim, 1, count - 1).add_(halves.narrow(dim, 0, count - 1))
        if odd.shape[dim] == count:  # the last pixel has one coarse neighbour, which gets all
            total.narrow(dim, count - 1, 1).add_(halves.narrow(dim, count - 1, 1))
        f = total
    return f


def _hierarchy(removed: Tensor) -> list[_Level]:
    """The levels for masks (P, 1, H, W), down to a single pixel."""
    height, width = removed.shape[2:]
    mask = removed.float()
    inside = torch.ones(1, 1, height, width, device=mask.device)
    neighbours = -_apply([torch.zeros_like(inside)], inside)  # d + 4
    levels = [_level(mask, [neighbours], neighbours - 4)]
    while mask.shape[2] > 1 or mask.shape[3] > 1:
        coarse = mask[..., ::2, ::2]
        matrix = _coarse_matrix(levels[-1], coarse)
        levels.append(_level(coarse, matrix, matrix[0]))
        mask = coarse
    return levels


def _level(mask: Tensor, matrix: list[Tensor], diagonal: Tensor) -> _Level:
    # One row of pixels has a wider spectrum and is damped; one pixel is solved exactly.
    damping = 2 / 3 if (mask.shape[2] == 1) != (mask.shape[3] == 1) else 1.0
    relax = torch.where((mask > 0) & (diagonal > 0), damping / diagonal, 0.0)
    return _Level(mask, matrix, relax)


def _coarse_matrix(fine: _Level, mask: Tensor) -> list[Tensor]:
    """P' A P on the coarse grid of `mask`, read off its products with nine combs."""
    rows, columns = (torch.arange(n, device=mask.device) % 3 for n in mask.shape[2:])
    own = 3 * rows[:, None] + columns
    combs = mask * (own == torch.arange(9, device=mask.device).view(1, 9, 1, 1))
    spread = fine.mask * _prolong(combs, fine.mask.shape)
    products = mask * _restrict(fine.mask * _apply(fine.matrix, spread))

    def from_comb(down: int, across: int) -> Tensor:
        comb = 3 * ((rows[:, None] + down) % 3) + (columns + across) % 3
        return products.gather(1, comb.expand(len(mask), 1, -1, -1))

    return [from_comb(0, 0), *(from_comb(*neighbour) for neighbour in _NEIGHBOURS)]


def _cycle(levels: list[_Level], depth: int, right: Tensor) -> Tensor:
    """An approximate solution of A u = right on a level: one V(1, 1) cycle."""
    level = levels[depth]
    guess = level.relax * right
    if depth + 1 == len(levels):
        return guess
    coarse = levels[depth + 1]
    rest = coarse.mask * _restrict(_residual(level, guess, right))
    guess = guess + level.mask * _prolong(_cycle(levels, depth + 1, rest), guess.shape)
    return guess + level.relax * (right - _apply(level.matrix, guess))
