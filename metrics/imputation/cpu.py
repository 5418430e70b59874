"""The solver of `metrics.imputation` for the CPU, compiled by numba: a problem a thread at a time.

Loops run over spans of unknown pixels only, so that a small hole costs little.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

_GAP = 16
"""Known pixels between two spans of a row; fewer become part of one span."""

_Array = NDArray[np.float32]
_Spans = NDArray[np.int64]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(parallel: bool = False) -> Callable[[_Function], _Function]:
    # No fast-math: with reordered sums, code just compiled and code from the cache differ by 2e-7.
    return cast("Callable[[_Function], _Function]", njit(cache=True, parallel=parallel))


class _Level(NamedTuple):
    """One grid of the hierarchy; the fields but `spans` have a border of zeros, one pixel wide.

    Attributes:
        mask: 1 at unknown pixels, else 0.
        matrix: (1, ...) d + 4 on the finest grid; (5, ...) on the others, the coefficients of the
            pixel itself and of its right, lower, lower right and lower left neighbours.
        relax: the factor of a Jacobi step, zero at known pixels.
        spans: rows (i, start, stop) that cover the unknown pixels; work is done only there.
        guess: the iterate before the coarse correction.
        result: the iterate after it.
        right: the right-hand side.
        residual: of `guess`.
    """

    mask: _Array
    matrix: _Array
    relax: _Array
    spans: _Spans
    guess: _Array
    result: _Array
    right: _Array
    residual: _Array


@_compiled()
def _find_spans(mask: _Array) -> _Spans:
    height, width = mask.shape[0] - 2, mask.shape[1] - 2
    spans = np.empty((height * (width // (_GAP + 1) + 1), 3), np.int64)
    n = 0
    for i in range(1, height + 1):
        start = stop = 0
        for j in range(1, width + 1):
            if mask[i, j] > 0:
                if start > 0 and j - stop >= _GAP:
                    spans[n] = (i, start, stop)
                    n += 1
                    start = 0
                if start == 0:
                    start = j
                stop = j + 1
        if start > 0:
            spans[n] = (i, start, stop)
            n += 1
    return spans[:n]


@_compiled()
def _span(spans: _Spans, k: int) -> tuple[int, int, int]:
    return spans[k, 0], spans[k, 1], spans[k, 2]


@_compiled()
def _finest_row(u: _Array, i: int, start: int, stop: int, matrix: _Array, rows: _Array) -> None:
    """Set rows[0] = (A u) in the span, on the finest grid."""
    n = stop - start
    above = u[i - 1, start - 1 : stop + 1]
    here = u[i, start - 1 : stop + 1]
    below = u[i + 1, start - 1 : stop + 1]
    product, column = rows[0], rows[1]
    for j in range(n + 2):
        column[j] = above[j] + (here[j] + here[j]) + below[j]
    diagonal, centre = matrix[0, i, start:stop], u[i, start:stop]
    left, middle, right = column[:n], column[1 : n + 1], column[2 : n + 2]
    for j in range(n):
        product[j] = diagonal[j] * centre[j] - ((left[j] + right[j]) + (middle[j] + middle[j]))


@_compiled()
def _coarse_row(u: _Array, i: int, start: int, stop: int, matrix: _Array, rows: _Array) -> None:
    """Set rows[0] = (A u) in the span, on a coarse grid."""
    right, below, below_right, below_left = matrix[1], matrix[2], matrix[3], matrix[4]
    product = rows[0]
    centre, east, west = matrix[0, i, start:stop], right[i, start:], right[i, start - 1 :]
    south, north = below[i, start:], below[i - 1, start:]
    south_east, north_west = below_right[i, start:], below_right[i - 1, start - 1 :]
    south_west, north_east = below_left[i, start:], below_left[i - 1, start + 1 :]
    a, b, c = u[i - 1, start - 1 :], u[i, start - 1 :], u[i + 1, start - 1 :]
    for j in range(stop - start):
        product[j] = (
            (north_west[j] * a[j] + north[j] * a[j + 1] + north_east[j] * a[j + 2])
            + (west[j] * b[j] + centre[j] * b[j + 1] + east[j] * b[j + 2])
            + (south_west[j] * c[j] + south[j] * c[j + 1] + south_east[j] * c[j + 2])
        )


@_compiled()
def _row(u: _Array, i: int, start: int, stop: int, matrix: _Array, rows: _Array) -> None:
    if matrix.shape[0] == 1:
        _finest_row(u, i, start, stop, matrix, rows)
    else:
        _coarse_row(u, i, start, stop, matrix, rows)


@_compiled()
def _find_residual(level: _Level, u: _Array, right: _Array, rows: _Array, out: _Array) -> None:
    """Set out = mask * (right - A u)."""
    for k in range(len(level.spans)):
        i, start, stop = _span(level.spans, k)
        _row(u, i, start, stop, level.matrix, rows)
        o, f, m = out[i, start:stop], right[i, start:stop], level.mask[i, start:stop]
        product = rows[0]
        for j in range(stop - start):
            o[j] = m[j] * (f[j] - product[j])


@_compiled()
def _smooth(level: _Level, rows: _Array) -> None:
    """Set result = guess + relax * (right - A guess)."""
    for k in range(len(level.spans)):
        i, start, stop = _span(level.spans, k)
        _row(level.guess, i, start, stop, level.matrix, rows)
        o, u = level.result[i, start:stop], level.guess[i, start:stop]
        f, relax = level.right[i, start:stop], level.relax[i, start:stop]
        product = rows[0]
        for j in range(stop - start):
            o[j] = u[j] + relax[j] * (f[j] - product[j])


@_compiled()
def _relax_zero(level: _Level, out: _Array) -> None:
    """Set out = relax * right: a Jacobi step from zero."""
    for k in range(len(level.spans)):
        i, start, stop = _span(level.spans, k)
        o, f, relax = out[i, start:stop], level.right[i, start:stop], level.relax[i, start:stop]
        for j in range(stop - start):
            o[j] = relax[j] * f[j]


@_compiled()
def _restrict(fine: _Level, coarse: _Level, rows: _Array) -> None:
    """Set coarse.right = P' fine.residual."""
    half = np.float32(0.5)
    height, width = fine.mask.shape[0] - 2, fine.mask.shape[1] - 2
    t = rows[0]
    for k in range(len(coarse.spans)):
        i, start, stop = _span(coarse.spans, k)
        # A last row or column between coarse ones takes its one coarse neighbour in full.
        last = np.float32(1.0) if 2 * i == height else half
        first, n = 2 * start - 2, 2 * (stop - start) + 1
        above = fine.residual[2 * i - 2, first:]
        here = fine.residual[2 * i - 1, first:]
        below = fine.residual[2 * i, first:]
        for j in range(n):
            t[j] = half * above[j] + here[j] + last * below[j]
        if first + n - 1 == width:
            t[n - 1] *= 2
        f, m = coarse.right[i, start:stop], coarse.mask[i, start:stop]
        for j in range(stop - start):
            f[j] = m[j] * (half * t[2 * j] + t[2 * j + 1] + half * t[2 * j + 2])


