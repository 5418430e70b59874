"""TAME and L-CAM against their formulas, written out by hand; T-TAME has a file of its own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods import Backbone, Passes, TrainableExplainer
from methods._base import normalise
from methods.lcam_fm import LCAMFm
from methods.lcam_img import LCAMImg
from methods.tame import TAME
from methods.ttame import TTAME

TARGETS = torch.tensor([0, 3, 1])
LABELS = torch.tensor([1, 4, 1])


def last_features(backbone: Backbone, pixels: Tensor) -> Tensor:
    with torch.no_grad(), backbone.tap(["2"]) as outputs:
        backbone(pixels)
    return outputs["2"]


@pytest.mark.parametrize("cls", [LCAMImg, LCAMFm])
def test_lcam_maps_by_hand(cls: type[TrainableExplainer], cnn: Backbone, pixels: Tensor) -> None:
    explainer = cls(cnn)
    weight, bias = explainer.attention.op.weight, explainer.attention.op.bias  # type: ignore[union-attr]
    features = last_features(cnn, pixels)
    expected = torch.stack(
        [
            sum(weight[t, c, 0, 0] * image[c] for c in range(8)) + bias[t]  # type: ignore[index, misc]
            for image, t in zip(features, TARGETS, strict=True)
        ]
    )
    assert torch.allclose(
        explainer.explain(pixels, TARGETS), normalise(expected.detach()), atol=1e-5
    )


def masks_by_hand(explainer: TrainableExplainer, features: Tensor) -> Tensor:
    """The masks (B, L, h, w) of all labels of the batch for every image."""
    op = explainer.attention.op
    maps = torch.einsum("kc,bchw->bkhw", op.weight[:, :, 0, 0], features)  # type: ignore[union-attr, index]
    return (maps + op.bias[:, None, None]).sigmoid()[:, LABELS]  # type: ignore[union-attr, index]


def terms_by_hand(masks: Tensor) -> tuple[Tensor, Tensor]:
    area = ((masks + 0.0005) ** 0.3).mean()
    vertical = (masks[..., 1:, :] - masks[..., :-1, :]).pow(2).sum()
    horizontal = (masks[..., :, 1:] - masks[..., :, :-1]).pow(2).sum()
    edges = (masks[..., 0, :], masks[..., -1, :], masks[..., 0], masks[..., -1])
    borders = sum(edge.pow(2).sum() for edge in edges)
    return area, (vertical + horizontal + 0.3 * borders) / (2 * len(masks))


def test_lcam_img_masks_the_image(cnn: Backbone, pixels: Tensor) -> None:
    explainer = LCAMImg(cnn)
    losses = explainer.losses(pixels, LABELS)
    masks = masks_by_hand(explainer, last_features(cnn, pixels))
    own = torch.stack([masks[i, i] for i in range(3)])
    resized = F.interpolate(own[:, None], size=(32, 32), mode="bilinear")
    entropy = F.cross_entropy(cnn(pixels * resized), LABELS)
    area, smooth = terms_by_hand(masks)
    assert torch.allclose(losses["cross_entropy"], entropy, atol=1e-6)
    assert torch.allclose(losses["loss"], 1.5 * entropy + 2 * area + 0.01 * smooth, rtol=1e-5)


def test_lcam_fm_masks_the_features(cnn: Backbone, pixels: Tensor) -> None:
    explainer = LCAMFm(cnn)
    losses = explainer.losses(pixels, LABELS)
    features = last_features(cnn, pixels)
    masks = masks_by_hand(explainer, features)
    own = torch.stack([masks[i, i] for i in range(3)])
    entropy = F.cross_entropy(cnn.network[3](features * own[:, None]), LABELS)  # type: ignore[index, operator]
    area, smooth = terms_by_hand(masks)
    assert torch.allclose(losses["cross_entropy"], entropy, atol=1e-6)
    assert torch.allclose(losses["loss"], 1.5 * entropy + 2 * area + 0.01 * smooth, rtol=1e-5)
    losses["loss"].backward()
    assert all(p.grad is not None for p in explainer.attention.parameters())


def test_lcam_reads_the_last_layer_alone(cnn: Backbone) -> None:
    assert [tuple(p.shape) for p in LCAMImg(cnn).attention.parameters()] == [(5, 8, 1, 1), (5,)]
    assert set(LCAMFm(cnn).attention.state_dict()) == {"op.weight", "op.bias"}


def test_tame_on_a_cnn_is_ttame(cnn: Backbone, pixels: Tensor) -> None:
    tame, ttame = TAME(cnn, seed=4), TTAME(cnn, seed=4)
    assert torch.equal(tame.explain(pixels, TARGETS), ttame.explain(pixels, TARGETS))
    assert torch.equal(tame.losses(pixels)["loss"], ttame.losses(pixels)["loss"])


def test_tame_on_tokens_drops_cls(vit: Backbone, pixels: Tensor) -> None:
    tame = TAME(vit)
    assert torch.equal(
        tame.explain(pixels, TARGETS), TTAME(vit, tokens="drop").explain(pixels, TARGETS)
    )
    assert not torch.allclose(
        tame.explain(pixels, TARGETS), TTAME(vit).explain(pixels, TARGETS), atol=1e-3
    )


@pytest.mark.parametrize("cls", [TTAME, TAME, LCAMImg, LCAMFm])
def test_a_map_costs_one_forward_pass(
    cls: type[TrainableExplainer], cnn: Backbone, pixels: Tensor
) -> None:
    explainer = cls(cnn)
    cnn.passes = Passes()
    explainer.explain(pixels, TARGETS)
    assert cnn.passes == Passes(3, 0)
