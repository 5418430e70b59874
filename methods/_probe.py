"""What the output of a layer means, seen in how it answers to a bright patch that moves.

A name says nothing of that: a module may run twice, give a tuple, be overwritten by what follows,
hold tokens in an order of its own, or say the same of every image. All of it is seen in eighteen
forward passes of one image, and in one more, forward and backward, which token the head reads.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

POSITIONS = 4
"""Of the patch, on each axis."""

FOLLOWS = 0.9
"""The rank correlation of where the patch is and where a layer changes most, at least."""

PREFIX = 64
"""Tokens in front and behind that are no patches, at most."""

SHARP = 10.0
"""From this `peak` on (see Meaning) a layer says exactly where the patch is."""

SAME = 1e-3
"""Two outputs are the same if they differ by no more than this share of the largest value."""


@dataclass(frozen=True)
class Meaning:
    """Where channels and places are in the output of a layer for one image.

    Attributes:
        channel_axis: 1 or -1.
        prefix_tokens: tokens in front that are no patches; None of a grid.
        rows, columns: of the grid of places.
        follows: rank correlation of the place that changes most with that of the patch, of the two
            axes the lower; 1 where it follows exactly.
        peak: how much more that place changes than the places do on average. A layer that mixes all
            places has about 1; one that is far above and does not follow has another order.
        behind: tokens behind the patches that are none either; explainers expect none.

    Example:
        >>> Meaning(-1, 1, rows=14, columns=14, follows=1.0, peak=20.0).describe()
        'tokens (B, N, D) with 1 in front that are no patches'
    """

    channel_axis: int
    prefix_tokens: int | None
    rows: int
    columns: int
    follows: float
    peak: float
    behind: int = 0

    def describe(self) -> str:
        """What it is, for messages."""
        if self.prefix_tokens is None:
            axes = "(B, C, h, w)" if self.channel_axis == 1 else "(B, h, w, C)"
            return f"a grid {axes}"
        axes = "(B, N, D)" if self.channel_axis == -1 else "(B, D, N)"
        behind = f" and {self.behind} behind" if self.behind else ""
        return f"tokens {axes} with {self.prefix_tokens} in front{behind} that are no patches"


@dataclass
class Probed:
    """What is known of a network: its layers that were asked for, and whether there is a CLS.

    Example:
        >>> Probed().layers
        {}
    """

    layers: dict[str, Meaning] = field(default_factory=dict)
    class_token: bool | None = None
    """None: nobody asked."""


@dataclass
class Observed:
    """What was seen of one module while images passed."""

    calls: int = 0
    shape: tuple[int, ...] | str = ()
    """Of its output for one image; the class of an output that is no tensor."""
    overwritten: bool = False
    """Whether what follows writes into its output."""
    batched: bool = False
    """Whether several images come along the first axis, each as it comes alone."""
    answers: dict[int, Tensor] = field(default_factory=dict)
    """How much each place changes with the patch (positions, ...), by the axis of the channels."""

    def flaw(self) -> str:
        """Why it can be no layer, whatever its places are; empty if there is no reason."""
        if self.calls != 1:
            return f"it runs {self.calls} times a forward pass" if self.calls else "it never runs"
        if isinstance(self.shape, str):
            return f"it gives a {self.shape}, not one tensor"
        if self.overwritten:
            return "what follows works in place and overwrites it"
        if len(self.shape) not in (3, 4):
            return f"it gives {self.shape} for one image, which has no places"
        if not all(bool(answer.isfinite().all()) for answer in self.answers.values()):
            return "it gives NaN or infinite values"
        if not self.batched:
            return f"it gives {self.shape} for one image, and the first axis is not the batch"
        if not any(bool(answer.any()) for answer in self.answers.values()):
            return "it does not depend on the image"
        return ""


def observe_modules(
    classify: Callable[[Tensor], Tensor], network: nn.Module, size: tuple[int, int]
) -> dict[str, Observed]:
    """Watch every module of a network while one image and a moving patch pass.

    Args:
        classify: pixels (B, 3, H, W) in [0, 1] through the network.
        network: in eval mode.
        size: height and width of the image, in pixels.

    Returns:
        what was seen by name, modules in the order in which they last end, those that never run
        last.
    """
    found: dict[str, Observed] = {}
    with torch.no_grad():
        with watched(network, found) as outputs:
            classify(blank(size))
        with compared(network, found, outputs):
            classify(torch.cat([blank(size), patches(size)]))
    never = {name: Observed() for name, _ in network.named_modules() if name and name not in found}
    return found | never


def blank(size: tuple[int, int]) -> Tensor:
    """A dark image (1, 3, H, W) in [0, 1] with a faint texture."""
    noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.1 * noise


def patches(size: tuple[int, int]) -> Tensor:
    """The same image with a bright patch at every position, row by row, (POSITIONS ** 2, 3, H, W).

    A patch fills half of each side of its share of the image.
    """
    images = blank(size).repeat(POSITIONS**2, 1, 1, 1)
    height, width = size
    for index, image in enumerate(images):
        row, column = divmod(index, POSITIONS)
        top, bottom = (round((row + part) * height / POSITIONS) for part in (0.25, 0.75))
        left, right = (round((column + part) * width / POSITIONS) for part in (0.25, 0.75))
        image[:, top:bottom, left:right] += 0.6
    return images


@contextmanager
def hooked(network: nn.Module, hook: Callable[[str, object], None]) -> Iterator[None]:
    """Within the block, `hook(name, output)` is called whenever a module has run."""
    handles: list[RemovableHandle] = []
    try:
        for name, module in network.named_modules():
            if name:

                def after(
                    _module: nn.Module, _inputs: object, out: object, own: str = name
                ) -> None:
                    hook(own, out)

                handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched(network: nn.Module, found: dict[str, Observed]) -> Iterator[dict[str, Tensor]]:
    """Within the block, note what each module gives for one image; copies of it are yielded."""
    kept: dict[str, tuple[Tensor, int]] = {}
    copies: dict[str, Tensor] = {}

    def note(name: str, output: object) -> None:
        own = found[name] = found.pop(name, Observed())
        own.calls += 1
        own.shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if isinstance(output, Tensor):
            kept[name], copies[name] = (output, output._version), output.clone()

    with hooked(network, note):
        yield copies
    for name, (output, version) in kept.items():
        found[name].overwritten = output._version != version


@contextmanager
def compared(
    network: nn.Module, found: dict[str, Observed], alone: dict[str, Tensor]
) -> Iterator[None]:
    """Within the block, note how much each module's places change with the patch.

    Args:
        network: in eval mode.
        found: what was seen so far.
        alone: outputs for the first image of the batch, that without the patch.
    """
    calls: Counter[str] = Counter()

    def note(name: str, output: object) -> None:
        calls[name] += 1
        first = alone.pop(name, None)
        if not isinstance(output, Tensor) or first is None or first.ndim not in (3, 4):
            return
        if len(first) != 1 or output.shape != (POSITIONS**2 + 1, *first.shape[1:]):
            return
        change = (output[1:] - output[:1]).float()
        found[name].batched = same(output[:1], first)
        squares = {axis: torch.linalg.vecdot(change, change, dim=axis) for axis in (1, -1)}
        found[name].answers = {axis: square.sqrt().cpu() for axis, square in squares.items()}

    with hooked(network, note):
        yield
    for name, count in calls.items():
        if name in found:
            found[name].calls = max(found[name].calls, count)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree but for rounding."""
    limit = SAME * float(other.abs().max()) if other.numel() else 0.0
    return bool(((one - other).abs() <= limit).all())


