"""The sanity check: does a map change when the network's weights do?

After Adebayo et al. 2018 (NeurIPS, arXiv 1810.03292), model-parameter randomisation: weights are
randomised layer after layer from the top (cascading), and the maps compared with those of the
trained network. A layer's tensors are shuffled, each by itself, instead of drawn anew:
values and scale stay, so that activations neither vanish nor explode where batch norms are folded
into the convolutions. The explained class stays that of the trained network.
"""

import copy
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from benchmark import backbones, explain, processes, store
from benchmark.evaluate import read_maps, write
from benchmark.images import Split, read_split
from benchmark.params import Cell, Params
from benchmark.stage import run_shared, seed_of
from methods import Backbone
from metrics import Maps

WINDOW = 7
"""Side of SSIM's window, in pixels."""


def main(params: Params, cell: str) -> None:
    """Write how alike the maps of a cell are, at each share of randomised layers."""
    spec: Cell = params.entry("cells", cell)
    settings = params.randomise
    split = read_split("evaluation")
    trained = read_maps(spec, len(split), count_nan=params.explain.nan_maps == "count")
    split = split.first(settings.images)
    backbone = backbones.build(spec.backbone, params.backbones[spec.backbone])
    targets = backbone.predict(split.images(slice(None)).to(backbone.device)).cpu()
    rows = []
    for level in settings.layers:
        shuffled = copy.deepcopy(backbone)
        shuffle(shuffled.network, level, params.seed)
        maps = randomised_maps(params, spec, cell, shuffled, split, targets, level)
        for image, before, after in zip(
            split.ids, resized(trained[: len(split)], split), resized(maps, split), strict=True
        ):
            rows += [
                (image, "randomisation_ssim", level, ssim(before, after)),
                (image, "randomisation_rank", level, rank_correlation(before, after)),
            ]
    table = pd.DataFrame(rows, columns=["image", "metric", "level", "value"])
    table["weights"] = backbone.digest[:12]
    if processes.first():
        path = store.randomisation_path(spec.backbone, spec.explainer)
        write(path, table, spec.backbone, spec.explainer)


def randomised_maps(
    params: Params,
    spec: Cell,
    cell: str,
    backbone: Backbone,
    split: Split,
    targets: torch.Tensor,
    level: float,
) -> NDArray[np.float32]:
    """Maps (N, h, w) of a cell on a randomised backbone; resumes where it was stopped."""
    work = store.Work(
        "randomise",
        [cell, spec, params.backbones[spec.backbone], params.explain, params.randomise, level],
        explain.inputs(spec),
    )
    explainer = explain.assemble(params, spec, params.mode, backbone)
    label = f"{cell}, {level:g} % randomised"
    maps, _ = explain.explain(
        explainer, split, params.explain, work, label, targets, spec.precision
    )
    work.done()
    return maps


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
    array: NDArray[np.float32] = Maps(torch.from_numpy(maps), size, [0] * len(maps)).resized.numpy()
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


if __name__ == "__main__":
    run_shared(main, "cell")
