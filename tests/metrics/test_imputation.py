"""Imputation against a sparse direct solver in float64 and pytorch-grad-cam's imputer."""

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import spsolve
from torch import Tensor

from metrics import _imputation
from metrics._imputation import ALL_REMOVED, impute, solve_directly
from metrics._masking import count, ranks


def reference(image: Tensor, removed: Tensor) -> Tensor:
    """The system of the paper, assembled from pairs of neighbours, solved in float64."""
    height, width = removed.shape
    number = np.arange(height * width).reshape(height, width)
    pairs = []
    for dy, dx, weight in ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12)):
        here = number[: height - dy, max(-dx, 0) : width - max(dx, 0)]
        there = number[dy:, max(dx, 0) : width + min(dx, 0)]
        pairs.append((here.ravel(), there.ravel(), np.full(here.size, weight)))
    i, j, w = (np.concatenate(column) for column in zip(*pairs, strict=True))
    graph = coo_array((np.r_[w, w], (np.r_[i, j], np.r_[j, i]))).tocsr()
    laplacian = (diags_array(graph.sum(axis=1)) - graph).tocsr()
    hole = np.flatnonzero(removed.numpy().ravel())
    known = np.flatnonzero(~removed.numpy().ravel())
    values = image.double().flatten(1).numpy().T
    solved = spsolve(laplacian[hole][:, hole].tocsc(), -laplacian[hole][:, known] @ values[known])
    values[hole] = solved.reshape(len(hole), 3)
    return torch.from_numpy(values.T.reshape(3, height, width))


def photograph_like(size: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bilinear")[0]
    return (0.8 * smooth + 0.2 * torch.rand(3, *size, generator=generator)).clamp(0, 1)


def smooth_mask(size: tuple[int, int], percent: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    cam = F.interpolate(torch.rand(1, 1, 7, 7, generator=generator), size=size, mode="bilinear")[0]
    return ranks(cam, [seed])[0] < count(percent, size[0] * size[1])


def scattered_mask(size: tuple[int, int], percent: float, seed: int = 0) -> Tensor:
    return ranks(torch.zeros(1, *size), [seed])[0] < count(percent, size[0] * size[1])


def only(size: tuple[int, int], y: int, x: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y, x] = True
    return mask


def assert_close(found: Tensor, expected: Tensor, removed: Tensor) -> None:
    error = (found - expected).abs()[:, removed]
    assert float(error.max()) < 1e-3
    assert float(error.mean()) < 1e-4


SIZES = [(8, 8), (9, 13), (17, 64), (64, 64), (101, 75)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_accuracy(size: tuple[int, int]) -> None:
    image = photograph_like(size)
    board = torch.zeros(size, dtype=torch.bool)
    board[::2, ::2] = board[1::2, 1::2] = True
    masks = {
        "smooth": [smooth_mask(size, p) for p in (10, 50, 90)],
        "scattered": [scattered_mask(size, p) for p in (10, 50, 90, 99)],
        "checkerboard": [board, ~board],
        "one removed": [only(size, 3, 2), only(size, 0, 0)],
        "one known": [~only(size, 3, 2), ~only(size, 0, 0)],
        "stripes": [torch.arange(size[1]).expand(size) % 4 > 0],
        "border only": [F.pad(torch.ones(size[0] - 2, size[1] - 2), (1, 1, 1, 1)) > 0],
    }
    removed = torch.stack([mask for kind in masks.values() for mask in kind])
    found = impute(image[None], removed[None])[0]
    for version, mask in zip(found, removed, strict=True):
        assert_close(version, reference(image, mask), mask)
        assert torch.equal(version[:, ~mask], image[:, ~mask])


def test_accuracy_at_512() -> None:
    image = photograph_like((512, 512))
    mask = smooth_mask((512, 512), 90)
    found = impute(image[None], mask[None, None])[0, 0]
    assert_close(found, reference(image, mask), mask)


@pytest.mark.parametrize("percent", [10, 90])
def test_against_pytorch_grad_cam(percent: float) -> None:
    image = photograph_like((224, 224))
    removed = torch.stack([smooth_mask((224, 224), percent), scattered_mask((224, 224), percent)])
    found = impute(image[None], removed[None])[0]
    for version, mask in zip(found, removed, strict=True):
        assert_close(version, NoisyLinearImputer(noise=0)(image, (~mask).float()), mask)


def test_constant_surroundings_fill_with_the_constant() -> None:
    image = torch.full((1, 3, 20, 30), 0.25)
    removed = smooth_mask((20, 30), 70)
    image[0, :, removed] = 1
    assert torch.allclose(impute(image, removed[None, None]), torch.tensor(0.25), atol=1e-6)


def test_one_removed_pixel_is_the_weighted_mean() -> None:
    image = torch.arange(27.0).view(1, 3, 3, 3) / 27
    for place, weights in (
        ((1, 1), [1, 2, 1, 2, 0, 2, 1, 2, 1]),
        ((0, 0), [0, 2, 0, 2, 1, 0, 0, 0, 0]),
    ):
        share = torch.tensor(weights, dtype=torch.float32).view(3, 3) / sum(weights)
        found = impute(image, only((3, 3), *place)[None, None])[0, 0]
        assert torch.allclose(found[:, *place], (image[0] * share).sum(dim=(1, 2)), atol=1e-6)


def test_nothing_and_everything_removed() -> None:
    image = photograph_like((10, 10))
    nothing, everything = torch.zeros(10, 10) > 0, torch.zeros(10, 10) == 0
    found = impute(image[None], torch.stack([nothing, everything])[None])[0]
    assert torch.equal(found[0], image)
    assert torch.equal(found[1], torch.full_like(image, ALL_REMOVED))


def test_same_bytes_in_any_batch_and_with_any_number_of_threads() -> None:
    images = torch.stack([photograph_like((40, 48), seed) for seed in range(3)])
    removed = torch.stack(
        [torch.stack([smooth_mask((40, 48), p, s) for p in (30, 60)]) for s in range(3)]
    )
    together = impute(images, removed)
    alone = torch.cat([impute(images[i : i + 1], removed[i : i + 1]) for i in (2, 1, 0)]).flip(0)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        single = impute(images, removed)
    finally:
        numba.set_num_threads(threads)
    assert torch.equal(together, alone)
    assert torch.equal(together, single)


def test_direct_solver_takes_over_where_the_iteration_does_not_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, mask = photograph_like((20, 24)), smooth_mask((20, 24), 60)
    monkeypatch.setattr(_imputation, "_impute_all", lambda *_: None)
    found = impute(image[None], mask[None, None])[0, 0]
    assert torch.allclose(found.double(), reference(image, mask), atol=1e-6)
    direct = solve_directly(image.permute(1, 2, 0).numpy(), mask.numpy())
    assert np.array_equal(found.permute(1, 2, 0).numpy(), direct)


@pytest.mark.parametrize(
    ("images", "removed", "message"),
    [
        (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8) > 0, r"expected \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 8, 8).double(), torch.zeros(1, 1, 8, 8) > 0, "float64"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 9) > 0, r"expected \(1, M, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), "torch.float32: expected"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8) > 0, r"expected \(1, M, 8, 8\)"),
    ],
)
def test_wrong_input_is_refused(images: Tensor, removed: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        impute(images, removed)
