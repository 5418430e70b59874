"""Classes that a trained explainer never saw: counted in training, refused when explained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from methods import Backbone, TrainableExplainer
from methods.lcam_fm import LCAMFm
from methods.lcam_img import LCAMImg
from methods.tame import TAME
from methods.ttame import TTAME

LABELS = torch.tensor([1, 4, 1])
TRAINABLE = pytest.mark.parametrize("cls", [TTAME, TAME, LCAMImg, LCAMFm])


@TRAINABLE
@pytest.mark.parametrize("masking", ["random", "diagonal"])
def test_losses_count_the_labels_of_every_step(
    cls: type[TrainableExplainer], masking: str, cnn: Backbone, pixels: Tensor
) -> None:
    explainer = cls(cnn, masking=masking)  # type: ignore[call-arg]
    assert explainer.class_counts is None
    for _ in range(2):
        explainer.losses(pixels, LABELS)
    assert explainer.class_counts is not None
    assert explainer.class_counts.tolist() == [0, 4, 0, 0, 2]
    explainer.losses(pixels)
    assert torch.equal(
        explainer.class_counts - torch.tensor([0, 4, 0, 0, 2]),
        cnn.predict(pixels).bincount(minlength=5),
    )


@TRAINABLE
def test_a_class_without_a_training_image_is_refused(
    cls: type[TrainableExplainer], cnn: Backbone, pixels: Tensor
) -> None:
    """Its map would be that of initial weights, as all are before training."""
    explainer, targets = cls(cnn), torch.tensor([4, 1, 2])
    maps = explainer.explain(pixels, targets)
    with pytest.raises(ValueError, match=r"is not trained, so that its map would be noise"):
        explainer(pixels, targets)
    assert explainer.seen_classes() == []
    explainer.class_counts = torch.tensor([0, 4, 0, 0, 2])
    assert explainer.unseen(targets).tolist() == [False, False, True]
    with pytest.raises(
        ValueError, match=r"was of class 2, .*one of the 2 classes that it saw \(1, 4; see"
    ):
        explainer(pixels, targets)
    assert explainer.seen_classes() == [1, 4]
    assert torch.equal(explainer(pixels[:2], targets[:2]), maps[:2])
    explainer.allows_unseen = True
    assert torch.equal(explainer(pixels, targets), maps)


def write_state(path: Path, explainer: TrainableExplainer, metadata: dict[str, object]) -> Path:
    state = dict(explainer.attention.state_dict())
    save_file(state, path, {"provenance": json.dumps(metadata)} if metadata else None)
    return path


def test_counts_come_with_the_state(cnn: Backbone, tmp_path: Path) -> None:
    counts = [0, 4, 0, 0, 2]
    path = write_state(tmp_path / "a", TTAME(cnn), {"commit": "x", "class_counts": counts})
    explainer = TTAME(cnn)
    explainer.load_state(path)
    assert explainer.class_counts is not None
    assert explainer.class_counts.tolist() == counts
    for unknown in ({}, {"commit": "x"}, {"class_counts": None}):
        explainer = TTAME(cnn)
        explainer.load_state(write_state(tmp_path / "b", TTAME(cnn), unknown))
        assert explainer.class_counts is None
        explainer(torch.rand(1, 3, 32, 32), torch.tensor([0]))  # nobody can tell


def test_a_state_says_what_it_is_of(cnn: Backbone, pixels: Tensor, tmp_path: Path) -> None:
    """TAME and T-TAME have the same tensors, and so have two trainings of a network."""
    trained = TTAME(cnn)
    trained.losses(pixels, LABELS)
    origin = trained.origin()
    assert origin == {
        "explainer": "TTAME",
        "backbone": cnn.digest,
        "class_counts": [0, 2, 0, 0, 1],
    }
    path = write_state(tmp_path / "a", trained, origin)
    TTAME(cnn).load_state(path)
    with pytest.raises(ValueError, match=r"is of explainer TTAME: expected TAME, on 'tiny_cnn'"):
        TAME(cnn).load_state(path)
    with torch.no_grad():
        next(cnn.network.parameters()).add_(1)
    other = Backbone(
        cnn.network, name="other", mean=[0.5] * 3, std=[0.5] * 3, size=cnn.size, classes=5,
        taps=cnn.taps, cam_layer=cnn.cam_layer,
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"backbone {cnn.digest[:24]}: expected .* on 'other'"):
        TTAME(other).load_state(path)


def test_training_goes_on_from_what_it_says(cnn: Backbone, pixels: Tensor) -> None:
    trained, resumed = TTAME(cnn), TTAME(cnn, seed=1)
    resumed.load_state_dict(trained.state_dict())
    assert resumed.class_counts is None
    trained.losses(pixels, LABELS)
    resumed.load_state_dict(trained.state_dict())
    assert resumed.origin() == trained.origin()
    tensors = (e.attention.state_dict().values() for e in (trained, resumed))
    assert all(map(torch.equal, *tensors))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([1], "cannot read the trained state"),
        ({"class_counts": "abcde"}, "has class_counts that are no counts"),
        ({"class_counts": {str(i): 1 for i in range(5)}}, "has class_counts that are no counts"),
        ({"class_counts": [1, -1, 1, 1, 1]}, "has class_counts that are no counts"),
        ({"explainer": "TAME"}, "is of explainer TAME: expected TTAME"),
    ],
)
def test_metadata_of_somebody_is_checked_before_anything_is_taken(
    metadata: dict[str, object], message: str, cnn: Backbone, tmp_path: Path
) -> None:
    path, explainer = write_state(tmp_path / "a", TTAME(cnn, seed=1), metadata), TTAME(cnn)
    with pytest.raises(ValueError, match=message):
        explainer.load_state(path)
    tensors = (e.attention.state_dict().values() for e in (explainer, TTAME(cnn)))
    assert all(map(torch.equal, *tensors))


def test_a_state_that_is_not_finite_is_refused(cnn: Backbone, tmp_path: Path) -> None:
    broken = TTAME(cnn)
    with torch.no_grad():
        next(broken.attention.parameters())[0, 0] = torch.nan
    path = write_state(tmp_path / "a", broken, {"commit": "x"})
    with pytest.raises(ValueError, match=r"holds NaN or infinite values, in convs.0.weight"):
        TTAME(cnn).load_state(path)


def test_counts_of_another_network_are_refused(cnn: Backbone, tmp_path: Path) -> None:
    path = write_state(tmp_path / "a", TTAME(cnn), {"class_counts": [1, 2]})
    with pytest.raises(ValueError, match="counts the images of 2 classes: expected the 5 of"):
        TTAME(cnn).load_state(path)
