"""Pictures of maps: sparse ones are visible, blank ones say why, columns say what is explained."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.report import heat_maps


def test_a_sparse_map_is_visible() -> None:
    """Of 200 bright pixels of 10,000 a single one is a hundred times brighter than the others."""
    rng = np.random.default_rng(0)
    sparse = np.zeros((1, 100, 100), np.float32)
    sparse.reshape(-1)[rng.choice(10_000, 200, replace=False)] = 0.01
    sparse[0, 5, 5] = 1.0
    found = heat_maps.shown(sparse, (100, 100))
    assert (found[sparse > 0] == 1).all()
    assert (found[sparse == 0] == 0).all()


def test_maps_are_shown_by_their_percentile() -> None:
    ramp = np.linspace(0, 1, 10_001, dtype=np.float32)[:10_000].reshape(1, 100, 100)
    found = heat_maps.shown(ramp, (100, 100))
    top = np.quantile(ramp / ramp.max(), 0.99)
    assert np.allclose(found, np.minimum(ramp / ramp.max() / top, 1), atol=1e-5)


def test_a_large_photograph_has_an_overlay() -> None:
    """Of more pixels than torch's quantile takes."""
    assert heat_maps.overlay(torch.zeros(3, 4200, 4200), torch.rand(2, 2)).size == (4200, 4200)


def test_fewer_pixels_than_the_percentile_are_shown_as_they_are() -> None:
    one = np.zeros((1, 20, 20), np.float32)
    one[0, 3, 4] = 0.5
    assert heat_maps.shown(one, (20, 20)).sum() == 1


def test_an_overlay_is_colours_over_greys() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    map_ = torch.zeros(8, 8)
    map_[2:, :] = 1.0
    found = np.asarray(heat_maps.overlay(image, map_, opacity=0.25), np.float32) / 255
    colours = np.array([mpl.colormaps["inferno"](value)[:3] for value in (0.0, 1.0)])
    grey = image.mean(dim=0).numpy()
    expected = 0.75 * grey[..., None] + 0.25 * colours[map_.numpy().astype(int)]
    assert np.allclose(found, expected, atol=1 / 255)
    plain = np.asarray(heat_maps.overlay(image, map_, opacity=0.0), np.float32) / 255
    assert np.allclose(plain, grey[..., None], atol=1 / 255)


@pytest.mark.parametrize(
    ("image", "map_", "opacity", "message"),
    [
        (
            torch.zeros(1, 3, 8, 8),
            torch.zeros(8, 8),
            0.5,
            r"shapes \(1, 3, 8, 8\) and \(8, 8\): ex",
        ),
        (torch.zeros(3, 8, 8), torch.zeros(1, 8, 8), 0.5, r"expected \(3, H, W\) and \(h, w\)"),
        (torch.full((3, 8, 8), 7.0), torch.zeros(8, 8), 0.5, r"pixels range from 7 to 7: expected"),
        (torch.zeros(3, 8, 8), torch.zeros(8, 8), 2.0, "opacity is 2.0: expected 0 to 1"),
    ],
)
def test_what_is_no_map_over_an_image_is_refused(
    image: torch.Tensor, map_: torch.Tensor, opacity: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        heat_maps.overlay(image, map_, opacity)


def test_blank_maps_say_why() -> None:
    ramp = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert heat_maps.why_blank(ramp) == ""
    assert heat_maps.why_blank(np.full((2, 2), 0.3, np.float32)) == "one value"
    assert heat_maps.why_blank(np.array([[np.nan, 1.0]], np.float32)) == "NaN"
    explainers = pd.DataFrame({"explainer": ["a"], "label": ["A"], "kind": ["CAM"]})
    images = np.zeros((2, 16, 16, 3), np.float32)
    maps = [np.stack([ramp, np.zeros((2, 2), np.float32)])]
    figure = heat_maps.heat_maps(explainers, ["x", "y"], images, maps)
    written = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert written == ["", "one value"]


def test_columns_say_what_is_explained() -> None:
    """A map of rock crab does not stand under the name of the image, loggerhead."""
    targets = pd.DataFrame(
        {
            "class_index": [119, 33, 5, 7],
            "class_name": ["rock crab", "loggerhead", np.nan, "cock"],
            "probability": [34.2, 99.0, 1.0, 50.0],
        }
    )
    table = pd.DataFrame(
        {
            "class_index": [33, 33, 5, -1],
            "class_name": ["loggerhead", "loggerhead", "electric ray", "unknown"],
        }
    )
    found: list[dict[str, Any]] = heat_maps.with_labels(targets, table)
    assert [heat_maps.named(own) for own in found] == [
        "rock crab, 34.2\xa0% (is loggerhead)",
        "loggerhead, 99\xa0%",
        "class 5, 1\xa0%",
        "cock, 50\xa0%",
    ]
    bare = heat_maps.with_labels(targets, pd.DataFrame({"id": list("abcd")}))
    assert heat_maps.named(bare[0]) == "rock crab, 34.2\xa0%"
