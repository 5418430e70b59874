"""T-TAME against its formulas, written out by hand."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from methods import Backbone
from methods._attention import (
    AttentionMechanism,
    SelfAttention,
    area,
    heads,
    masked_images,
    smoothness,
)
from methods.ttame import TTAME


def by_hand(mechanism: AttentionMechanism, features: list[Tensor], skip: bool) -> Tensor:
    """All K class maps, as the paper's figure draws them."""
    branches = []
    for i, feature in enumerate(features):
        conv, bn = mechanism.convs[i], mechanism.bns[i]
        x = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], feature)
        x = x + conv.bias[None, :, None, None]
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        x = (x - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]
        x = (x + feature if skip else x).clamp_min(0)
        branches.append(F.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False))
    fused = torch.cat(branches, dim=1)
    maps = torch.einsum("ki,bihw->bkhw", mechanism.fuser.weight[:, :, 0, 0], fused)
    return maps + mechanism.fuser.bias[None, :, None, None]


@pytest.mark.parametrize("skip", [True, False])
def test_class_maps_by_hand(skip: bool) -> None:
    torch.manual_seed(0)
    mechanism = AttentionMechanism([2, 3], classes=6, skip=skip).eval()
    for bn in mechanism.bns:
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    features = [torch.randn(2, 2, 8, 8), torch.randn(2, 3, 4, 4)]
    everything = by_hand(mechanism, features, skip)
    classes = torch.tensor([4, 1, 1])
    assert torch.allclose(
        mechanism.class_maps(features, classes), everything[:, classes], atol=1e-5
    )
    own = mechanism.own_maps(features, torch.tensor([5, 2]))
    assert torch.allclose(own, torch.stack([everything[0, 5], everything[1, 2]]), atol=1e-5)


def test_area_and_smoothness_exactly() -> None:
    masks = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    expected = (2 * 0.0005**0.3 + 1.0005**0.3 + 0.5005**0.3) / 4
    assert float(area(masks)) == pytest.approx(expected, rel=1e-6)
    # Vertical 0.25 + 1, horizontal 1 + 0.25; every border pixel counts on two borders.
    assert float(smoothness(masks)) == pytest.approx((2.5 + 0.3 * 2 * 1.25) / 2, rel=1e-6)
    assert float(smoothness(torch.cat([masks, masks]))) == pytest.approx(float(smoothness(masks)))


def test_constant_mask_is_smooth_but_for_its_borders() -> None:
    masks = torch.full((3, 2, 4, 5), 0.5)
    assert float(smoothness(masks)) == pytest.approx(0.3 * 2 * 3 * 0.25 * 2 * (4 + 5) / 6)


def test_loss_is_the_papers_formula(cnn: Backbone, pixels: Tensor) -> None:
    explainer = TTAME(cnn)
    labels = torch.tensor([1, 4, 1])
    losses = explainer.losses(pixels, labels)
    with torch.no_grad(), cnn.tap(cnn.taps) as outputs:
        cnn(pixels)
    maps = explainer.attention.class_maps([outputs[t] for t in cnn.taps], torch.arange(5)).sigmoid()
    chosen = maps[:, labels]
    masked = []
    for b in range(3):
        mask = F.interpolate(maps[b, labels[b]][None, None], size=(32, 32), mode="bilinear")
        masked.append(pixels[b] * mask[0])
    cross_entropy = -cnn(torch.stack(masked)).log_softmax(1)[range(3), labels].mean()
    mean_area = ((chosen + 0.0005) ** 0.3).sum() / chosen.numel()
    vertical = (chosen[..., 1:, :] - chosen[..., :-1, :]).pow(2).sum()
    horizontal = (chosen[..., :, 1:] - chosen[..., :, :-1]).pow(2).sum()
    borders = sum(
        b.pow(2).sum()
        for b in (chosen[..., 0, :], chosen[..., -1, :], chosen[..., 0], chosen[..., -1])
    )
    smooth = (vertical + horizontal + 0.3 * borders) / (2 * 3)
    assert torch.allclose(losses["cross_entropy"], cross_entropy, atol=1e-6)
    assert torch.allclose(losses["area"], mean_area, atol=1e-6)
    assert torch.allclose(losses["smoothness"], smooth, rtol=1e-5)
    total = 1.5 * cross_entropy + 2 * mean_area + 0.01 * smooth
    assert torch.allclose(losses["loss"], total, rtol=1e-5)