@_compiled()
def _prolong(u: _Array, fine: _Level, keep: np.float32, rows: _Array) -> None:
    """Set fine.guess = keep * fine.guess + P u."""
    half = np.float32(0.5)
    height, width = u.shape[0] - 2, u.shape[1] - 2
    column, wide = rows[0], rows[1]
    for k in range(len(fine.spans)):
        i, start, stop = _span(fine.spans, k)
        above = (i + 1) // 2
        below = above if i % 2 == 1 or above == height else above + 1
        first, last = (start + 1) // 2, (stop - 1) // 2 + 1
        n = last - first + 1
        a, b = u[above, first:], u[below, first:]
        for j in range(n):
            column[j] = half * (a[j] + b[j])
        column[n] = column[n - 1]
        if last > width:
            column[n - 1] = column[n - 2]
        for j in range(n):
            wide[2 * j] = column[j]
            wide[2 * j + 1] = half * (column[j] + column[j + 1])
        shifted = wide[start + 1 - 2 * first :]
        o, m = fine.guess[i, start:stop], fine.mask[i, start:stop]
        for j in range(stop - start):
            o[j] = keep * o[j] + m[j] * shifted[j]


@_compiled()
def _find_coarse_matrix(fine: _Level, coarse: _Level, rows: _Array) -> None:
    """Set coarse.matrix = P' A P, read off its products with nine combs of every third pixel."""
    zeros = np.zeros_like(fine.mask)
    combs = coarse.guess
    for a in range(3):
        for b in range(3):
            for k in range(len(coarse.spans)):
                i, start, stop = _span(coarse.spans, k)
                for j in range(start, stop):
                    combs[i, j] = coarse.mask[i, j] if i % 3 == a and j % 3 == b else 0.0
            _prolong(combs, fine, np.float32(0.0), rows)
            _find_residual(fine, fine.guess, zeros, rows, fine.residual)
            _restrict(fine, coarse, rows)
            for k in range(len(coarse.spans)):
                i, start, stop = _span(coarse.spans, k)
                down = (a - i) % 3
                for j in range(start, stop):
                    across = (b - j) % 3
                    # 0: the pixel itself, 1: right, 3..5: lower, lower right, lower left.
                    if down == 1:
                        coarse.matrix[2 + across, i, j] = -coarse.right[i, j]
                    elif down == 0 and across < 2:
                        coarse.matrix[across, i, j] = -coarse.right[i, j]


