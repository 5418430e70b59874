"""The sample's images: photographic cut-outs on generated backgrounds, and splits of them."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from benchmark.data.seeds import seed_of
from benchmark.data.splits import Place, Split, blank

RECOGNISED = "recognised.csv"
"""Lists the held-out compositions whose object the classifier names: split, seed, size, number."""

LONGER_SIDE = (0.4, 0.75)
"""The object's longer side as a share of the image's, drawn uniformly."""

BACKGROUND_CONTRAST = (0.08, 0.22)
"""Standard deviation of a background's structure, in pixels of [0, 1], drawn uniformly."""


@dataclass(frozen=True)
class Cutout:
    """An object without its background.

    Attributes:
        name: of its file.
        class_index: of the ImageNet class it shows.
        class_name: of that class.
        rgba: uint8 (h, w, 4).
    """

    name: str
    class_index: int
    class_name: str
    rgba: NDArray[np.uint8]


@dataclass(frozen=True)
class Composition:
    """An image made of a cut-out and a background.

    Attributes:
        pixels: uint8 (3, H, W).
        mask: bool (H, W), where the object covers at least half of a pixel.
        cutout: the object.
        background: the kind of background.
        width, height: of the object, in pixels, before its transparent parts are counted off.
        left, top: its place, in pixels.
        flipped: whether left and right are exchanged.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    cutout: Cutout
    background: str
    width: int
    height: int
    left: int
    top: int
    flipped: bool

    @property
    def class_index(self) -> int:
        """The ImageNet class of the object."""
        return self.cutout.class_index

    def provenance(self) -> dict[str, object]:
        """What the image was made of, a column each."""
        return {
            "class_index": self.cutout.class_index,
            "class_name": self.cutout.class_name,
            "object": self.cutout.name,
            "background": self.background,
            "width": self.width,
            "height": self.height,
            "left": self.left,
            "top": self.top,
            "flipped": self.flipped,
        }


def load_cutouts(folder: Path) -> list[Cutout]:
    """The cut-outs of `folder`/cutouts.csv, in its order.

    Raises:
        ValueError: a file is missing, damaged or not the one the table describes.
    """
    table = pd.read_csv(folder / "cutouts.csv")
    return [
        Cutout(
            name=row.object,
            class_index=int(row.class_index),
            class_name=row.class_name,
            rgba=_read(folder / "cutouts" / f"{row.object}.webp", row.sha256),
        )
        for row in table.itertuples()
    ]


def _read(path: Path, sha256: str) -> NDArray[np.uint8]:
    advice = "restore it from git, or rebuild it with data/sample/rebuild.py"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read cut-out {path}: {error.strerror}; {advice}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"damaged cut-out {path}: SHA-256 {found[:12]}…, expected {sha256[:12]}…; {advice}"
        )
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"cut-out {path} is no image: {error}; {advice}") from error


def compose(cutout: Cutout, rng: Generator, size: int = 224) -> Composition:
    """The cut-out at a random scale, place and flip on a random background.

    Args:
        cutout: the object.
        rng: the only source of randomness.
        size: side of the image, in pixels.
    """
    kind = str(rng.choice(list(BACKGROUNDS)))
    background = BACKGROUNDS[kind](rng, size)
    height, width = cutout.rgba.shape[:2]
    scale = rng.uniform(*LONGER_SIDE) * size / max(height, width)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
    flipped = bool(rng.random() < 0.5)
    premultiplied = Image.fromarray(cutout.rgba).convert("RGBa")
    resized = premultiplied.resize((width, height), Image.Resampling.BICUBIC)
    layer = np.asarray(resized, np.float32)[:, :: -1 if flipped else 1] / 255
    pixels = background.copy()
    mask = np.zeros((size, size), np.bool_)
    window = (slice(top, top + height), slice(left, left + width))
    pixels[window] = layer[..., :3] + (1 - layer[..., 3:]) * background[window]
    mask[window] = layer[..., 3] >= 0.5
    return Composition(
        pixels=np.round(pixels.clip(0, 1) * 255).astype(np.uint8).transpose(2, 0, 1).copy(),
        mask=mask,
        cutout=cutout,
        background=kind,
        width=width,
        height=height,
        left=left,
        top=top,
        flipped=flipped,
    )


def _colour(rng: Generator) -> NDArray[np.float32]:
    """A muted colour: any lightness, little saturation."""
    return (rng.uniform(0.2, 0.8) + rng.normal(0, 0.08, 3)).astype(np.float32)


def _spectral(rng: Generator, size: int, exponent: float) -> NDArray[np.float32]:
    """Three correlated channels of 1/f**exponent noise, (size, size, 3), mean 0 and deviation 1."""
    y, x = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.maximum(np.hypot(y, x), 1 / size)
    white = rng.standard_normal((2, size, size))
    fields = np.fft.irfft2(np.fft.rfft2(white) * frequency**-exponent, s=(size, size))
    fields = (fields - fields.mean((1, 2), keepdims=True)) / fields.std((1, 2), keepdims=True)
    mixing = np.stack([np.ones(3), rng.normal(0, 0.4, 3)])
    mixing /= np.linalg.norm(mixing, axis=0)
    image: NDArray[np.float32] = np.einsum("fhw,fc->hwc", fields, mixing).astype(np.float32)
    return image


def _painted(rng: Generator, structure: NDArray[np.float32]) -> NDArray[np.float32]:
    """A colour and a structure of deviation 1 as an image (H, W, 3) in [0, 1]."""
    return (_colour(rng) + rng.uniform(*BACKGROUND_CONTRAST) * structure).clip(0, 1)


def _gradient(rng: Generator, size: int) -> NDArray[np.float32]:
    """From one colour to another along a random direction, with a little grain."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2) + 0.5
    place: NDArray[np.float32] = along.astype(np.float32)[..., None]
    field = (1 - place) * _colour(rng) + place * _colour(rng)
    grain = np.float32(0.01) * _spectral(rng, size, 0.5)
    image: NDArray[np.float32] = (field + grain).clip(0, 1)
    return image


