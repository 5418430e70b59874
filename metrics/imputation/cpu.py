"""The solver of `metrics.imputation` for the CPU, compiled by numba: a problem a thread at a time.

A grid is a flat array: its rows one after the other, with a border of zeros, one pixel wide. Loops
cover spans of unknown pixels, with the short gaps between them, so that a small hole costs little.
Each loop touches few arrays, and sums are added up column by column, so that all compile to vector
instructions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

_GAP = 32
"""Known pixels between two spans of a row; fewer become part of one span."""

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_FOUR = np.float32(4.0)

_Array = NDArray[np.float32]
_Spans = NDArray[np.int64]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(
    parallel: bool = False, forceinline: bool = False
) -> Callable[[_Function], _Function]:
    # No fast-math: with reordered sums, code just compiled and code from the cache differ by 2e-7.
    return cast(
        "Callable[[_Function], _Function]",
        njit(cache=True, parallel=parallel, forceinline=forceinline),
    )


class _Level(NamedTuple):
    """One grid of the hierarchy, of n numbers with its border.

    Attributes:
        height: rows without the border.
        width: columns without the border.
        mask: (n,) 1 at unknown pixels, else 0.
        matrix: (1, n) d + 4 on the finest grid; (5, n) on the others, the coefficients of the
            pixel itself and of its right, lower, lower right and lower left neighbours.
        relax: (n,) the factor of a Jacobi step, zero at known pixels.
        spans: rows (i, start, stop) that cover the unknown pixels; work is done only there.
        guess: (n,) the iterate before the coarse correction.
        result: (n,) the iterate after it.
        right: (n,) the right-hand side; outside the spans anything.
        residual: (n,) of `guess`.
    """

    height: int
    width: int
    mask: _Array
    matrix: _Array
    relax: _Array
    spans: _Spans
    guess: _Array
    result: _Array
    right: _Array
    residual: _Array


@_compiled()
def _find_spans(mask: _Array, height: int, width: int) -> _Spans:
    spans = np.empty((height * (width // (_GAP + 1) + 1), 3), np.int64)
    n = 0
    for i in range(1, height + 1):
        start = stop = 0
        row = mask[i * (width + 2) : (i + 1) * (width + 2)]
        for j in range(1, width + 1):
            if row[j] > 0:
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


@_compiled(forceinline=True)
def _span(level: _Level, k: int) -> tuple[int, int]:
    """Where the k-th span begins, and its length."""
    i, start, stop = level.spans[k, 0], level.spans[k, 1], level.spans[k, 2]
    return i * (level.width + 2) + start, stop - start


@_compiled(forceinline=True)
def _multiply_finest(level: _Level, u: _Array, at: int, n: int, rows: _Array) -> None:
    """Set rows[0] = (A u) in the n pixels from `at`, on the finest grid."""
    stride = level.width + 2
    above, here = u[at - stride - 1 : at - stride + n + 1], u[at - 1 : at + n + 1]
    below, diagonal = u[at + stride - 1 : at + stride + n + 1], level.matrix[0, at : at + n]
    product, column = rows[0], rows[1]
    for j in range(n + 2):
        column[j] = above[j] + (here[j] + here[j]) + below[j]
    for j in range(n):
        around = (column[j] + column[j + 2]) + (column[j + 1] + column[j + 1])
        product[j] = diagonal[j] * here[j + 1] - around


@_compiled(forceinline=True)
def _multiply_coarse(level: _Level, u: _Array, at: int, n: int, rows: _Array) -> None:
    """Set rows[0] = (A u) in the n pixels from `at`, on a coarse grid: a stencil's row a loop."""
    stride = level.width + 2
    up, down = at - stride, at + stride
    own, right, below = level.matrix[0], level.matrix[1], level.matrix[2]
    below_right, below_left = level.matrix[3], level.matrix[4]
    product = rows[0]
    x, west, centre = u[at - 1 : at + n + 1], right[at - 1 : at + n], own[at : at + n]
    for j in range(n):
        product[j] = west[j] * x[j] + centre[j] * x[j + 1] + west[j + 1] * x[j + 2]
    x, a, b, c = u[up - 1 : up + n + 1], below_right[up - 1 :], below[up:], below_left[up + 1 :]
    for j in range(n):
        product[j] += a[j] * x[j] + b[j] * x[j + 1] + c[j] * x[j + 2]
    x, a, b, c = u[down - 1 : down + n + 1], below_left[at:], below[at:], below_right[at:]
    for j in range(n):
        product[j] += a[j] * x[j] + b[j] * x[j + 1] + c[j] * x[j + 2]