def readings_of(seen: Observed, size: tuple[int, int]) -> list[Meaning]:
    """What a module's output may mean, that which follows the patch best in front.

    Args:
        seen: of a module without a flaw.
        size: height and width of the image, in pixels.
    """
    readings = []
    for axis, answer in seen.answers.items():
        for prefix, behind, grid in grids(answer, size):
            follows, distance = followed(grid)
            shape = grid.shape[1], grid.shape[2]
            meaning = Meaning(axis, prefix, *shape, follows, peak_of(grid), behind)
            readings.append((meaning, distance))
    readings.sort(key=lambda own: (own[0].follows < FOLLOWS, own[1]))
    return [meaning for meaning, _ in readings]


def read_alike(seen: Observed, other: Meaning) -> Meaning:
    """The reading of a module's tokens by which they are laid out as those of another module."""
    answer, shape = seen.answers[other.channel_axis], (other.rows, other.columns)
    front = other.prefix_tokens or 0
    grid = answer[:, front : front + math.prod(shape)].unflatten(1, shape)
    return replace(other, follows=followed(grid)[0], peak=peak_of(grid))


def grids(answer: Tensor, size: tuple[int, int]) -> Iterator[tuple[int | None, int, Tensor]]:
    """The grids (positions, h, w) that an answer may be.

    Each has the number of tokens in front and behind that are no patches. Read as if those behind
    stood in front, every place is shifted along its row: where a place changes far more than the
    others, they stand behind if the patch is nearer then by half a place.
    """
    if answer.ndim == 3:
        if min(answer.shape[1:]) > 1:
            yield None, 0, answer
        return
    count = answer.shape[1]
    for others in range(min(PREFIX, count - 1) + 1):
        shape = places(count - others, size)
        if shape is None or min(shape) < 2:
            continue
        front = others
        if peak_of(answer[:, others:, None]) >= SHARP:
            cut = [answer[:, n : n + count - others].unflatten(1, shape) for n in range(others + 1)]
            far = [error_of(grid) + 0.5 / shape[1] * (n < others) for n, grid in enumerate(cut)]
            front = min(range(others + 1), key=lambda n: (far[n], -n))
        yield front, others - front, answer[:, front : front + count - others].unflatten(1, shape)


