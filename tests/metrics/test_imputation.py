"""Imputation against two independent solvers, its limit cases, and what it must not depend on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix, diags, kron
from scipy.sparse.linalg import spsolve
from torch import Tensor

from metrics import imputation
from metrics.imputation import batched, cpu, impute

Mask = Callable[[int, int], np.ndarray]


def banded(n: int, centre: int, side: int) -> csr_matrix:
    off = np.full(n - 1, float(side))
    return csr_matrix(diags([off, np.full(n, float(centre)), off], [-1, 0, 1], shape=(n, n)))


def exact(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """(A_rr) u_r = -(A_rk) u_k in float64, A from Kronecker products over the whole grid."""
    h, w = removed.shape
    weights = kron(banded(h, 2, 1), banded(w, 2, 1)).tocsr() / 12
    weights.setdiag(0)
    graph = (diags(np.asarray(weights.sum(axis=1)).ravel()) - weights).tocsr()
    r, k = np.flatnonzero(removed), np.flatnonzero(~removed)
    flat = image.reshape(3, -1).astype(np.float64)
    right = -(graph[r][:, k] @ flat[:, k].T)
    flat[:, r] = spsolve(graph[r][:, r].tocsc(), right, permc_spec="MMD_AT_PLUS_A").reshape(-1, 3).T
    return np.asarray(flat.reshape(image.shape))


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Smooth shading, fine grain and a hard edge, over the whole of [0, 1]."""
    rng = np.random.default_rng(seed)
    x = gaussian_filter(rng.standard_normal((3, h, w)), (0, h / 8, w / 8), mode="wrap")
    x = x / x.std() + 0.3 * rng.standard_normal((3, h, w))
    x[:, h // 3 :, : w // 2] *= -1
    x -= x.min()
    return np.asarray(x / x.max(), np.float32)


SOLVERS = ("compiled", "batched")


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both solvers on the CPU: the compiled one, which belongs there, and the one of the GPU."""
    if request.param == "batched":
        monkeypatch.setattr(imputation, "_solve_on_cpu", imputation._solve_in_batches)
    return str(request.param)


def run(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    result = impute(torch.from_numpy(image)[None], torch.from_numpy(removed)[None, None])
    return np.asarray(result[0, 0])


def share(values: np.ndarray, fraction: float) -> np.ndarray:
    """The `fraction` of the pixels with the largest values."""
    order = np.argsort(-values.ravel(), kind="stable")
    removed = np.zeros(values.size, bool)
    removed[order[: int(fraction * values.size)]] = True
    return np.reshape(removed, values.shape)


def cam(fraction: float, sign: int = 1, seed: int = 0) -> Mask:
    def mask(h: int, w: int) -> np.ndarray:
        coarse = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
        fine = F.interpolate(coarse, size=(h, w), mode="bilinear")[0, 0].numpy()
        return share(sign * fine, fraction)

    return mask


def noise(fraction: float) -> Mask:
    return lambda h, w: share(np.random.default_rng(3).random((h, w)), fraction)


def known_at(*places: tuple[float, float]) -> Mask:
    def mask(h: int, w: int) -> np.ndarray:
        removed = np.ones((h, w), bool)
        for y, x in places:
            removed[round(y * (h - 1)), round(x * (w - 1))] = False
        return removed

    return mask


def pattern(rule: Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]) -> Mask:
    def mask(h: int, w: int) -> np.ndarray:
        y, x = np.ogrid[:h, :w]
        return np.broadcast_to(rule(y, x, h, w), (h, w)).copy()

    return mask


def serpentine(y: np.ndarray, x: np.ndarray, h: int, w: int) -> np.ndarray:
    """A winding corridor between walls of known pixels: a long thin region."""
    del h
    gap = np.where(y // 4 % 2 == 0, x == 0, x == w - 1)
    return (y % 4 != 0) | gap


MASKS: dict[str, Mask] = {
    **{f"cam morf {f}": cam(f) for f in (0.1, 0.5, 0.9)},
    **{f"cam lerf {f}": cam(f, -1, seed=1) for f in (0.1, 0.5, 0.9)},
    **{f"noise {f}": noise(f) for f in (0.1, 0.5, 0.9)},
    "sparse": noise(0.02),
    "almost nothing known": noise(0.995),
    "one known, centre": known_at((0.5, 0.5)),
    "one known, corner": known_at((1, 1)),
    "two known, far": known_at((0, 0), (1, 1)),
    "two known, near": known_at((0.4, 0.5), (0.5, 0.5)),
    "one removed, centre": pattern(lambda y, x, h, w: (y == h // 2) & (x == w // 2)),
    "one removed, corner": pattern(lambda y, x, h, w: (y == 0) & (x == w - 1)),
    "chequered": pattern(lambda y, x, h, w: (y + x) % 2 == 0),
    "chequered, other colour": pattern(lambda y, x, h, w: (y + x) % 2 == 1),
    "no coarse unknowns": pattern(lambda y, x, h, w: (y % 2 == 1) | (x % 2 == 1)),
    "stripes": pattern(lambda y, x, h, w: (x % 2 == 0) & (y >= 0)),
    "serpentine": pattern(serpentine),
    "disc": pattern(lambda y, x, h, w: (y / h - 0.5) ** 2 + (x / w - 0.5) ** 2 < 0.23),
    "frame known": pattern(lambda y, x, h, w: (y > 0) & (x > 0) & (y < h - 1) & (x < w - 1)),
    "two holes in a row": pattern(lambda y, x, h, w: (x % (w // 2) < w // 12) & (y > h // 4)),
    "left half": pattern(lambda y, x, h, w: (x < w // 2) & (y >= 0)),
}


def compare_both_with_elimination(
    image: np.ndarray, removed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both solvers; elimination takes longest, and is done once."""
    expected = exact(image, removed)
    for solve in (imputation._solve_on_cpu, imputation._solve_in_batches):
        monkeypatch.setattr(imputation, "_solve_on_cpu", solve)
        error = np.abs(run(image, removed) - expected)[:, removed]
        assert error.max() <= 1e-3, solve.__name__
        assert error.mean() <= 1e-4, solve.__name__


SIZES = [(8, 8), (9, 14), (64, 64), (61, 96)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_agrees_with_elimination_in_float64(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, removed = picture(*size), MASKS[name](*size)
    if not removed.any():
        pytest.skip("the image is too small to lose a pixel")
    compare_both_with_elimination(image, removed, monkeypatch)


@pytest.mark.parametrize("size", [(2, 1), (2, 2), (5, 1), (7, 8), (8, 7), (61, 96)], ids=str)
@pytest.mark.parametrize("name", ["noise 0.5", "noise 0.9", "cam morf 0.5", "frame known"])
def test_both_solvers_have_the_same_coarse_matrices(name: str, size: tuple[int, int]) -> None:
    """A wrong coefficient would only cost iterations: combs tell what the products are."""
    removed = MASKS[name](*size)
    if not removed.any():
        pytest.skip("the image is too small to lose a pixel")
    compiled = cpu._hierarchy(removed)[1:]
    expected = batched._hierarchy(torch.from_numpy(removed)[None, None])[1:]
    assert len(compiled) <= len(expected)
    for own, other in zip(compiled, expected, strict=False):
        found = own.matrix.reshape(5, own.height + 2, own.width + 2)
        inside = torch.from_numpy(found[:, 1:-1, 1:-1])
        assert torch.allclose(inside, torch.cat(other.matrix)[:, 0], rtol=1e-5, atol=1e-4)
    assert all(not other.mask.any() for other in expected[len(compiled) :])


@pytest.mark.parametrize(
    "name", ["cam morf 0.9", "cam lerf 0.5", "noise 0.5", "two known, far", "frame known"]
)
@pytest.mark.parametrize("size", [(224, 224), (201, 512)], ids=str)
def test_agrees_on_large_images(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_both_with_elimination(picture(*size), MASKS[name](*size), monkeypatch)


@pytest.mark.parametrize(
    "size", [(1, 40), (40, 1), (2, 33), (3, 3), (1, 2), (2, 1), (2, 2)], ids=str
)
@pytest.mark.usefixtures("solver")
def test_agrees_on_thin_images(size: tuple[int, int]) -> None:
    image, removed = picture(*size), known_at((0, 0), (0.9, 0.9))(*size)
    removed[-1, -1] = True
    error = np.abs(run(image, removed) - exact(image, removed))
    assert error.max() <= 1e-3
    assert error.mean() <= 1e-4


@pytest.mark.parametrize("name", ["cam morf 0.5", "cam lerf 0.1", "noise 0.9", "left half"])
def test_agrees_with_pytorch_grad_cam(name: str) -> None:
    image, removed = picture(48, 57), MASKS[name](48, 57)
    theirs = NoisyLinearImputer(noise=0)(
        torch.from_numpy(image), torch.from_numpy(~removed).to(torch.float32)
    )
    error = np.abs(run(image, removed) - theirs.numpy())[:, removed]
    assert error.max() <= 1e-3
    assert error.mean() <= 1e-4


@pytest.mark.parametrize(
    "place, expected",
    [
        ((1, 1), (1 + 3 + 5 + 7) / 15 * 2 / 12 + (0 + 2 + 6 + 8) / 15 / 12),
        ((0, 0), (2 * (1 + 3) + 4) / 15 / 5),
        ((0, 1), (2 * (0 + 2 + 4) + 3 + 5) / 15 / 8),
    ],
)
def test_one_pixel_is_the_weighted_mean_of_its_neighbours(
    place: tuple[int, int], expected: float
) -> None:
    image = np.broadcast_to(np.arange(9, dtype=np.float32).reshape(3, 3) / 15, (3, 3, 3)).copy()
    removed = np.zeros((3, 3), bool)
    removed[place] = True
    assert run(image, removed)[(slice(None), *place)] == pytest.approx([expected] * 3, abs=1e-6)


def test_a_ramp_between_known_columns_stays_a_ramp() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32), (3, 20, 33)).copy()
    removed = np.zeros((20, 33), bool)
    removed[:, 1:-1] = True
    holed = np.where(removed, np.float32(0.9), ramp)
    assert np.abs(run(holed, removed) - ramp).max() <= 1e-3


@pytest.mark.usefixtures("solver")
def test_one_known_pixel_spreads_everywhere() -> None:
    image, removed = picture(31, 40), known_at((0.3, 0.7))(31, 40)
    expected = image[:, ~removed][:, :, None]
    assert np.abs(run(image, removed) - expected).max() <= 1e-6


def test_removed_values_have_no_influence() -> None:
    image, removed = picture(30, 30), MASKS["cam morf 0.5"](30, 30)
    other = np.where(removed, 1 - image, image)
    assert not np.array_equal(image, other)
    assert np.array_equal(run(image, removed), run(other, removed))


@pytest.mark.usefixtures("solver")
def test_known_pixels_are_bit_identical() -> None:
    image, removed = picture(50, 41), MASKS["noise 0.5"](50, 41)
    result = run(image, removed)
    assert np.array_equal(result[:, ~removed], image[:, ~removed])
    assert not np.isclose(result[:, removed], image[:, removed], atol=1e-3).all()


def test_nothing_removed_returns_the_image() -> None:
    image = picture(16, 23)
    assert np.array_equal(run(image, np.zeros((16, 23), bool)), image)


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize("size", [(1, 1), (16, 23)], ids=str)
def test_everything_removed_is_mid_grey(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((3, *size), np.float32)
    assert (run(image, np.ones(size, bool)) == 0.5).all()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_image_stays_constant(value: float) -> None:
    image = np.full((3, 40, 40), value, np.float32)
    assert np.abs(run(image, MASKS["cam morf 0.9"](40, 40)) - value).max() <= 1e-6


def test_inputs_are_left_alone() -> None:
    images, removed = batch()
    copies = images.clone(), removed.clone()
    impute(images, removed)
    assert torch.equal(images, copies[0])
    assert torch.equal(removed, copies[1])


def batch() -> tuple[Tensor, Tensor]:
    """Five images, four masks each, of which one removes everything and one nothing."""
    images = torch.stack([torch.from_numpy(picture(45, 38, seed)) for seed in range(5)])
    masks = [
        [cam(0.6, seed=s)(45, 38), noise(0.1 + 0.2 * s)(45, 38), np.full((45, 38), s == 2)]
        for s in range(5)
    ]
    masks = [[*three, MASKS["two known, far"](45, 38)] for three in masks]
    return images, torch.from_numpy(np.array(masks))


def test_independent_of_the_batch(solver: str) -> None:
    images, removed = batch()
    together = impute(images, removed)
    assert together.shape == (5, 4, 3, 45, 38)
    assert together.dtype == torch.float32
    for b in range(5):
        for m in range(4):
            alone = impute(images[b : b + 1], removed[b : b + 1, m : m + 1])
            assert torch.allclose(alone[0, 0], together[b, m], rtol=0, atol=1e-6)
            assert solver == "batched" or torch.equal(alone[0, 0], together[b, m])


def test_batches_of_problems_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, removed = batch()
    whole, _ = imputation._solve_in_batches(images, removed)
    monkeypatch.setattr(batched, "_PROBLEMS", 3)
    parts, _ = imputation._solve_in_batches(images, removed)
    some = ~removed.flatten(2).all(dim=2)
    assert torch.allclose(parts[some], whole[some], rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_agrees_on_a_gpu() -> None:
    images, removed = batch()
    found = impute(images.cuda(), removed.cuda())
    assert found.is_cuda
    assert torch.allclose(found.cpu(), impute(images, removed), rtol=0, atol=1e-4)


@pytest.fixture
def restored_threads() -> Iterator[int]:
    threads = numba.get_num_threads()
    yield threads
    numba.set_num_threads(threads)


def test_independent_of_the_number_of_threads(restored_threads: int) -> None:
    if restored_threads == 1:
        pytest.skip("one thread is all there is")
    images, removed = batch()
    many = impute(images, removed)
    numba.set_num_threads(1)
    assert torch.equal(impute(images, removed), many)


IMPUTE_AND_PRINT = """
import hashlib, torch
from metrics.imputation import impute
generator = torch.Generator().manual_seed(0)
images = torch.rand(2, 3, 64, 64, generator=generator)
removed = torch.rand(2, 3, 64, 64, generator=generator) < 0.6
print(hashlib.sha256(impute(images, removed).numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_same_bytes_whether_just_compiled_or_from_the_cache(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    printed = [
        subprocess.run(
            [sys.executable, "-c", IMPUTE_AND_PRINT],
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert printed[0] == printed[1]


def test_non_contiguous_inputs() -> None:
    images, removed = batch()
    turned = impute(images.transpose(2, 3), removed.transpose(2, 3))
    copied = impute(images.transpose(2, 3).contiguous(), removed.transpose(2, 3).contiguous())
    assert torch.equal(turned, copied)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_empty_batches(shape: tuple[int, int]) -> None:
    images, removed = torch.rand(shape[0], 3, 8, 9), torch.zeros(*shape, 8, 9, dtype=torch.bool)
    assert impute(images, removed).shape == (*shape, 3, 8, 9)


@pytest.mark.usefixtures("solver")
def test_what_does_not_converge_is_solved_by_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    image, removed = picture(37, 50), MASKS["cam morf 0.5"](37, 50)
    monkeypatch.setattr(imputation, "_MAX_STEPS", 1)
    result = run(image, removed)
    assert np.abs(result - exact(image, removed)).max() <= 1e-6
    assert np.array_equal(result[:, ~removed], image[:, ~removed])


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.usefixtures("solver")
def test_iterations_alone_converge(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
        raise AssertionError("fell back to elimination")

    monkeypatch.setattr(imputation, "_impute_directly", never)
    monkeypatch.setattr(imputation, "_MAX_STEPS", 20)
    run(picture(90, 61), MASKS[name](90, 61))


IMAGES, REMOVED = torch.zeros(2, 3, 8, 9), torch.zeros(2, 4, 8, 9, dtype=torch.bool)


@pytest.mark.parametrize(
    "images, removed, message",
    [
        (IMAGES.double(), REMOVED, r"images have dtype torch.float64: expected torch.float32"),
        (IMAGES[0], REMOVED, r"images have shape \(3, 8, 9\): expected \(B, 3, H, W\)"),
        (IMAGES[:, :1], REMOVED, r"images have shape \(2, 1, 8, 9\)"),
        (IMAGES[:, :, :0], REMOVED[:, :, :0], r"images have shape \(2, 3, 0, 9\)"),
        (IMAGES, REMOVED.float(), r"removed has dtype torch.float32: expected torch.bool"),
        (IMAGES, REMOVED[:, 0], r"removed has shape \(2, 8, 9\): expected \(2, M, 8, 9\)"),
        (IMAGES, REMOVED[:1], r"removed has shape \(1, 4, 8, 9\): expected \(2, M, 8, 9\)"),
        (IMAGES, REMOVED.transpose(2, 3), r"removed has shape \(2, 4, 9, 8\)"),
        (IMAGES + 1.5, REMOVED, r"images range from 1.5 to 1.5: expected finite values"),
        (IMAGES - 0.5, REMOVED, r"images range from -0.5 to -0.5: expected"),
        (IMAGES * torch.nan, REMOVED, r"images range from nan to nan: expected"),
    ],
)
def test_refuses_what_it_cannot_impute(images: Tensor, removed: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        impute(images, removed)
    assert "\n" not in str(error.value)


def test_torch_keeps_its_threads() -> None:
    """numba and torch share OpenMP; another number of threads makes a network round otherwise."""
    script = (
        "import torch\n"
        "from metrics.imputation import impute\n"
        "impute(torch.rand(1, 3, 8, 8), torch.rand(1, 2, 8, 8) < 0.5)\n"
        "print(torch.get_num_threads())\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