@_compiled(forceinline=True)
def _multiply(level: _Level, u: _Array, at: int, n: int, rows: _Array) -> None:
    """Set rows[0] = (A u) in the n pixels from `at`."""
    if len(level.matrix) == 1:
        _multiply_finest(level, u, at, n, rows)
    else:
        _multiply_coarse(level, u, at, n, rows)


@_compiled()
def _find_residual(level: _Level, rows: _Array) -> None:
    """Set residual = mask * (right - A guess)."""
    product = rows[0]
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        m = level.mask[at : at + n]
        _multiply(level, level.guess, at, n, rows)
        o, f = level.residual[at : at + n], level.right[at : at + n]
        for j in range(n):
            o[j] = m[j] * (f[j] - product[j])


@_compiled()
def _smooth(level: _Level, rows: _Array) -> None:
    """Set result = guess + relax * (right - A guess)."""
    product = rows[0]
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        relax = level.relax[at : at + n]
        _multiply(level, level.guess, at, n, rows)
        o, u = level.result[at : at + n], level.guess[at : at + n]
        f = level.right[at : at + n]
        for j in range(n):
            o[j] = u[j] + relax[j] * (f[j] - product[j])


@_compiled()
def _relax_zero(level: _Level) -> None:
    """Set guess = relax * right: a Jacobi step from zero."""
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        relax = level.relax[at : at + n]
        o, f = level.guess[at : at + n], level.right[at : at + n]
        for j in range(n):
            o[j] = relax[j] * f[j]


@_compiled()
def _restrict(fine: _Level, coarse: _Level, rows: _Array) -> None:
    """Set coarse.right = mask * P' fine.residual, and coarse.guess by a Jacobi step from zero."""
    t, stride = rows[0], fine.width + 2
    for k in range(len(coarse.spans)):
        i, start, stop = coarse.spans[k, 0], coarse.spans[k, 1], coarse.spans[k, 2]
        at, n = _span(coarse, k)
        # A last row or column between coarse ones takes its one coarse neighbour in full.
        weight_below = _ONE if 2 * i == fine.height else _HALF
        first = (2 * i - 2) * stride + 2 * start - 2
        m, relax = coarse.mask[at : at + n], coarse.relax[at : at + n]
        residual = fine.residual
        above, here = residual[first:], residual[first + stride :]
        below = residual[first + 2 * stride :]
        for j in range(2 * n + 1):
            t[j] = _HALF * above[j] + here[j] + weight_below * below[j]
        if 2 * stop - 2 == fine.width:
            t[2 * n] += t[2 * n]
        f, guess = coarse.right[at : at + n], coarse.guess[at : at + n]
        for j in range(n):
            f[j] = m[j] * (_HALF * t[2 * j] + t[2 * j + 1] + _HALF * t[2 * j + 2])
        for j in range(n):
            guess[j] = relax[j] * f[j]


@_compiled()
def _prolong(coarse: _Level, fine: _Level, rows: _Array) -> None:
    """Add P coarse.result to fine.guess."""
    column, wide, stride = rows[0], rows[1], coarse.width + 2
    for k in range(len(fine.spans)):
        i, start, stop = fine.spans[k, 0], fine.spans[k, 1], fine.spans[k, 2]
        at, n = _span(fine, k)
        above = (i + 1) // 2
        below = above if i % 2 == 1 or above == coarse.height else above + 1
        first, last = (start + 1) // 2, (stop - 1) // 2 + 1
        count = last - first + 1
        m = fine.mask[at : at + n]
        u = coarse.result
        a, b = u[above * stride + first :], u[below * stride + first :]
        for j in range(count):
            column[j] = _HALF * (a[j] + b[j])
        column[count] = column[count - 1]  # read, but not used
        if last > coarse.width:
            column[count - 1] = column[count - 2]
        for j in range(count):
            wide[2 * j] = column[j]
            wide[2 * j + 1] = _HALF * (column[j] + column[j + 1])
        shifted, o = wide[start + 1 - 2 * first :], fine.guess[at : at + n]
        for j in range(n):
            o[j] += m[j] * shifted[j]


@_compiled()
def _finest_matrix(level: _Level) -> _Array:
    """The five coefficients (5, n) of A between unknown pixels of the finest grid."""
    mask, diagonal, stride = level.mask, level.matrix[0], level.width + 2
    out = np.zeros((5, mask.size), np.float32)
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        m, d, below = mask[at : at + n + 1], diagonal[at:], mask[at + stride - 1 :]
        own, right, down = out[0, at:], out[1, at:], out[2, at:]
        down_right, down_left = out[3, at:], out[4, at:]
        for j in range(n):
            own[j] = m[j] * (d[j] - _FOUR)
            right[j] = -_TWO * m[j] * m[j + 1]
        for j in range(n):
            down_left[j] = -m[j] * below[j]
            down[j] = -_TWO * m[j] * below[j + 1]
            down_right[j] = -m[j] * below[j + 2]
    return out