@_compiled()
def _empty_level(mask: _Array, coefficients: int) -> _Level:
    return _Level(
        mask,
        np.zeros((coefficients, *mask.shape), np.float32),
        np.zeros_like(mask),
        _find_spans(mask),
        np.zeros_like(mask),
        np.zeros_like(mask),
        np.zeros_like(mask),
        np.zeros_like(mask),
    )


@_compiled()
def _set_relax(level: _Level, excess: np.float32) -> None:
    """The Jacobi factor; one row of pixels has a wider spectrum and is damped, one pixel exact."""
    height, width = level.mask.shape[0] - 2, level.mask.shape[1] - 2
    damping = 2 / 3 if (height == 1) != (width == 1) else 1.0
    for k in range(len(level.spans)):
        i, start, stop = _span(level.spans, k)
        for j in range(start, stop):
            diagonal = level.matrix[0, i, j] - excess
            if level.mask[i, j] > 0 and diagonal > 0:
                level.relax[i, j] = damping / diagonal


@_compiled()
def _finest_level(removed: NDArray[np.bool_]) -> _Level:
    height, width = removed.shape
    mask = np.zeros((height + 2, width + 2), np.float32)
    for i in range(height):
        for j in range(width):
            mask[i + 1, j + 1] = 1.0 if removed[i, j] else 0.0
    level = _empty_level(mask, 1)
    for i in range(height):
        rows = 4 - (i == 0) - (i == height - 1)
        for j in range(width):
            level.matrix[0, i + 1, j + 1] = rows * (4 - (j == 0) - (j == width - 1))
    _set_relax(level, np.float32(4.0))
    return level


@_compiled()
def _hierarchy(removed: NDArray[np.bool_], rows: _Array) -> list[_Level]:
    levels = [_finest_level(removed)]
    height, width = removed.shape
    while height > 1 or width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
        mask = np.zeros((height + 2, width + 2), np.float32)
        finer = levels[-1].mask
        for i in range(1, height + 1):
            for j in range(1, width + 1):
                mask[i, j] = finer[2 * i - 1, 2 * j - 1]
        level = _empty_level(mask, 5)
        if len(level.spans) == 0:
            break
        _find_coarse_matrix(levels[-1], level, rows)
        _set_relax(level, np.float32(0.0))
        levels.append(level)
    return levels


@_compiled()
def _cycle(levels: list[_Level], rows: _Array) -> None:
    """Set levels[0].result to an approximate solution for levels[0].right."""
    last = len(levels) - 1
    for depth in range(last):
        level = levels[depth]
        _relax_zero(level, level.guess)
        _find_residual(level, level.guess, level.right, rows, level.residual)
        _restrict(level, levels[depth + 1], rows)
    _relax_zero(levels[last], levels[last].result)
    for depth in range(last - 1, -1, -1):
        _prolong(levels[depth + 1].result, levels[depth], np.float32(1.0), rows)
        _smooth(levels[depth], rows)


@_compiled()
def _two_products(a: _Array, b: _Array, c: _Array, spans: _Spans) -> tuple[float, float]:
    """The scalar products (a, b) and (a, c)."""
    ab = ac = 0.0
    for k in range(len(spans)):
        i, start, stop = _span(spans, k)
        x, y, z = a[i, start:stop], b[i, start:stop], c[i, start:stop]
        for j in range(stop - start):
            ab += np.float64(x[j] * y[j])
            ac += np.float64(x[j] * z[j])
    return ab, ac