def test_labels_are_the_backbones_own(cnn: Backbone, pixels: Tensor) -> None:
    explainer = TTAME(cnn)
    predicted = cnn(pixels).argmax(dim=1)
    own, given = explainer.losses(pixels), explainer.losses(pixels, predicted)
    assert torch.equal(own["loss"], given["loss"])
    assert not torch.equal(own["loss"], explainer.losses(pixels, (predicted + 1) % 5)["loss"])


def test_gradient_reaches_the_batchs_classes_only(cnn: Backbone, pixels: Tensor) -> None:
    explainer = TTAME(cnn)
    explainer.losses(pixels, torch.tensor([1, 4, 1]))["loss"].backward()
    touched = explainer.attention.fuser.weight.grad.abs().sum(dim=(1, 2, 3)) > 0  # type: ignore[union-attr]
    assert touched.tolist() == [False, True, False, False, True]
    assert all(p.grad is not None for p in explainer.attention.parameters())


def test_map_is_the_logit_map_normalised(cnn: Backbone, pixels: Tensor) -> None:
    explainer = TTAME(cnn)
    with torch.no_grad(), cnn.tap(cnn.taps) as outputs:
        cnn(pixels)
    logits = by_hand_maps(explainer, [outputs[t] for t in cnn.taps])[0, 3]
    expected = (logits - logits.min()) / (logits.max() - logits.min())
    assert torch.allclose(explainer.explain(pixels[:1], torch.tensor([3]))[0], expected, atol=1e-5)


def by_hand_maps(explainer: TTAME, features: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return explainer.attention.class_maps(features, torch.arange(5))


def test_one_forward_pass_an_explanation(tiny: Backbone, pixels: Tensor) -> None:
    explainer = TTAME(tiny)
    explainer.explain(pixels, torch.tensor([0, 1, 2]))
    assert (tiny.passes.forward, tiny.passes.backward) == (3, 0)


def test_cls_token_multiplies_or_is_dropped(tiny: Backbone) -> None:
    if tiny.family == "cnn":
        pytest.skip("a CNN has no CLS token")
    tokens = torch.arange(17.0 * 12).view(1, 17, 12)
    patches = tiny.grid(tokens)
    assert torch.equal(TTAME(tiny, tokens="drop")._arranged(tokens), patches)
    multiplied = TTAME(tiny)._arranged(tokens)
    assert torch.equal(multiplied, patches * torch.arange(12.0).view(1, 12, 1, 1))
    with pytest.raises(ValueError, match="tokens is 'add': expected one of multiply, drop"):
        TTAME(tiny, tokens="add")  # type: ignore[arg-type]


def test_masked_images_keep_and_remove() -> None:
    images = torch.rand(2, 3, 8, 8)
    masks = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])
    assert torch.equal(masked_images(images, masks), torch.stack([images[0], images[1] * 0]))


def test_state_goes_there_and_back(cnn: Backbone, pixels: Tensor, tmp_path: Path) -> None:
    trained, path = TTAME(cnn, seed=3), tmp_path / "state.safetensors"
    save_file(trained.attention.state_dict(), path)
    fresh = TTAME(cnn)
    targets = torch.tensor([0, 1, 2])
    assert not torch.equal(fresh.explain(pixels, targets), trained.explain(pixels, targets))
    fresh.load_state(path)
    assert torch.equal(fresh.explain(pixels, targets), trained.explain(pixels, targets))