@_compiled()
def _halve_rows(
    a: _Array, first: int, stride: int, n: int, weight_below: np.float32, out: _Array
) -> None:
    """P' A P with P between rows only: one row of it, five coefficients (5, n), into out.

    Args:
        a: as `_Level.matrix`.
        first: where the row above the middle one begins.
        stride: from a row to the next.
        n: columns.
        weight_below: of the row below the middle one.
        out: (5, at least n).
    """
    at, below = first + stride, first + 2 * stride
    quarter, square = _HALF * _HALF, weight_below * weight_below
    for c in range(2):
        o, x, y, z = out[c], a[c, first:], a[c, at:], a[c, below:]
        for j in range(n):
            o[j] = quarter * x[j] + y[j] + square * z[j]
    own, right, x, y = out[0], out[1], a[2, first:], a[2, at:]
    for j in range(n):
        own[j] += x[j] + _TWO * weight_below * y[j]
    x, y = a[3, first:], a[4, first + 1 :]
    for j in range(n):
        right[j] += _HALF * (x[j] + y[j])
    x, y = a[3, at:], a[4, at + 1 :]
    for j in range(n):
        right[j] += weight_below * (x[j] + y[j])
    for c in range(2, 5):
        o, x, y = out[c], a[c, at:], a[c, below:]
        for j in range(n):
            o[j] = _HALF * (x[j] + y[j])
    down, down_right, down_left = out[2], out[3], out[4]
    x, y = a[0, below:], a[1, below - 1 :]
    for j in range(n):
        down[j] += quarter * x[j]
        down_right[j] += quarter * y[j + 1]
        down_left[j] += quarter * y[j]


@_compiled()
def _halve_columns(a: _Array, n: int, whole_last: bool, out: _Array) -> None:
    """The same between columns: of a row of five coefficients (5, 2 n + 1) those (5, n) into out.

    Args:
        a: what `_halve_rows` gives, from the column before the first middle one on.
        n: columns of the result.
        whole_last: the last column of `a` counts in full.
        out: (5, n).
    """
    own, right, down, down_right, down_left = a[0], a[1], a[2], a[3], a[4]
    quarter = _HALF * _HALF
    for j in range(n):
        p = 2 * j
        out[0, j] = quarter * (own[p] + own[p + 2]) + own[p + 1] + right[p] + right[p + 1]
        out[1, j] = _HALF * (right[p + 1] + right[p + 2]) + quarter * own[p + 2]
    for j in range(n):
        p = 2 * j
        out[2, j] = quarter * (down[p] + down[p + 2]) + down[p + 1]
        out[2, j] += _HALF * (down_right[p] + down_right[p + 1])
        out[2, j] += _HALF * (down_left[p + 1] + down_left[p + 2])
    for j in range(n):
        p = 2 * j
        out[3, j] = _HALF * (down_right[p + 1] + down_right[p + 2]) + quarter * down[p + 2]
        out[4, j] = _HALF * (down_left[p] + down_left[p + 1]) + quarter * down[p]
    if whole_last:
        p, j = 2 * n - 2, n - 1
        out[0, j] += (_ONE - quarter) * own[p + 2] + right[p + 1]
        out[2, j] += (_ONE - quarter) * down[p + 2]
        out[2, j] += _HALF * (down_right[p + 1] + down_left[p + 2])


@_compiled()
def _set_coarse_matrix(fine: _Level, coarse: _Level) -> None:
    """Set coarse.matrix = P' A P, with P zero at known pixels of both grids."""
    a = _finest_matrix(fine) if len(fine.matrix) == 1 else fine.matrix
    half, stride = np.empty((5, fine.width + 2), np.float32), fine.width + 2
    for k in range(len(coarse.spans)):
        i, start, stop = coarse.spans[k, 0], coarse.spans[k, 1], coarse.spans[k, 2]
        at, n = _span(coarse, k)
        first = (2 * i - 2) * stride + 2 * start - 2
        # A last row or column between coarse ones takes its one coarse neighbour in full.
        weight_below = _ONE if 2 * i == fine.height else _HALF
        _halve_rows(a, first, stride, 2 * n + 1, weight_below, half)
        _halve_columns(half, n, 2 * stop - 2 == fine.width, coarse.matrix[:, at : at + n])
        _mask_matrix(coarse, at, n)


