"""Try every explainer on many networks with random weights, and print which work, and why not."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

import methods
from benchmark.commands.layers import suggest
from benchmark.core import results
from benchmark.core.params import Backbone as Spec
from benchmark.report.rendering import write
from methods import Backbone, TrainableExplainer, build_network, wrap
from methods._layers import wake

NETWORKS = results.RESULTS / "networks"
EXPLAINERS = NETWORKS / "explainers.csv"

WORKS = "works"

COLUMNS = ["network", "layers", "explainer", "result"]
"""Of the table; the result is WORKS, or why not."""

TRIED = (
    *("resnet18", "resnetv2_50", "res2net50_26w_4s", "skresnet18", "seresnet50", "vgg11_bn"),
    *("densenet121", "inception_v3", "xception41", "dla34", "hrnet_w18_small", "gernet_s"),
    *("mobilenetv3_small_100", "efficientnet_b0", "tf_efficientnet_lite0", "mixnet_s"),
    *("ghostnetv2_100", "rexnet_100", "regnety_002", "repvgg_a0", "mobileone_s0", "fastvit_t8"),
    *("convnext_atto", "convnextv2_atto", "poolformer_s12", "edgenext_xx_small", "mobilevit_xxs"),
    *("efficientvit_m0", "efficientformer_l1", "caformer_s18", "coatnet_nano_rw_224"),
    *("maxvit_tiny_rw_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"),
    *("twins_svt_small", "pit_ti_224", "levit_128s", "hiera_tiny_224", "mvitv2_tiny"),
    *("crossvit_9_240", "mixer_s16_224", "resmlp_12_224", "xcit_nano_12_p16_224"),
    *("cait_xxs24_224", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"),
    *("vit_small_patch14_reg4_dinov2", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224"),
    *("beit_base_patch16_224", "torchvision:squeezenet1_1", "torchvision:googlenet"),
    *("torchvision:densenet121", "torchvision:shufflenet_v2_x0_5", "torchvision:mnasnet0_5"),
    *("torchvision:vgg16", "torchvision:resnet50", "torchvision:swin_t", "torchvision:vit_b_16"),
)
"""Networks of timm and torchvision, of more than twenty families."""

SHORT: dict[str, dict[str, Any]] = {
    "rise": {"masks": 2},
    "scorecam": {"channels": 2},
    "integrated_gradients": {"steps": 2},
    "smoothgrad": {"samples": 2},
    "gradient_shap": {"samples": 2},
    "iia": {"image_steps": 2, "layer_steps": 2},
    "kernel_shap": {"samples": 8, "segments": 4},
    "lime": {"samples": 8, "segments": 4},
    "opticam": {"steps": 2},
}
"""Settings that show as well as others whether an explainer works."""


def main() -> None:
    """Write a row a network, and one a network and explainer; print the first."""
    parser = argparse.ArgumentParser(prog="python -m benchmark networks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        help="try these alone, see `python -m benchmark layers`; other rows stay",
    )
    parser.add_argument(
        "--explainers", nargs="+", metavar="NAME", help="try these alone; rows of others stay"
    )
    given = parser.parse_args()
    chosen = given.explainers or methods.names()
    try:
        for name in chosen:
            methods.load(name)
    except ValueError as error:
        sys.exit(f"networks: {error}")
    names = given.names or TRIED
    rows = [
        row for name in tqdm(names, unit="network", disable=None) for row in tried(name, chosen)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    if (given.names or given.explainers) and EXPLAINERS.is_file():
        table = among(results.read_table(EXPLAINERS).fillna(""), table, given.explainers)
    results.write_csv(EXPLAINERS, table)
    write(NETWORKS / "networks", summary(table))
    print((NETWORKS / "networks.md").read_text())


def among(
    table: pd.DataFrame, rows: pd.DataFrame, explainers: Sequence[str] | None
) -> pd.DataFrame:
    """A table with what was tried again in the place of what it said; new networks last.

    Args:
        table: as it was.
        rows: of the networks that were tried.
        explainers: what of these networks was tried; None for all.
    """
    order = list(dict.fromkeys([*table["network"], *rows["network"]]))
    again = table["network"].isin(rows["network"])
    if explainers is not None:
        nothing = table["network"].isin(rows.loc[rows["explainer"] == "", "network"])
        again &= table["explainer"].isin([*explainers, ""]) | nothing
    joined = pd.concat([table[~again], rows]).sort_values("explainer", kind="stable")
    blocks = dict(iter(joined.groupby("network", sort=False)))
    return pd.concat([blocks[name] for name in order], ignore_index=True)


def tried(name: str, explainers: Sequence[str]) -> list[dict[str, str]]:
    """A row an explainer, see COLUMNS; of a network that cannot be built one, of no explainer."""
    try:
        spec = suggest(name)
        network = random_backbone(name, spec)
    except ValueError as error:
        return [{"network": name, "layers": "", "explainer": "", "result": one_line(error)}]
    common = {"network": name, "layers": ", ".join(spec.taps)}
    found = [n for n in explainers if network.family in methods.load(n).families]
    return [common | {"explainer": n, "result": attempt(n, network)} for n in found]


def random_backbone(name: str, spec: Spec) -> Backbone:
    """The network with random weights; these mix places, so that its layers need not follow.

    Raises:
        ValueError: it is no classifier.
    """
    seen = spec.model_dump(include={"size", "mean", "std", "taps", "cam_layer", "prefix_tokens"})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: dict[str, Any] = {"source": spec.source, "model": spec.model, "load": spec.load}
        network = build_network(name, **made, weights="none")
    wake(network)
    last = spec.channels_last
    return wrap(
        network, name=name, trusted=(*spec.taps, spec.cam_layer), channels_last=last, **seen
    )


def attempt(explainer: str, network: Backbone) -> str:
    """WORKS if an explainer gives a map of an image, else why it does not."""
    side = network.size
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    settings = dict(SHORT.get(explainer, {}))
    if explainer == "occlusion":
        settings = {"window": side // 2, "stride": side // 2}
    try:
        built = methods.build(methods.load(explainer), network, settings)
        if isinstance(built, TrainableExplainer):
            built.allows_unseen = True
        maps = built(image, torch.tensor([0]))
        methods.check_maps(maps, image)
    except ValueError as error:
        return one_line(error)
    except Exception as error:
        return f"fails: {type(error).__name__}: {one_line(error)}"
    return WORKS


def one_line(error: Exception) -> str:
    """A message without line ends, and without the name of the network."""
    text = " ".join(str(error).split())
    return re.sub(r"^backbone '[^']*':? ", "", text)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network: its layers, how many explainers work, and which do not, by reason."""
    rows = []
    for name, own in table.groupby("network", sort=False):
        refused = own[own["result"] != WORKS]
        reasons = refused.groupby("result", sort=False)["explainer"].agg(list)
        texts = [f"{why} ({', '.join(n)})" if any(n) else why for why, n in reasons.items()]
        tried_count = int((own["explainer"] != "").sum())
        works = f"{tried_count - len(refused)} of {tried_count}" if tried_count else "none"
        row = {"Network": name, "Layers": own["layers"].iloc[0], "Explainers": works}
        rows.append(row | {"Refused": "; ".join(map(str, texts))})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