def test_wrong_state_is_refused_in_one_line(cnn: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_file(TTAME(cnn, layers=["1", "2"]).attention.state_dict(), path)
    with pytest.raises(ValueError, match=r"does not fit TTAME on 'tiny_cnn'.*expected \(") as error:
        TTAME(cnn).load_state(path)
    assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot read the trained state"):
        TTAME(cnn).load_state(path)
    with pytest.raises(ValueError, match="cannot read the trained state"):
        TTAME(cnn).load_state(tmp_path / "missing.safetensors")


def test_gain_scales_the_fuser_and_no_map_before_training(cnn: Backbone, pixels: Tensor) -> None:
    plain, small = TTAME(cnn), TTAME(cnn, gain=0.25)
    weights = [e.attention.fuser.weight for e in (plain, small)]
    assert torch.equal(weights[1], weights[0] * 0.25)
    assert torch.equal(plain.attention.convs[0].weight, small.attention.convs[0].weight)
    targets = torch.tensor([0, 1, 2])
    assert torch.allclose(plain.explain(pixels, targets), small.explain(pixels, targets), atol=1e-5)


def test_variants_of_a_branch_by_hand() -> None:
    torch.manual_seed(0)
    feature = torch.randn(2, 3, 4, 4)
    plain = AttentionMechanism([3], 5, skip=False, batch_norm=False, activation="sigmoid").eval()
    weight, bias = plain.convs[0].weight[:, :, 0, 0], plain.convs[0].bias
    by_conv = torch.einsum("oi,bihw->bohw", weight, feature) + bias[None, :, None, None]  # type: ignore[index]
    assert torch.allclose(plain.fused([feature]), 1 / (1 + (-by_conv).exp()), atol=1e-6)
    assert not [name for name in plain.state_dict() if name.startswith("bns")]


def test_self_attention_by_hand() -> None:
    """One head: softmax(Q K / sqrt(C)) V over the places of the layer-normed features."""
    torch.manual_seed(0)
    mechanism, feature = SelfAttention([6], 5).eval(), torch.randn(2, 6, 3, 4)
    own = mechanism.attentions[0]
    x = feature.flatten(2).transpose(1, 2)
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    q, k, v = (x @ own.in_proj_weight.T + own.in_proj_bias).chunk(3, dim=-1)
    mixed = (q @ k.transpose(1, 2) / 6**0.5).softmax(-1) @ v
    mixed = mixed @ own.out_proj.weight.T + own.out_proj.bias
    expected = (mixed.transpose(1, 2).view(2, 6, 3, 4) + feature).clamp_min(0)
    assert torch.allclose(mechanism.fused([feature]), expected, atol=1e-5)


def test_heads_divide_the_channels() -> None:
    assert [heads(c) for c in (768, 160, 64, 12, 67)] == [12, 2, 1, 1, 1]


def test_diagonal_masking_is_random_masking_of_single_images(cnn: Backbone, pixels: Tensor) -> None:
    labels = torch.tensor([1, 4, 2])
    diagonal = TTAME(cnn, masking="diagonal")
    together = diagonal.losses(pixels, labels)
    random = TTAME(cnn)
    alone = [random.losses(pixels[i : i + 1], labels[i : i + 1]) for i in range(3)]
    for name, value in together.items():
        assert torch.allclose(value, torch.stack([one[name] for one in alone]).mean(), rtol=1e-4)
    assert not torch.allclose(together["area"], random.losses(pixels, labels)["area"], rtol=1e-4)


def test_a_normalised_arrangement_masks_what_the_network_sees(
    cnn: Backbone, pixels: Tensor
) -> None:
    masks = torch.rand(3, 4, 4)
    resized = F.interpolate(masks[:, None], size=(32, 32), mode="bilinear")
    normalised = (pixels - cnn.mean) / cnn.std
    found = TTAME(cnn, arrangement="normalised").masked_logits(pixels, masks)
    assert torch.allclose(found, cnn.network(normalised * resized), atol=1e-5)
    raw = TTAME(cnn).masked_logits(pixels, masks)
    assert torch.equal(raw, cnn(masked_images(pixels, masks)))
    # "renormalize" of the reference: undo the normalisation, mask, normalise.
    again = ((normalised * cnn.std + cnn.mean) * resized - cnn.mean) / cnn.std
    assert torch.allclose(raw, cnn.network(again), atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "choices"),
    [
        ("branch", "convolution, self_attention"),
        ("activation", "relu, sigmoid"),
        ("masking", "random, diagonal"),
        ("arrangement", "raw, normalised"),
    ],
)
def test_unknown_variants_are_refused(cnn: Backbone, setting: str, choices: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is 'other': expected one of {choices}"):
        TTAME(cnn, **{setting: "other"})  # type: ignore[arg-type]
