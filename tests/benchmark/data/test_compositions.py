"""Compositions: determined by the generator, with exact masks; the sample is whole."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.compositions import BACKGROUNDS, Cutout, compose, load_cutouts

SAMPLE = Path(__file__).parents[3] / "data" / "sample"


def square(side: int) -> Cutout:
    """A cut-out with an opaque left half and a transparent right half."""
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 255
    rgba[:, side // 2 :, 3] = 0
    return Cutout("square", 7, "square", rgba)


def test_determined_by_the_generator() -> None:
    first, again, other = (compose(square(40), np.random.default_rng(s), 64) for s in (1, 1, 2))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.provenance() == again.provenance()
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("seed", range(12))
def test_mask_and_object_are_where_the_provenance_says(seed: int) -> None:
    made = compose(square(40), np.random.default_rng(seed), 96)
    assert made.pixels.shape == (3, 96, 96)
    assert made.pixels.dtype == np.uint8
    assert 0 <= made.left <= 96 - made.width
    assert 0 <= made.top <= 96 - made.height
    assert 0.4 * 96 - 1 <= max(made.width, made.height) <= 0.75 * 96 + 1
    rows, columns = np.nonzero(made.mask)
    assert (rows.min(), rows.max()) == (made.top, made.top + made.height - 1)
    half = made.width / 2
    left = made.left + (half if made.flipped else 0)
    assert abs(columns.min() - left) <= 1
    assert abs(columns.max() + 1 - (left + half)) <= 1
    inner = slice(int(left) + 4, int(left + half) - 4)
    assert (
        made.pixels[:, made.top + 4 : made.top + made.height - 4, inner]
        == np.array([200, 0, 0])[:, None, None]
    ).all()


def test_outside_the_object_is_the_background() -> None:
    made = compose(square(40), np.random.default_rng(3), 96)
    rng = np.random.default_rng(3)
    kind = str(rng.choice(list(BACKGROUNDS)))
    background = np.round(BACKGROUNDS[kind](rng, 96).clip(0, 1) * 255).astype(np.uint8)
    outside = np.ones((96, 96), bool)
    outside[made.top : made.top + made.height, made.left : made.left + made.width] = False
    assert made.background == kind
    assert np.array_equal(made.pixels.transpose(1, 2, 0)[outside], background[outside])


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_vary_within_range(kind: str) -> None:
    first, second = (BACKGROUNDS[kind](np.random.default_rng(s), 64) for s in (0, 1))
    for image in (first, second):
        assert image.shape == (64, 64, 3)
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.01
    assert np.abs(first - second).mean() > 0.01


def test_the_sample_is_whole() -> None:
    cutouts = load_cutouts(SAMPLE)
    table = pd.read_csv(SAMPLE / "cutouts.csv")
    files = sorted((SAMPLE / "cutouts").iterdir())
    assert [c.name for c in cutouts] == list(table["object"])
    assert sorted(f.stem for f in files) == sorted(table["object"])
    assert sum(f.stat().st_size for f in files) < 1_500_000
    assert len(cutouts) == 142
    assert len({c.class_index for c in cutouts}) == 115
    assert (table["confidence"] >= 0.5).all()
    assert all(max(c.rgba.shape[:2]) <= 224 for c in cutouts)
    assert all((c.rgba[..., 3] >= 128).any() for c in cutouts)  # the glass is nowhere opaque


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    shutil.copytree(SAMPLE, folder)
    path = folder / "cutouts" / "animals-mammals-zebra.webp"
    path = path if path.exists() else sorted((folder / "cutouts").iterdir())[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=rf"damaged cut-out .*{path.name}.*restore it"):
        load_cutouts(folder)
    path.unlink()
    with pytest.raises(ValueError, match=rf"cannot read cut-out .*{path.name}"):
        load_cutouts(folder)
    path.write_bytes(b"no image")
    table = pd.read_csv(folder / "cutouts.csv")
    table.loc[table["object"] == path.stem, "sha256"] = hashlib.sha256(b"no image").hexdigest()
    table.to_csv(folder / "cutouts.csv", index=False)
    with pytest.raises(ValueError, match=rf"{path.name} is no image"):
        load_cutouts(folder)