@_compiled()
def _turn(z: _Array, beta: np.float32, p: _Array, spans: _Spans) -> None:
    """Set p = z + beta p."""
    for k in range(len(spans)):
        i, start, stop = _span(spans, k)
        a, b = z[i, start:stop], p[i, start:stop]
        for j in range(stop - start):
            b[j] = a[j] + beta * b[j]


@_compiled()
def _advance(
    u: _Array, r: _Array, alpha: np.float32, p: _Array, q: _Array, spans: _Spans
) -> np.float32:
    """Add alpha p to u and alpha q to r; the largest change of u."""
    largest = np.float32(0.0)
    for k in range(len(spans)):
        i, start, stop = _span(spans, k)
        a, b, c, d = u[i, start:stop], r[i, start:stop], p[i, start:stop], q[i, start:stop]
        for j in range(stop - start):
            step = alpha * c[j]
            a[j] += step
            b[j] += alpha * d[j]
            largest = max(largest, abs(step))
    return largest


@_compiled()
def _solve(
    levels: list[_Level], u: _Array, rows: _Array, tolerance: np.float32, max_steps: int
) -> bool:
    """Adds to u the solution for levels[0].right, which becomes its residual.

    Returns:
        whether the last step was smaller than the tolerance.
    """
    level = levels[0]
    r, z, spans = level.right, level.result, level.spans
    p, q, zeros = np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
    beta = 0.0
    for step in range(max_steps):
        _cycle(levels, rows)
        if step > 0:
            qz, qp = _two_products(q, z, p, spans)
            beta = -qz / qp
        _turn(z, np.float32(beta), p, spans)
        _find_residual(level, p, zeros, rows, q)  # q = -A p
        pr, pq = _two_products(p, r, q, spans)
        if not pq < 0:
            return pr == 0
        if _advance(u, r, np.float32(-pr / pq), p, q, spans) < tolerance:
            return True
    return False


@_compiled()
def _known_mean(channel: _Array, removed: NDArray[np.bool_]) -> np.float32:
    total, known = 0.0, 0
    height, width = removed.shape
    for i in range(height):
        for j in range(width):
            if not removed[i, j]:
                total += channel[i, j]
                known += 1
    return np.float32(total / known)


@_compiled()
def _impute_one(
    image: _Array,
    removed: NDArray[np.bool_],
    out: _Array,
    tolerance: np.float32,
    max_steps: int,
) -> bool:
    """One image (3, H, W) with one mask (H, W) into out (3, H, W); whether it converged."""
    out[:] = image
    if removed.all():
        return True
    height, width = removed.shape
    rows = np.empty((2, width + 8), np.float32)
    levels = _hierarchy(removed, rows)
    level = levels[0]
    for c in range(3):
        mean = _known_mean(image[c], removed)
        u = np.zeros_like(level.mask)
        for i in range(height):
            for j in range(width):
                if not removed[i, j]:
                    u[i + 1, j + 1] = image[c, i, j] - mean
        _find_residual(level, u, np.zeros_like(u), rows, level.right)
        u[:] = 0
        if not _solve(levels, u, rows, tolerance, max_steps):
            return False
        for k in range(len(level.spans)):
            i, start, stop = _span(level.spans, k)
            for j in range(start, stop):
                if removed[i - 1, j - 1]:
                    out[c, i - 1, j - 1] = u[i, j] + mean
    return True


@_compiled(parallel=True)
def solve(
    images: _Array,
    removed: NDArray[np.bool_],
    out: _Array,
    converged: NDArray[np.bool_],
    tolerance: np.float32,
    max_steps: int,
) -> None:
    """Impute images (B, 3, H, W) with masks (B, M, H, W) into out (B, M, 3, H, W).

    Sets converged (B, M), bool, to whether each did within `max_steps`. A mask without any known
    pixel is not for this function.
    """
    masks = removed.shape[1]
    for k in prange(removed.shape[0] * masks):
        b, m = k // masks, k % masks
        converged[b, m] = _impute_one(images[b], removed[b, m], out[b, m], tolerance, max_steps)