def are_apart(meaning: Meaning, answer: Tensor) -> bool:
    """Whether tokens that are no patches stand among the patches, not around as a reading says.

    If they do, some rows are shifted by it, and others are not. It is so if the patch is nearer by
    a quarter of a place with these tokens between two rows. Asked where a place changes far more
    than the others.

    Args:
        meaning: a reading.
        answer: see Observed.
    """
    front, shape = meaning.prefix_tokens, (meaning.rows, meaning.columns)
    if front is None or front + meaning.behind == 0 or meaning.peak < SHARP:
        return False
    others = front + meaning.behind
    straight = error_of(answer[:, front : front + math.prod(shape)].unflatten(1, shape))
    for row in range(1, meaning.rows):
        at = row * meaning.columns
        among = torch.cat([answer[:, :at], answer[:, at + others :]], dim=1).unflatten(1, shape)
        if error_of(among) <= straight - 0.25 / meaning.columns:
            return True
    return False


@cache
def places(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of `count` square patches of an image, or None if they form no grid of it.

    The image may have been padded to whole patches, or what is left over cut off.

    Args:
        count: of the patches.
        size: height and width of the image.
    """
    height, width = size
    wanted = math.sqrt(count * height / width)
    small = [rows for rows in range(1, math.isqrt(count) + 1) if count % rows == 0]
    for rows in sorted(
        {*small, *(count // rows for rows in small)}, key=lambda own: abs(own - wanted)
    ):
        if tiles(height, width, rows, count // rows):
            return rows, count // rows
    return None


def tiles(height: int, width: int, rows: int, columns: int) -> bool:
    """Whether rows and columns of square patches tile an image, padded or with a rest cut off."""
    sides = [(height, rows), (width, columns)]
    padded = max(side / n for side, n in sides)
    least = min(side / (n - 1) if n > 1 else math.inf for side, n in sides)
    cut = max(side / (n + 1) for side, n in sides)
    most = min(side / n for side, n in sides)
    return padded < least or cut < most


def peak_of(grid: Tensor) -> float:
    """How much more the place that changes most does so than all (positions, h, w) on average."""
    changes = grid.flatten(1)
    return float((changes.amax(dim=1) / changes.mean(dim=1).clamp_min(1e-30)).mean())


def followed(grid: Tensor) -> tuple[float, float]:
    """How the place that changes most follows the patch.

    Args:
        grid: changes (positions, h, w).

    Returns:
        the lower rank correlation of the two axes, and the mean distance, see `distance_of`.
    """
    from scipy.stats import spearmanr

    correlations = []
    for found, sides, centre in zip(most_changed(grid), grid.shape[1:], centres(), strict=True):
        expected = (centre * sides).long()
        flat = bool((found == found[0]).all())
        correlations.append(0.0 if flat else float(spearmanr(found, expected).statistic))
    return min(correlations), distance_of(grid)


def distance_of(grid: Tensor) -> float:
    """How far from the patch the place that changes most is, on average, in shares of the image.

    Args:
        grid: changes (positions, h, w).
    """
    pairs = zip(most_changed(grid), grid.shape[1:], centres(), strict=True)
    return sum(float(((own + 0.5) / n - centre).abs().mean()) for own, n, centre in pairs)


def error_of(grid: Tensor) -> float:
    """How far to a side of the patch the places are that change much, see `distance_of`.

    Those that change at least half as much as the one that does so most: the patch may cover many.
    """
    much = (grid >= grid.amax(dim=(1, 2), keepdim=True) / 2).float()
    columns = (torch.arange(grid.shape[2]) + 0.5) / grid.shape[2]
    middle = (much.sum(dim=1) * columns).sum(dim=1) / much.sum(dim=(1, 2))
    return float((middle - centres()[1]).abs().mean())


def most_changed(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column (positions,) of the place of a grid (positions, h, w) that changes most."""
    best = grid.flatten(1).argmax(dim=1)
    return best // grid.shape[2], best % grid.shape[2]


@cache
def centres() -> tuple[Tensor, Tensor]:
    """Where the middle of the patch is at every position, down and across, in shares."""
    middle = (torch.arange(POSITIONS) + 0.5) / POSITIONS
    return middle.repeat_interleave(POSITIONS), middle.repeat(POSITIONS)


def read_tokens(
    classify: Callable[[Tensor], Tensor], network: nn.Module, size: tuple[int, int], layer: str
) -> Tensor:
    """Which tokens the logits are read from (N,), bool, of the last module with as many tokens.

    Args:
        classify: pixels (B, 3, H, W) in [0, 1] through the network.
        network: in eval mode, frozen.
        size: height and width of the image, in pixels.
        layer: a module that gives tokens (B, N, D).
    """
    tokens: list[Tensor] = []
    wanted: list[int] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 3:
            if name == layer:
                wanted.append(output.shape[1])
            tokens.append(output)

    with torch.enable_grad(), hooked(network, note):
        logits = classify(blank(size).requires_grad_())
        if not wanted:
            raise ValueError(f"layer {layer!r} gives no tokens: expected (B, N, D)")
        last = [own for own in tokens if own.shape[1] in wanted][-1]
        (gradient,) = torch.autograd.grad(logits.square().sum(), last)
    return gradient[0].abs().amax(dim=1) > 0


def probe_layers(
    network: nn.Module, mean: Sequence[float], std: Sequence[float], size: int
) -> dict[str, tuple[tuple[int, ...], list[Meaning]]]:
    """What the layers of a network may mean.

    Args:
        network: maps normalised images to logits; in eval mode.
        mean: of the normalisation, one value a channel, in units of pixels in [0, 1].
        std: likewise.
        size: side of its square images, in pixels.

    Returns:
        of every module whose output is one tensor that depends on the image, in running order, the
        shape of that for one image, and its readings, that which follows the image best in front.
    """
    means, deviations = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    seen = observe_modules(
        lambda pixels: network((pixels - means) / deviations), network, (size, size)
    )
    return {
        name: (own.shape, readings_of(own, (size, size)))
        for name, own in seen.items()
        if isinstance(own.shape, tuple) and not own.flaw()
    }