@_compiled()
def _mask_matrix(level: _Level, at: int, n: int) -> None:
    """Of n pixels from `at`: no coefficient has a known pixel."""
    stride = level.width + 2
    neighbours = (0, 1, stride, stride + 1, stride - 1)
    for c in range(5):
        to = at + neighbours[c]
        m, other, o = level.mask[at : at + n], level.mask[to : to + n], level.matrix[c, at : at + n]
        for j in range(n):
            o[j] *= m[j] * other[j]


@_compiled()
def _empty_level(mask: _Array, height: int, width: int, coefficients: int) -> _Level:
    n = mask.size
    fields = np.zeros((3, n), np.float32)
    return _Level(
        height,
        width,
        mask,
        np.zeros((coefficients, n), np.float32),
        np.zeros(n, np.float32),
        _find_spans(mask, height, width),
        fields[0],
        fields[1],
        np.empty(n, np.float32),
        fields[2],
    )


@_compiled()
def _set_relax(level: _Level, excess: np.float32) -> None:
    """The Jacobi factor; one row of pixels has a wider spectrum and is damped, one pixel exact.

    Of the matrix's first coefficient the diagonal is what is left without the `excess`.
    """
    damping = np.float32(2 / 3) if (level.height == 1) != (level.width == 1) else _ONE
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        m, d, o = level.mask[at : at + n], level.matrix[0, at : at + n], level.relax[at : at + n]
        for j in range(n):
            diagonal = d[j] - excess
            o[j] = m[j] * damping / diagonal if diagonal > 0 else _ZERO


@_compiled()
def _finest_level(removed: NDArray[np.bool_]) -> _Level:
    height, width = removed.shape
    mask = np.zeros((height + 2, width + 2), np.float32)
    for i in range(height):
        own, r = mask[i + 1, 1:], removed[i]
        for j in range(width):
            own[j] = _ONE if r[j] else _ZERO
    level = _empty_level(mask.reshape(mask.size), height, width, 1)
    diagonal = level.matrix[0].reshape(height + 2, width + 2)
    for i in range(height):
        rows = np.float32(4 - (i == 0) - (i == height - 1))
        d = diagonal[i + 1, 1 : width + 1]
        d[:] = 4 * rows
        d[0] -= rows
        d[width - 1] -= rows
    _set_relax(level, _FOUR)
    return level


@_compiled()
def _hierarchy(removed: NDArray[np.bool_]) -> list[_Level]:
    levels = [_finest_level(removed)]
    height, width = removed.shape
    while height > 1 or width > 1:
        finer, stride = levels[-1].mask, width + 2
        height, width = (height + 1) // 2, (width + 1) // 2
        mask = np.zeros((height + 2, width + 2), np.float32)
        for i in range(1, height + 1):
            own, row = mask[i], finer[(2 * i - 1) * stride :]
            for j in range(1, width + 1):
                own[j] = row[2 * j - 1]
        level = _empty_level(mask.reshape(mask.size), height, width, 5)
        if len(level.spans) == 0:
            break
        _set_coarse_matrix(levels[-1], level)
        _set_relax(level, _ZERO)
        levels.append(level)
    return levels


@_compiled()
def _cycle(levels: list[_Level], rows: _Array) -> None:
    """Set levels[0].result to an approximate solution; its guess is a Jacobi step from zero."""
    last = len(levels) - 1
    for depth in range(last):
        _find_residual(levels[depth], rows)
        _restrict(levels[depth], levels[depth + 1], rows)
    levels[last].result[:] = levels[last].guess
    for depth in range(last - 1, -1, -1):
        _prolong(levels[depth + 1], levels[depth], rows)
        _smooth(levels[depth], rows)


@_compiled()
def _find_product(level: _Level, a: _Array, b: _Array, columns: _Array) -> float:
    """The scalar product (a, b), by way of columns (width + 2,), those of the grid's columns."""
    columns[:] = 0
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        start = level.spans[k, 1]
        x, y, s = a[at : at + n], b[at : at + n], columns[start : start + n]
        for j in range(n):
            s[j] += x[j] * y[j]
    return float(columns.sum())


@_compiled()
def _turn(level: _Level, beta: np.float32, p: _Array) -> None:
    """Set p = result + beta p."""
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        a, b = level.result[at : at + n], p[at : at + n]
        for j in range(n):
            b[j] = a[j] + beta * b[j]


