"""ImageNet where it lies: three layouts, lists, checksums, decoding, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import stand_in
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from benchmark import images
from benchmark.commands import index
from benchmark.core import results
from benchmark.core.params import Params, Photographs
from benchmark.data import splits
from benchmark.data.decoding import Crop, decoded
from benchmark.data.splits import Listed, as_pixels, read_training
from methods import Preparation
from methods._inputs import read_photographs


def profile(settings: Params, lists: str = "seeded", train: int | None = None) -> Params:
    """The sample's parameters, of photographs."""
    chosen = Photographs(
        source="photographs",
        folder=Path("data"),
        resize=64,
        size=56,
        train=train,
        validation=4,
        evaluation=3,
        lists=lists,  # type: ignore[arg-type]
    )
    return settings.model_copy(update={"images": chosen})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; the photographs go below `imagenet`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(splits.ROOT, str(tmp_path / "imagenet"))
    return tmp_path / "imagenet"


def write_lists(evaluation: list[str], validation: list[str]) -> None:
    for name, lines in (("Evaluation_2000", evaluation), ("Validation_2000", validation)):
        results.write_text(Path("data") / f"{name}.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("layout", stand_in.LAYOUTS)
def test_every_layout_gives_the_same_splits(layout: str, settings: Params, folder: Path) -> None:
    labels = stand_in.build(folder, layout, train=6, held=9)
    params = profile(settings)
    index.main(params, str(folder))
    images.main(params)
    training = splits.read_training(results.SPLITS)
    assert isinstance(training, splits.Listed)
    assert len(training) == 6
    ids = []
    for name, count in (("evaluation", 3), ("validation", 4)):
        split = splits.read_split(results.SPLITS, name)
        assert split.pixels.shape == (count, 3, 56, 56)
        assert not split.objects.any()
        ids += split.ids
        known = [labels[i] if layout != "original" else -1 for i in split.ids]
        assert split.labels.tolist() == known
        assert set(split.table["list"]) == {"seeded choice, seed 0"}
        assert split.table["sha256"].str.len().eq(64).all()
    assert len(set(ids)) == 7
    assert set(ids) <= set(labels)


def test_the_first_training_images_are_of_many_classes(settings: Params, folder: Path) -> None:
    stand_in.build(folder, "torchvision", train=60, held=9)
    index.main(profile(settings), str(folder))
    listed = pd.read_csv("data/train.csv")
    assert listed["id"].is_unique
    assert len(listed) == 60
    assert set(listed["class_index"][:20].value_counts() > 1) == {True}
    assert listed["class_index"][:20].nunique() == 3


def test_decoding_is_torchvisions(settings: Params, folder: Path) -> None:
    stand_in.build(folder, "torchvision", train=3, held=9)
    params = profile(settings)
    index.main(params, str(folder))
    images.main(params)
    split = splits.read_split(results.SPLITS, "evaluation")
    reference = transforms.Compose(
        [transforms.Resize(64), transforms.CenterCrop(56), transforms.PILToTensor()]
    )
    for path, pixels in zip(split.table["path"], split.pixels, strict=True):
        with Image.open(folder / path) as image:
            assert torch.equal(reference(image.convert("RGB")), pixels)


def test_training_crops_are_seeded_and_new_in_every_epoch(settings: Params, folder: Path) -> None:
    stand_in.build(folder, "original", train=6, held=7)
    params = profile(settings)
    index.main(params, str(folder))
    images.main(params)
    training = splits.read_training(results.SPLITS)
    batches = [
        (0, torch.tensor([0, 3, 5])),
        (0, torch.tensor([1, 2])),
        (1, torch.tensor([3, 0, 5])),
    ]
    first = list(training.stream(batches, seed=0))
    assert [part.shape for part in first] == [(3, 3, 56, 56), (2, 3, 56, 56), (3, 3, 56, 56)]
    assert first[0].dtype == torch.uint8
    assert all(torch.equal(a, b) for a, b in zip(first, training.stream(batches, 0), strict=True))
    (alone,) = training.stream([(0, torch.tensor([3]))], seed=0)
    assert torch.equal(alone[0], first[0][1])
    assert not torch.equal(first[2][0], first[0][1])
    assert not torch.equal(next(training.stream(batches, seed=1)), first[0])


def test_a_random_crop_is_part_of_the_image(tmp_path: Path) -> None:
    """On a picture whose red says the column and green the row, crops are where they say."""
    rows, columns = np.mgrid[:40, :60].astype(np.uint8)
    picture = np.stack([columns * 4, rows * 4, np.zeros_like(rows)], axis=2)
    path = tmp_path / "ramp.png"
    Image.fromarray(picture).save(path)
    seen = set()
    (crops,) = decoded([[(path, seed) for seed in range(60)]], Crop(40, 32))
    for pixels in crops:
        left, right, top = int(pixels[0, 0, 0]), int(pixels[0, 0, -1]), int(pixels[1, 0, 0])
        flipped = left > right
        corner = min(left, right) // 4, top // 4
        expected = picture[corner[1] : corner[1] + 32, corner[0] : corner[0] + 32].transpose(
            2, 0, 1
        )
        found = pixels.flip(2) if flipped else pixels
        assert torch.equal(found, torch.from_numpy(expected.copy()))
        seen.add((flipped, *corner))
    assert len({left for _, left, _ in seen}) > 12
    assert {f for f, _, _ in seen} == {False, True}
    assert {top for _, _, top in seen} >= {0, 8}


def test_the_authors_lists_are_taken_in_their_order(settings: Params, folder: Path) -> None:
    labels = stand_in.build(folder, "original", train=3, held=9)
    names = sorted(labels)
    lines = [f"{name}.JPEG {labels[name]} " for name in names]
    write_lists([lines[4], lines[0], lines[7], lines[8]], lines[1:4] + lines[5:7])
    index.main(profile(settings, "authors"), str(folder))
    evaluation = pd.read_csv("data/evaluation.csv")
    assert evaluation["id"].tolist() == [names[4], names[0], names[7]]
    assert evaluation["class_index"].tolist() == [labels[names[i]] for i in (4, 0, 7)]
    assert set(evaluation["list"]) == {"Evaluation_2000.txt"}


def test_without_the_authors_lists_a_choice_is_drawn_and_reported(
    settings: Params,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def offline(*_: object, **__: object) -> object:
        raise OSError("no network")

    monkeypatch.setattr(index.urllib.request, "urlopen", offline)
    stand_in.build(folder, "torchvision", train=3, held=9)
    index.main(profile(settings, "authors"), str(folder))
    assert "cannot be fetched (no network): drawing a seeded choice" in capsys.readouterr().out
    assert set(pd.read_csv("data/evaluation.csv")["list"]) == {"seeded choice, seed 0"}


def test_fetched_lists_are_verified(
    settings: Params, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer:
        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> bytes:
            return b"ILSVRC2012_val_00000001.JPEG 3\n"

    monkeypatch.setattr(index.urllib.request, "urlopen", lambda *_, **__: Answer())
    stand_in.build(folder, "torchvision", train=3, held=9)
    with pytest.raises(
        ValueError, match=r"Evaluation_2000.txt has the checksum \w+: expected fa82"
    ):
        index.main(profile(settings, "authors"), str(folder))
    assert not Path("data").exists()


def test_wrong_folders_and_lists_are_refused(settings: Params, folder: Path) -> None:
    params = profile(settings, "authors")
    with pytest.raises(ValueError, match="imagenet is no ImageNet: expected the folders train and"):
        index.main(params, str(folder))
    labels = stand_in.build(folder, "torchvision", train=3, held=9)
    good = [f"{name}.JPEG {label}" for name, label in sorted(labels.items())]
    wrong = {
        r"line 2 is 'x.JPEG': expected a file and a label": [good[0], "x.JPEG", *good[1:4]],
        r"line 1 is 'x.JPEG 1000': expected": ["x.JPEG 1000", *good[:4]],
        r"names ILSVRC2012_val_99, which is not among": ["ILSVRC2012_val_99.JPEG 3", *good[:4]],
        r"the label 5: its folder says": [good[0].split()[0] + " 5", *good[1:4]],
        r"has 2 images: expected at least 3": good[:2],
        r"is in both lists": good[4:7],
    }
    for message, evaluation in wrong.items():
        write_lists(evaluation, good[4:8])
        with pytest.raises(ValueError, match=message):
            index.main(params, str(folder))
    (folder / "train" / "kittens").mkdir()
    write_lists(good[:3], good[4:8])
    with pytest.raises(ValueError, match="kittens is no class of ImageNet"):
        index.main(params, str(folder))
    assert not Path("data/train.csv").exists()


def test_too_many_are_refused(settings: Params, folder: Path) -> None:
    stand_in.build(folder, "torchvision", train=3, held=6)
    with pytest.raises(ValueError, match="wants 7 held-out images: there are 6"):
        index.main(profile(settings), str(folder))
    stand_in.build(folder, "torchvision", train=3, held=9)
    with pytest.raises(ValueError, match=r"images.train is 4: .* has 3"):
        index.main(profile(settings, train=4), str(folder))


@pytest.mark.parametrize("layout", stand_in.LAYOUTS)
def test_what_is_beside_the_photographs_is_none(
    layout: str, settings: Params, folder: Path
) -> None:
    """Hidden files that macOS leaves, and a folder that is called like a photograph."""
    stand_in.build(folder, layout, train=3, held=9)
    index.main(profile(settings), str(folder))
    names = [Path("data") / f"{name}.csv" for name in ("train", "validation", "evaluation")]
    before = [name.read_bytes() for name in names]
    for file in list(folder.rglob("*.JPEG")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
    flat = [file.parent for file in folder.rglob("ILSVRC2012_val_*.JPEG")]
    if len(set(flat)) == 1:
        (flat[0] / "x.JPEG").mkdir()
    index.main(profile(settings), str(folder))
    assert [name.read_bytes() for name in names] == before


def test_an_empty_photograph_is_refused(settings: Params, folder: Path) -> None:
    stand_in.build(folder, "torchvision", train=3, held=9)
    victim = sorted(folder.rglob("*.JPEG"))[0]
    victim.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{victim.name} is empty: expected a photograph"):
        index.main(profile(settings), str(folder))


def test_a_crop_larger_than_the_image_is_refused() -> None:
    common = {"source": "photographs", "folder": "data", "validation": 4, "evaluation": 3}
    with pytest.raises(ValueError, match=r"images.resize is 55, images.size 56: expected"):
        Photographs.model_validate({**common, "resize": 55, "size": 56, "lists": "seeded"})


def test_changed_missing_and_damaged_photographs_are_refused(
    settings: Params, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.build(folder, "torchvision", train=3, held=9)
    params = profile(settings)
    with pytest.raises(
        ValueError, match=r"data/train.csv not found: run `python -m benchmark index"
    ):
        images.main(params)
    index.main(params, str(folder))
    victim = folder / pd.read_csv("data/evaluation.csv")["path"][1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=f"{victim.name} has changed: list them again"):
        images.main(params)
    victim.unlink()
    with pytest.raises(ValueError, match=f"{victim.name} not found"):
        images.main(params)
    victim.write_bytes(whole[: len(whole) // 2])
    index.main(params, str(folder))
    with pytest.raises(ValueError, match=f"^cannot read the photograph [^\n]*{victim.name}[^\n]*$"):
        images.main(params)
    assert not [path for path in Path("results").rglob("*") if path.is_file()]
    monkeypatch.delenv(splits.ROOT)
    with pytest.raises(ValueError, match="BENCHMARK_IMAGES is not set"):
        images.main(params)
    monkeypatch.setenv(splits.ROOT, "/nowhere")
    with pytest.raises(ValueError, match="BENCHMARK_IMAGES is /nowhere: expected an existing"):
        images.main(params)


def test_orientation_in_the_file_is_left_alone(tmp_path: Path) -> None:
    """As torchvision and timm do for ImageNet, whose networks learned from pixels as they lie."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == 3
    (found,) = decoded([[(path, None)]], Crop(64, 64))
    assert torch.equal(found[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_deep_and_huge_photographs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PIL cuts 16 bits off at 255, and takes a huge one for an attack."""
    deep, huge = tmp_path / "deep.png", tmp_path / "huge.png"
    Image.fromarray(np.full((64, 64), 40000, np.uint16)).save(deep)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(huge)
    with pytest.raises(ValueError, match=r"photograph .*deep.png has more than 8 bits a channel"):
        list(decoded([[(deep, None)]], Crop(64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"cannot read the photograph .*huge.png: Image size"):
        list(decoded([[(huge, None)]], Crop(64, 64)))


def test_there_may_be_no_validation_images(settings: Params, folder: Path) -> None:
    stand_in.build(folder, "torchvision", train=2, held=3)
    params = profile(settings)
    none = params.images.model_copy(update={"validation": 0, "train": 2})
    params = params.model_copy(update={"images": none})
    index.main(params, str(folder))
    images.main(params)
    split = splits.read_split(results.SPLITS, "validation")
    assert split.pixels.shape == (0, 3, 56, 56)
    assert len(splits.read_split(results.SPLITS, "evaluation")) == 3


def test_photographs_are_as_a_backbone_reads_them(tmp_path: Path) -> None:
    """Those of one's own: turned as they say, and resized as it is said."""
    rng = np.random.default_rng(0)
    lying = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    crop = Crop(72, 64, "bicubic", upright=True)
    (found,) = decoded([[(tmp_path / "lying.png", None)]], crop)
    expected = read_photographs([tmp_path / "lying.png"], Preparation(72, 64, "bicubic"))
    assert torch.equal(as_pixels(found), expected)


def test_training_photographs_remember_their_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_IMAGES", str(tmp_path))
    crop = Crop(72, 64, "lanczos", upright=True)
    listed = Listed(pd.DataFrame({"id": ["a"], "path": ["a.png"]}), tmp_path, crop)
    save_file(listed.tensors, tmp_path / "train.safetensors")
    listed.table.to_csv(tmp_path / "train.csv", index=False)
    read = read_training(tmp_path)
    assert isinstance(read, Listed)
    assert read.crop == crop
