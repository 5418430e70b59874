"""Peak memory of one explanation in a process of its own, in MB above the loaded network.

`python tests/benchmarks/peak_memory.py METHOD SIDE`, SIDE is `ours` or `theirs`. RISE has the
paper's 4,000 masks and, on both sides, a network that answers at once, so that what is measured is
RISE. The allocator is the machine's default.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import methods
from benchmark.core import params
from methods import Backbone, build_backbone

MASKS = 4000
LAYER = "bn2"


class Instant(nn.Module):
    """A network with 1,000 classes and hardly any work."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3))[:, None].expand(-1, 1000) * torch.arange(1000) / 1000


def network(method: str) -> Backbone:
    if method != "rise":
        spec = params.load().backbones["efficientnet_lite0"].spec
        return build_backbone("efficientnet_lite0", **spec)
    return Backbone(
        Instant(),
        name="instant",
        mean=[0.5] * 3,
        std=[0.5] * 3,
        size=224,
        classes=1000,
        taps=["features"],
        cam_layer="features",
    )


def peak() -> float:
    """The most memory this process has held, in MB; unlike getrusage's, not its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def main() -> None:
    sys.path.insert(0, "tests")
    from benchmarks.rivals import library_cam, plain_rise

    method, side = sys.argv[1:]
    backbone = network(method)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    target = backbone.predict(image)
    settings: dict[str, Any] = {"masks": MASKS} if method == "rise" else {"layer": LAYER}
    if method in ("rise", "scorecam"):
        settings["fill"] = "black"  # the other side masks raw pixels
    explainer = methods.load(method)(backbone, **settings)
    before = peak()
    if side == "ours":
        explainer(image, target)
    elif method == "rise":
        masks = explainer.masks(0, MASKS, image.shape[2:])  # type: ignore[attr-defined]
        plain_rise(backbone.probabilities, image, masks, int(target))
    else:
        name = {"gradcam": "GradCAM", "scorecam": "ScoreCAM", "ablationcam": "AblationCAM"}[method]
        library_cam(name, backbone, LAYER, image, int(target))
    sys.stdout.write(f"{peak() - before}\n")


if __name__ == "__main__":
    main()
