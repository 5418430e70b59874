"""The sanity check: does a map change when the network's weights do?

After Adebayo et al. 2018 (NeurIPS, arXiv 1810.03292), model-parameter randomisation: weights are
randomised layer after layer from the top (cascading), and the maps compared with those of the
trained network. A layer's tensors are shuffled, each by itself, instead of drawn anew:
values and scale stay, so that activations neither vanish nor explode where batch norms are folded
into the convolutions. The explained class stays that of the trained network.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from benchmark.data.seeds import seed_of
from benchmark.data.splits import Split
from methods import Backbone
from metrics import Maps

WINDOW = 7
"""Side of SSIM's window, in pixels."""


def randomised(backbone: Backbone, percent: float, seed: int) -> Backbone:
    """A copy of a backbone whose topmost layers have shuffled weights, see `shuffle`.

    Which layers can be read is asked of the trained network.
    """
    copied = backbone.alterable()
    shuffle(copied.network, percent, seed)
    return copied


def similarities(
    before: NDArray[np.float32], after: NDArray[np.float32], split: Split, level: float
) -> pd.DataFrame:
    """How alike maps (N, h, w) are before and after: columns image, metric, level, value."""
    rows = []
    for image, first, second in zip(
        split.ids, resized(before, split), resized(after, split), strict=True
    ):
        rows += [
            (image, "randomisation_ssim", level, ssim(first, second)),
            (image, "randomisation_rank", level, rank_correlation(first, second)),
        ]
    return pd.DataFrame(rows, columns=["image", "metric", "level", "value"])


def seed_agreement(
    before: NDArray[np.float32], after: NDArray[np.float32], split: Split
) -> pd.DataFrame:
    """The rank correlation of maps (N, h, w) of two seeds: columns image, metric, level, value."""
    pairs = zip(split.ids, resized(before, split), resized(after, split), strict=True)
    rows = [(image, "seed_rank", np.nan, rank_correlation(a, b)) for image, a, b in pairs]
    return pd.DataFrame(rows, columns=["image", "metric", "level", "value"])


def shuffle(network: nn.Module, percent: float, seed: int) -> None:
    """Shuffle the values of every weight of the topmost layers, in place.

    Args:
        network: its layers are the modules that own weights, in the order of `named_modules`.
        percent: of the layers, at least one.
        seed: of the permutations, together with the name of the weight.
    """
    layers = [(n, m) for n, m in network.named_modules() if any(True for _ in m.parameters(False))]
    count = max(1, round(len(layers) * percent / 100))
    for name, layer in layers[-count:]:
        for weight, values in layer.named_parameters(recurse=False):
            generator = torch.Generator().manual_seed(seed_of(seed, "randomise", name, weight))
            order = torch.randperm(values.numel(), generator=generator).to(values.device)
            values.data = values.data.flatten()[order].view(values.shape)


def resized(maps: NDArray[np.float32], split: Split) -> NDArray[np.float32]:
    """Maps (N, H, W) at the size of the images, as the metrics see them."""
    size = split.pixels.shape[2:]
    array: NDArray[np.float32] = Maps(
        torch.from_numpy(np.array(maps)), size, [0] * len(maps)
    ).resized.numpy()
    return array


def ssim(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Structural similarity of two maps (H, W) in [0, 1]; 1 for equal ones (Wang et al. 2004)."""
    compare: Any = structural_similarity
    return float(compare(first, second, win_size=WINDOW, data_range=1.0))


def rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Spearman's rank correlation of the pixels of two maps; 1 for equal ones.

    A constant map has no ranks: its correlation with another map is 0.
    """
    if np.array_equal(first, second):
        return 1.0
    if first.min() == first.max() or second.min() == second.max():
        return 0.0
    return float(spearmanr(first, second, axis=None).statistic)