@_compiled()
def _set_right(level: _Level, known: _Array, rows: _Array) -> None:
    """Set right = -A known at the unknown pixels."""
    product = rows[0]
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        _multiply_finest(level, known, at, n, rows)
        o, m = level.right[at : at + n], level.mask[at : at + n]
        for j in range(n):
            o[j] = -m[j] * product[j]


@_compiled()
def _apply(level: _Level, p: _Array, q: _Array, rows: _Array, columns: _Array) -> None:
    """Set q = -A p at the unknown pixels.

    Sets columns (2, width + 2) to the scalar products (p, right) and (p, q), a column of the grid
    each.
    """
    columns[:] = 0
    product = rows[0]
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        start = level.spans[k, 1]
        m = level.mask[at : at + n]
        _multiply_finest(level, p, at, n, rows)
        o, x, r = q[at : at + n], p[at : at + n], level.right[at : at + n]
        for j in range(n):
            o[j] = -m[j] * product[j]
        pr, pq = columns[0, start : start + n], columns[1, start : start + n]
        for j in range(n):
            pr[j] += x[j] * r[j]
            pq[j] += x[j] * o[j]


@_compiled()
def _advance(
    level: _Level, u: _Array, alpha: np.float32, p: _Array, q: _Array, columns: _Array
) -> np.float32:
    """Add alpha p to u and alpha q to right, and relax from zero; the largest change of u."""
    columns[:] = 0
    for k in range(len(level.spans)):
        at, n = _span(level, k)
        start = level.spans[k, 1]
        relax = level.relax[at : at + n]
        a, x = u[at : at + n], p[at : at + n]
        largest = columns[start : start + n]
        for j in range(n):
            step = alpha * x[j]
            a[j] += step
            largest[j] = max(largest[j], abs(step))
        b, y, guess = level.right[at : at + n], q[at : at + n], level.guess[at : at + n]
        for j in range(n):
            b[j] += alpha * y[j]
            guess[j] = relax[j] * b[j]
    return np.float32(columns.max())


@_compiled()
def _solve(
    levels: list[_Level],
    u: _Array,
    rows: _Array,
    columns: _Array,
    tolerance: np.float32,
    max_steps: int,
) -> bool:
    """Set u (n,) to the solution for levels[0].right, which becomes its residual.

    Args:
        levels: the hierarchy.
        u: what is there is overwritten.
        rows: (2, width + 2), overwritten.
        columns: (2, width + 2), overwritten.
        tolerance: of a step.
        max_steps: how many there are at most.

    Returns:
        whether the last step was smaller than the tolerance.
    """
    level = levels[0]
    p, q = np.zeros_like(u), np.empty_like(u)
    u[:] = 0
    pq = beta = 0.0
    _relax_zero(level)
    for step in range(max_steps):
        _cycle(levels, rows)
        if step > 0:
            beta = -_find_product(level, q, level.result, columns[0]) / pq
        _turn(level, np.float32(beta), p)
        _apply(level, p, q, rows, columns)
        pr, pq = float(columns[0].sum()), float(columns[1].sum())
        if not pq < 0:
            return pr == 0
        change = _advance(level, u, np.float32(-pr / pq), p, q, columns[0])
        if change < tolerance:
            return True
    return False


@_compiled()
def _known_mean(image: _Array, removed: NDArray[np.bool_]) -> np.float32:
    height, width = removed.shape
    columns = np.zeros(width)
    for i in range(height):
        x, r = image[i], removed[i]
        for j in range(width):
            columns[j] += _ZERO if r[j] else x[j]
    return np.float32(columns.sum() / (removed.size - removed.sum()))


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
    levels = _hierarchy(removed)
    level = levels[0]
    rows, columns = np.empty((2, width + 2), np.float32), np.empty((2, width + 2), np.float32)
    u = np.zeros((height + 2, width + 2), np.float32)
    flat = u.reshape(level.mask.size)
    for c in range(3):
        mean = _known_mean(image[c], removed)
        for i in range(height):
            o, x, r = u[i + 1, 1:], image[c, i], removed[i]
            for j in range(width):
                o[j] = _ZERO if r[j] else x[j] - mean
        _set_right(level, flat, rows)
        if not _solve(levels, flat, rows, columns, tolerance, max_steps):
            return False
        for k in range(len(level.spans)):
            i, start, stop = level.spans[k, 0], level.spans[k, 1], level.spans[k, 2]
            r = removed[i - 1, start - 1 : stop - 1]
            o, x = out[c, i - 1, start - 1 : stop - 1], u[i, start:stop]
            for j in range(stop - start):
                o[j] = x[j] + mean if r[j] else o[j]
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
