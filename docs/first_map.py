"""Draw docs/first_map.jpg, the picture of the README: one photograph, two classes, five explainers.

`python docs/first_map.py`. The photograph is scikit-image's `camera`, under CC0 (Lav Varshney).
"""

import io
from pathlib import Path

import skimage.data
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

import methods
from benchmark.report import drawing
from benchmark.report.heat_maps import overlay

PHOTOGRAPH = Path(skimage.data.__file__).parent / "camera.png"
CLASSES = {872: "tripod", 759: "reflex camera"}
EXPLAINERS = {
    "gradcam": {},
    "scorecam": {"channels": 64},
    "rise": {"masks": 1000},
    "lime": {"samples": 500, "segments": 49},
    "smoothgrad": {"samples": 50},
}


def main() -> None:
    """Explain the photograph and draw the maps over it."""
    backbone = methods.wrap("efficientnet_lite0")
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