def _clouds(rng: Generator, size: int) -> NDArray[np.float32]:
    """1/f noise of natural images' slope and steeper."""
    return _painted(rng, _spectral(rng, size, rng.uniform(1.2, 2.2)))


def _gravel(rng: Generator, size: int) -> NDArray[np.float32]:
    """1/f noise with much fine structure."""
    return _painted(rng, _spectral(rng, size, rng.uniform(0.4, 0.9)))


def _blotches(rng: Generator, size: int) -> NDArray[np.float32]:
    """Smooth regions with soft borders: saturated low-frequency noise."""
    steep = np.tanh(2.5 * _spectral(rng, size, 2.0))
    return _painted(rng, steep + np.float32(0.15) * _spectral(rng, size, 0.8))


def _stripes(rng: Generator, size: int) -> NDArray[np.float32]:
    """Soft, slightly bent stripes."""
    angle, cycles = rng.uniform(0, np.pi), rng.uniform(3, 14)
    y, x = np.mgrid[:size, :size] / size
    bend = 0.02 * _spectral(rng, size, 2.0)[..., 0]
    phase = 2 * np.pi * (cycles * (x * np.cos(angle) + y * np.sin(angle) + bend) + rng.random())
    wave = (np.sqrt(2) * np.sin(phase)).astype(np.float32)[..., None]
    return _painted(rng, np.float32(0.7) * wave + np.float32(0.4) * _spectral(rng, size, 1.0))


BACKGROUNDS: dict[str, Callable[[Generator, int], NDArray[np.float32]]] = {
    "gradient": _gradient,
    "clouds": _clouds,
    "gravel": _gravel,
    "blotches": _blotches,
    "stripes": _stripes,
}
"""Kinds of background: (generator, side) to an image (H, W, 3) in [0, 1]."""


def make_splits(
    folder: Path, counts: dict[str, int], *, seed: int, size: int, place: Place = blank
) -> dict[str, Split]:
    """The splits of the sample, by name.

    Args:
        folder: of the cut-outs.
        counts: how many images of each split.
        seed: of all compositions.
        size: side of the images, in pixels.
        place: where they are put.

    Raises:
        ValueError: damaged cut-outs, or more held-out images than are listed.
    """
    cutouts = load_cutouts(folder)
    numbers = {name: chosen(folder, name, count, seed, size) for name, count in counts.items()}
    splits = {}
    for name, own in numbers.items():
        progress = tqdm(own, desc=f"images: {name}", unit="image", disable=None)
        splits[name] = compose_split(name, progress, cutouts, seed, size, place)
    refuse_repeats(splits)
    return splits


def chosen(folder: Path, name: str, count: int, seed: int, size: int) -> list[int]:
    """The numbers of the first `count` compositions of a split.

    Training takes all there are; held-out splits those on which the classifier names the object, as
    `folder`/recognised.csv lists them: asked anew, it could answer otherwise on another processor.

    Raises:
        ValueError: the list has fewer of this seed and size.
    """
    if name == "train":
        return list(range(count))
    path = folder / RECOGNISED
    table = pd.read_csv(path)
    own = table[(table["split"] == name) & (table["seed"] == seed) & (table["size"] == size)]
    if len(own) < count:
        raise ValueError(
            f"{path} lists {len(own)} images of {name} for seed {seed} and size {size}: expected "
            f"{count}, set images.{name} lower or list more (data/sample/recognise.py)"
        )
    numbers: list[int] = own["number"].head(count).tolist()
    return numbers


def compose_numbered(
    name: str, number: int, cutouts: list[Cutout], seed: int, size: int
) -> Composition:
    """The composition of a number, of endless ones: each object once, in a new order, again."""
    first = number - number % len(cutouts)
    order = np.random.default_rng(seed_of(seed, name, "order", first)).permutation(len(cutouts))
    rng = np.random.default_rng(seed_of(seed, name, number))
    return compose(cutouts[order[number - first]], rng, size)


def compose_split(
    name: str,
    numbers: Collection[int],
    cutouts: list[Cutout],
    seed: int,
    size: int,
    place: Place = blank,
) -> Split:
    """The compositions of some numbers, as a split; see `compose_numbered`."""
    tensors, rows = place(name, len(numbers), size), []
    for at, number in enumerate(numbers):
        made = compose_numbered(name, number, cutouts, seed, size)
        tensors["pixels"][at] = torch.from_numpy(made.pixels)
        tensors["objects"][at] = torch.from_numpy(made.mask)
        tensors["labels"][at] = made.class_index
        rows.append({"id": f"{name}-{number:05d}"} | made.provenance())
    columns = None if rows else ["id", "class_index", "class_name"]
    return Split(table=pd.DataFrame(rows, columns=columns), **tensors)


def refuse_repeats(splits: dict[str, Split]) -> None:
    """Refuse a composition that stands in two places.

    Raises:
        ValueError: says how many do.
    """
    images = (image for split in splits.values() for image in split.pixels)
    seen = Counter(hashlib.blake2b(image.numpy(), digest_size=16).digest() for image in images)
    repeated = sum(count - 1 for count in seen.values())
    if repeated:
        raise ValueError(f"{repeated} compositions occur twice: expected none, change the seed")
