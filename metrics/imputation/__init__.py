"""Linear imputation of removed pixels, the deterministic part of ROAD.

Every removed pixel is the weighted mean of its eight neighbours, 1/6 for the direct and 1/12 for
the diagonal ones; a neighbour outside the image is left out of the mean (Rong et al. 2022, ICML,
arXiv 2202.00449). Times 12 the weights are the integers 2 and 1, exact in float32, and with S the
convolution with [1, 2, 1] x [1, 2, 1] and d the sum of the weights inside the image the system is

    A u = (d + 4) u - S u = 0 at the removed pixels,    u = image at the known ones,

symmetric and positive definite in the removed pixels as soon as one pixel is known. The mean of
the known pixels is subtracted first, which keeps float32 rounding small.

It is solved by flexible conjugate gradients, preconditioned by one multigrid V(1,1) cycle: Jacobi
smoothing, which damps the fast half of this stencil's spectrum to a third; bilinear interpolation
P that is zero at known pixels; coarse operators P' A P of nine coefficients a pixel. Coarse
pixels are every second one in both directions, down to a single one; those that fall on a known
pixel are no unknowns. An image with one mask is one problem; its three channels share the coarse
operators. Iteration ends when the last step moved no pixel by more than `_TOLERANCE`: a step with
a good preconditioner is an estimate of the error before it. What has not ended after `_MAX_STEPS`
is solved by elimination.

`cpu` and `batched` are two forms of this solver: loops over spans of unknown pixels, a problem a
thread; and tensor operations over all problems at once, for GPUs.
"""

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.imputation import batched, cpu

_TOLERANCE = 3e-5
_MAX_STEPS = 60
_GREY = 0.5

_Array = NDArray[np.float32]


def _impute_directly(image: _Array, removed: NDArray[np.bool_]) -> _Array:
    """What the solvers do, by sparse elimination in float64: slower, and sure to end."""
    from scipy.sparse import csc_matrix  # hardly ever needed, and slow to import
    from scipy.sparse.linalg import spsolve

    height, width = removed.shape
    unknowns = np.flatnonzero(removed)
    number = np.full(removed.size, -1)
    number[unknowns] = np.arange(len(unknowns))
    row, column = np.divmod(unknowns, width)
    values = image.reshape(3, -1).astype(np.float64)
    diagonal, right = np.zeros(len(unknowns)), np.zeros((len(unknowns), 3))
    entries = []
    for dy, dx in ((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)):
        weight = 1.0 if dy and dx else 2.0
        y, x = row + dy, column + dx
        at = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        there = y[at] * width + x[at]
        unknown = number[there] >= 0
        diagonal[at] += weight
        right[at[~unknown]] += weight * values[:, there[~unknown]].T
        entries.append((at[unknown], number[there[unknown]], np.full(unknown.sum(), -weight)))
    entries.append((number[unknowns], number[unknowns], diagonal))
    rows, columns, weights = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = csc_matrix((weights, (rows, columns)), shape=(len(unknowns), len(unknowns)))
    values[:, unknowns] = spsolve(matrix, right).T
    return values.reshape(image.shape).astype(np.float32)


def _check(images: Tensor, removed: Tensor) -> None:
    if images.dtype != torch.float32:
        raise ValueError(f"images have dtype {images.dtype}: expected torch.float32")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (B, 3, H, W)")
    if removed.dtype != torch.bool:
        raise ValueError(f"removed has dtype {removed.dtype}: expected torch.bool")
    batch, _, height, width = images.shape
    if removed.ndim != 4 or (len(removed), *removed.shape[2:]) != (batch, height, width):
        raise ValueError(
            f"removed has shape {tuple(removed.shape)}: expected ({batch}, M, {height}, {width})"
        )

    if images.numel() == 0:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images range from {low} to {high}: expected finite values in [0, 1]")


def impute(images: Tensor, removed: Tensor) -> Tensor:
    """Images with their removed pixels replaced by weighted means of the neighbours.

    The noisy linear imputation of ROAD (Rong et al. 2022, ICML, arXiv 2202.00449, section 4.2)
    without the noise. The result of one image and mask does not depend on the others or on the
    number of threads. It differs from the exact solution by less than 1e-3 anywhere and 1e-4 on
    average; known pixels come back as they are. On a CPU the work is shared by all cores, on a
    GPU it is one batched solve.

    Args:
        images: (B, 3, H, W), float32 in [0, 1].
        removed: (B, M, H, W), bool, M masks an image, True where a pixel is to be imputed. With
            all pixels of a mask removed the system has no solution of its own: every pixel and
            channel becomes 0.5, mid-grey.

    Returns:
        (B, M, 3, H, W), float32, on the device of `images`.

    Raises:
        ValueError: a wrong dtype, shapes that do not fit, or values outside [0, 1].
    """
    _check(images, removed)
    solve = _solve_on_cpu if images.device.type == "cpu" else _solve_in_batches
    out, converged = solve(images.detach().contiguous(), removed.to(images.device).contiguous())
    nothing_known = removed.flatten(2).all(dim=2).to(images.device)
    out[nothing_known] = _GREY
    for b, m in (~converged & ~nothing_known).nonzero().tolist():
        direct = _impute_directly(images[b].cpu().numpy(), removed[b, m].cpu().numpy())
        out[b, m] = torch.from_numpy(direct).to(images.device)
    return out


def _solve_on_cpu(images: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """The imputed images (B, M, 3, H, W), and which of them (B, M) converged."""
    out = torch.empty(*removed.shape[:2], *images.shape[1:])
    converged = torch.empty(removed.shape[:2], dtype=torch.bool)
    threads = torch.get_num_threads()
    most: Any = numba.config
    numba.set_num_threads(min(threads, most.NUMBA_NUM_THREADS))
    cpu.solve(
        images.numpy(),
        removed.numpy(),
        out.numpy(),
        converged.numpy(),
        np.float32(_TOLERANCE),
        _MAX_STEPS,
    )
    torch.set_num_threads(threads)  # numba sets it, as both have one OpenMP: torch would round anew
    return out, converged


def _solve_in_batches(images: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """The same on any device, by torch."""
    return batched.solve(images, removed, _TOLERANCE, _MAX_STEPS)
