"""What stands under each figure: what it shows, of how many images, and which version made it."""

import pandas as pd

from benchmark.core.cells import OLDER, Project, suite_version
from benchmark.report.drawing import PERCENTILE
from benchmark.report.measures import TARGETS, Known


class Captions:
    """The captions of the figures of one project."""

    def __init__(self, project: Project) -> None:
        self.project, self.params = project, project.params

    def confidence(self, backbone: str, table: pd.DataFrame) -> str:
        """Of AD and IC."""
        return (
            "Average Drop (AD, lower is better) and Increase in Confidence (IC, higher is better) "
            "of each explainer, with only the most relevant pixels kept, "
            f"{self._of(table, 'average_drop')}. Bars are {self._interval()}s over images. "
            f"{self._closing(backbone)}"
        )

    def points(self, backbone: str, table: pd.DataFrame, shown: list[str], known: Known) -> str:
        """Of the measures of a metric, a point an explainer."""
        better = {True: "higher is better", False: "lower is better"}
        labels = "; ".join(f"{known[n].label}, {better[known[n].higher_is_better]}" for n in shown)
        return (
            f"Each explainer {self._of(table, shown[0])}. {labels}. Bars are {self._interval()}s "
            f"over images. {self._closing(backbone)}"
        )

    def road(self, backbone: str, table: pd.DataFrame) -> str:
        """Of the ROAD curves."""
        first = table["label"].iloc[0]
        return (
            "ROAD: how many predictions stay when the most relevant pixels are removed (MoRF, "
            "lower is better) or the least relevant ones (LeRF, higher is better), "
            f"{self._of(table, 'road_morf')}. Dashed, in every panel: {first}, in grey its "
            f"{self._interval()} over images. {self._closing(backbone)}"
        )

    def quality_runtime(self, backbone: str, table: pd.DataFrame, machine: str) -> str:
        """Of quality against runtime."""
        return (
            "Quality against the median time of an explanation; lower is better for both, "
            f"{self._of(table, 'average_drop')}. Dashed: the Pareto front of the explainers with "
            "the most images, without baselines, which take no pass and stand at the left edge "
            "whatever their time. Dotted: a bare forward pass. Measured on "
            f"{machine}. {self._closing(backbone)}"
        )

    def randomisation(self, backbone: str, table: pd.DataFrame) -> str:
        """Of the sanity checks."""
        return (
            "How alike maps are (SSIM and rank correlation, 1 for equal maps) before and after the "
            f"weights of the topmost layers are shuffled, mean over {table['n'].max():g} images. "
            f"High values mean that a map does not depend on the network. {self._closing(backbone)}"
        )

    def heat_maps(self, backbone: str) -> str:
        """Of the grid of heat maps."""
        shared = min(map(self.project.images_of, self.project.cells(backbone)))
        count = min(self.params.plots.grid_images, shared)
        return (
            f"Maps of {count} images, spread over the {shared} that every explainer explained. "
            "Above each column: the explained class and its probability, and the label where it is "
            f"another. From black (0) to pale yellow, the {PERCENTILE}th percentile of each map, "
            f"so that sparse maps are visible. {self._closing(backbone)}"
        )

    def ablation(self, question: str, variants: pd.DataFrame, seeds: pd.DataFrame) -> str:
        """Of a question of the ablation study."""
        backbones = ", ".join(dict.fromkeys(variants["backbone"]))
        labels = ", ".join(dict.fromkeys(variants["label"]))
        older = f" {OLDER}: scored by an older version of the code." if OLDER in labels else ""
        return (
            f"Ablation study, {question}: {labels}; the baseline of each backbone, grey, comes "
            f"first. Ticks are the {seeds['seed'].nunique()} training seeds, each scored on "
            f"{self.params.ablate.scored} images; dots and bars are the mean over them and its "
            f"{self._level()} interval.{older} {self._closing(backbones)}"
        )

    def training(self, backbone: str, label: str) -> str:
        """Of a training run."""
        return (
            f"Training of {label}: the loss and its terms (pale: each step; in full: the mean over "
            f"a fiftieth of the run), and Average Drop on the {self.params.images.validation} "
            f"validation images (lower is better). {self._closing(backbone)}"
        )

    def _of(self, table: pd.DataFrame, metric: str) -> str:
        """In words: of how many images a measure is."""
        counts = table[table["metric"] == metric].groupby("explainer")["n"].max()
        if counts.empty:
            return "of no images"
        less = counts.min() < counts.max()
        few = " (fewer where a number stands in brackets)" if less else ""
        return f"on {counts.max():g} images{few}"

    def _level(self) -> str:
        return f"{100 * self.params.tables.confidence:g} %"

    def _interval(self) -> str:
        return f"{self._level()} bootstrap interval"

    def _closing(self, backbone: str) -> str:
        """Network, explained class, arithmetic and version."""
        target = self.params.target
        what = TARGETS.get(str(target), f"class {target}")
        return (
            f"Network: {backbone}. Explained class: {what}. Arithmetic: {self.params.mode}. "
            f"Made by ttame-benchmark {suite_version()}."
        )
