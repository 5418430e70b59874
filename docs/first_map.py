"""Draw the pictures of README and docs: maps over a photograph, by `make picture`.

docs/first_map.jpg has two classes and five explainers, docs/maps/NAME.jpg one explainer each. The
photograph is scikit-image's `camera`, under CC0 (Lav Varshney). Explainers that are trained know
the sample's compositions only, and have one of these instead.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import skimage.data
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

import methods
from benchmark.core import params
from benchmark.core.cells import Project
from benchmark.data.compositions import make_splits
from benchmark.engine.explaining import assemble
from benchmark.report import drawing
from benchmark.report.heat_maps import overlay

PHOTOGRAPH = Path(skimage.data.__file__).parent / "camera.png"
CLASSES = {872: "tripod", 759: "reflex camera"}
STATED = ("efficientnet_lite0", "vit_sample")
"""The backbones of the sample, of which there are trained states."""

EXPLAINERS = {
    "gradcam": {},
    "scorecam": {"channels": 64},
    "rise": {"masks": 1000},
    "lime": {"samples": 500, "segments": 49},
    "smoothgrad": {"samples": 50},
}


REFLEX_CAMERA = 759
"""The class of the pictures of one explainer."""

STATES = Path(__file__).parent.parent / "results" / "states"


def main(names: Sequence[str] = tuple(methods.names())) -> None:
    """Draw all pictures; of single explainers those of `names`."""
    draw_first(methods.wrap("efficientnet_lite0"))
    project = Project(params.load())
    backbones = {name: methods.build_backbone(name, **project.spec(name)) for name in STATED}
    folder = Path(__file__).with_name("maps")
    folder.mkdir(exist_ok=True)
    for name in names:
        backbone = next(own for own in backbones.values() if fits(name, own, project))
        picture = draw_one(name, backbone, project)
        picture.save(folder / f"{name}.jpg", quality=85)


def fits(name: str, backbone: methods.Backbone, project: Project) -> bool:
    """Whether the pipeline has an explainer on a backbone."""
    return not project.matrix(backbone.name)[name]


def draw_one(name: str, backbone: methods.Backbone, project: Project) -> Image.Image:
    """The map of an explainer with the settings of the pipeline, over the photograph."""
    settings = project.params.cell(backbone.name, name).settings
    state = STATES / backbone.name / f"{name}.safetensors"
    explainer = assemble(name, backbone, settings, state if state.is_file() else None)
    images, targets = backbone.read([PHOTOGRAPH]), torch.tensor([REFLEX_CAMERA])
    if methods.load(name).kind == "trained":
        split = make_splits(project.params.images.folder, {"evaluation": 1}, seed=0, size=224)
        images = split["evaluation"].images(slice(1))
        targets = backbone.targets(images)
    return overlay(images[0], explainer.explain(images, targets)[0])


def draw_first(backbone: methods.Backbone) -> None:
    """Explain the photograph for two classes, and draw the maps over it."""
    images = backbone.read([PHOTOGRAPH])
    probabilities = backbone.probabilities(images)[0]
    explainers = [methods.build(name, backbone, own) for name, own in EXPLAINERS.items()]
    with rc_context(drawing.style()):
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        axes = figure.subplots(len(CLASSES), 1 + len(explainers))
        for row, (index, name) in zip(axes, CLASSES.items(), strict=True):
            row[0].imshow(images[0].permute(1, 2, 0).numpy())
            row[0].set_ylabel(f"{name}\n{100 * float(probabilities[index]):.2g} %")
            targets = backbone.targets(images, index)
            for axis, explainer in zip(row[1:], explainers, strict=True):
                axis.imshow(overlay(images[0], explainer(images, targets)[0]))
        for axis, explainer in zip(axes[0, 1:], explainers, strict=True):
            axis.set_title(explainer.label, fontsize=11)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        drawing.fix_layout(figure)
        drawn = io.BytesIO(drawing.render(figure, "png", {"Software": None}))
    picture = Image.open(drawn).convert("RGB")
    picture.save(Path(__file__).with_suffix(".jpg"), quality=88, subsampling=0)


if __name__ == "__main__":
    main()
