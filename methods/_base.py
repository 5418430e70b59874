"""What every explainer is given (a backbone) and what it promises (maps)."""

import copy
import difflib
import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from methods._inputs import (
    Choice,
    Preparation,
    check_images,
    check_pixels,
    check_targets,
    choose_targets,
    read_photographs,
)
from methods._probe import (
    FOLLOWS,
    SHARP,
    Meaning,
    Observed,
    Probed,
    are_apart,
    observe_modules,
    places,
    read_alike,
    read_tokens,
    readings_of,
)

FAMILIES = frozenset({"cnn", "transformer"})

PROVENANCE, CLASS_COUNTS = "provenance", "class_counts"
"""The entry (JSON) of a trained state's metadata, and where in it the class counts are."""

SEEN = 8
"""So many of the classes that training saw are named in a message."""

Kind = Literal["trained", "CAM", "gradient", "perturbation", "attention", "baseline", "other"]
"""Kinds of explainers: what they draw on."""


@dataclass
class Passes:
    """Images that went through a backbone, forward and backward, since the last reset.

    Example:
        >>> Passes()
        Passes(forward=0, backward=0)
    """

    forward: int = 0
    backward: int = 0


class Backbone(nn.Module):
    """A frozen classifier of pixels.

    It normalises inside, counts the images that pass through it, gives the outputs of named
    modules, and knows which of them the explainers want. `digest` is a SHA-256 over weights and
    preprocessing: predictions of two backbones are comparable only if it is the same.

    Args:
        network: maps normalised images (B, 3, H, W) to logits (B, K).
        name: the name used in parameters, paths and tables.
        mean, std: of the normalisation, one value a channel, in units of pixels in [0, 1].
        size: side of the square images it is made for, in pixels.
        classes: K, the number of classes.
        taps: modules whose outputs the trainable explainers read, shallow to deep.
        cam_layer: module whose output the CAM family weights.
        prefix_tokens: number of leading tokens that are no image patch (CLS, distillation,
            registers) if the taps give tokens (B, N, D); None if they give grids, as a CNN's do.
        channels_last: the grids are (B, h, w, C), as a Swin transformer's, not (B, C, h, w).
        trusted: layers that explainers may read although no place of theirs follows the image, as
            may be far behind a network's global mixing.
        preparation: how photographs become such images; if None the shorter side is resized to 8/7
            of `size`, as for most networks of ImageNet.

    Raises:
        ValueError: a module of `taps` or `cam_layer` does not exist, or none is given; grids that
            are tokens; mean or std that are not of three channels.

    Attributes:
        channel_axis: of what the taps and the CAM layer give, 1 or -1.
        probed: what is known of the layers that were asked for, see `use`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> convolution, pooling = nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1)
        >>> backbone = Backbone(
        ...     nn.Sequential(convolution, pooling, nn.Flatten()), name="small", mean=[0.5] * 3,
        ...     std=[0.5] * 3, size=32, classes=4, taps=["0"], cam_layer="0")
        >>> images = torch.rand(2, 3, 32, 32)
        >>> backbone.targets(images, 3)
        tensor([3, 3])
        >>> backbone.probabilities(images).shape
        torch.Size([2, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        classes: int,
        taps: Sequence[str],
        cam_layer: str,
        prefix_tokens: int | None = None,
        channels_last: bool = False,
        trusted: Sequence[str] = (),
        preparation: Preparation | None = None,
    ) -> None:
        super().__init__()
        if isinstance(taps, str) or not taps:
            raise ValueError(
                f"backbone {name!r} has taps {taps!r}: expected a list of at least one layer"
            )
        refuse_size(name, size)
        if channels_last and prefix_tokens is not None:
            raise ValueError(
                f"backbone {name!r} has channels_last and prefix_tokens {prefix_tokens}: expected "
                "one of them, layers give grids or tokens"
            )
        refuse_normalisation(name, mean, std)
        if preparation is not None and preparation.crop != size:
            raise ValueError(
                f"backbone {name!r} has a preparation that crops {preparation.crop} pixels: "
                f"expected its size, {size}"
            )
        self.network = network.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self.name = name
        self.size = size
        self.classes = classes
        self.taps = tuple(taps)
        self.cam_layer = cam_layer
        self.prefix_tokens = prefix_tokens
        self.channel_axis = 1 if prefix_tokens is None and not channels_last else -1
        self.trusted = tuple(trusted)
        self.preparation = preparation or Preparation(round(size * 8 / 7), size)
        self.probed = Probed()
        self._observed: dict[str, Observed] | None = None
        self._exact: dict[int, tuple[Meaning, Tensor]] | None = None
        self._unaltered: Callable[[], dict[str, Observed]] | None = None
        self._shape = (size, size)
        self.passes = Passes()
        self.digest = _digest(self)
        for layer in (*self.taps, cam_layer, *self.trusted):
            self.layer(layer)
        self.eval()

    @property
    def family(self) -> str:
        """`transformer` if the layers give tokens, else `cnn`: what `families` is about.

        A transformer whose layers give grids, such as Swin, is explained like a CNN.
        """
        return "cnn" if self.prefix_tokens is None else "transformer"

    @property
    def device(self) -> torch.device:
        """Where the weights are; images and maps are there too."""
        return self.mean.device

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of pixels (B, 3, H, W) in [0, 1], float32; also of pixels a bit outside.

        Raises:
            ValueError: pixels of another type, another shape or elsewhere.
        """
        check_pixels(pixels, self.mean)
        self._shape = (pixels.shape[2], pixels.shape[3])
        logits = self._logits(pixels)
        self.passes.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _logits(self, pixels: Tensor) -> Tensor:
        """See `forward`; not counted."""
        try:
            logits: Tensor = self.network((pixels - self.mean) / self.std)
        except AssertionError as error:
            height, width = pixels.shape[2:]
            raise ValueError(
                f"backbone {self.name!r} does not take images of {height} x {width} pixels "
                f"({' '.join(str(error).split())}): expected {self.size} x {self.size}"
            ) from error
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes.backward += len(gradient)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Softmax (B, K) of the logits of pixels (B, 3, H, W) in [0, 1], without gradients."""
        with torch.no_grad():
            probabilities: Tensor = self(pixels).softmax(dim=1)
        return probabilities

    def predict(self, pixels: Tensor) -> Tensor:
        """The class (B,) it names for each of the pixels (B, 3, H, W) in [0, 1]."""
        return self.probabilities(pixels).argmax(dim=1)

    def read(self, photographs: Sequence[str | Path | Image.Image]) -> Tensor:
        """Photographs as images of this network, on its device; see `preparation`.

        Args:
            photographs: paths of files in any format that PIL reads, or PIL's images.

        Returns:
            (N, 3, size, size), float32 in [0, 1].

        Raises:
            ValueError: one is missing, damaged, or has more than 8 bits a channel.
        """
        return read_photographs(photographs, self.preparation).to(self.device)

    def targets(
        self,
        images: Tensor,
        choice: Choice = "predicted",
        labels: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """The class (B,), int64, of each image that is to be explained.

        Args:
            images: (B, 3, H, W), float32 in [0, 1], on the backbone's device.
            choice: `predicted`, what it names; `runner_up`, what it names second; `label`; or a
                class by its index.
            labels: (B,), whole numbers, of the images; for the choice `label`.

        Raises:
            ValueError: images that are none, an unknown choice, a class that does not exist.
        """
        check_images(images, self.mean)
        return choose_targets(self.probabilities(images), choice, labels)

    def layer(self, name: str) -> nn.Module:
        """The module called `name` (as in `named_modules`) of the network."""
        modules: dict[str, nn.Module] = dict(self.network.named_modules())
        if not name or name not in modules:
            near = difflib.get_close_matches(name, list(modules), n=5, cutoff=0.3)
            raise ValueError(
                f"backbone {self.name!r} has no layer {name!r}: near names are "
                f"{', '.join(near) or ', '.join(list(modules)[1:6])}"
            )
        return modules[name]

    @contextmanager
    def tap(self, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Within the block, the output of each of `layers` at the latest forward pass, by name.

        Raises:
            ValueError: explainers cannot read one of them, see `use`.
        """
        for layer in layers:
            self.use(layer)
        with self._outputs(layers) as outputs:
            yield outputs

    @contextmanager
    def _outputs(self, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """See `tap`; of any layers."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> RemovableHandle:
            def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                outputs[name] = output

            return self.layer(name).register_forward_hook(hook)

        handles: list[RemovableHandle] = []
        try:
            handles.extend(keep(name) for name in layers)
            yield outputs
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def changed(self, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within the block, what comes after `layer` gets `change(output)` for its output.

        Raises:
            ValueError: explainers cannot read it, see `use`.
        """
        self.use(layer)

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            return change(output)

        handle = self.layer(layer).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def from_layer(self, layer: str, pixels: Tensor, outputs: Tensor) -> Tensor:
        """Logits (n, K) if `layer` gave `outputs` (n, ...) for one image (1, 3, H, W).

        What lies before `layer` sees one image, whatever n is, unless the network joins that with
        what lies behind, as CrossViT does; all n count as forward passes.
        """
        count = len(outputs)
        with self.changed(layer, lambda _own: outputs):
            try:
                logits = self._logits(pixels)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # of sizes that do not fit
                logits = pixels.new_empty(0)
            if len(logits) != count:
                logits = self._logits(pixels.expand(count, -1, -1, -1))
        self.passes.forward += count
        return logits

    def use(self, layer: str) -> Meaning:
        """What a layer's output means, found out once by probing the network, see methods._probe.

        An explainer's constructor asks for the layers that it reads, so that what cannot be read is
        refused before there is work; `tap` and `changed` ask as well.

        Raises:
            ValueError: it does not exist; or explainers cannot read it, with the reason and the
                nearest layer that they can: it gives no tensor, or several a forward pass, what
                follows overwrites it, it says the same of every image, has other axes or tokens
                than `prefix_tokens` and `channels_last` say, or none of its places follows the
                image.
        """
        known = self.probed.layers
        if layer not in known:
            self.layer(layer)
            meaning, why = self._meaning(layer)
            if meaning is None:
                raise ValueError(
                    f"backbone {self.name!r}: explainers cannot read layer {layer!r}: {why}; "
                    f"{self._nearest(layer)}"
                )
            known[layer] = meaning
        return known[layer]

    def readable_layers(self) -> dict[str, Meaning]:
        """The layers that `use` accepts, in running order, and what they mean."""
        readings = {name: self._meaning(name)[0] for name in self.observe()}
        return {name: meaning for name, meaning in readings.items() if meaning is not None}

    def observe(self) -> dict[str, Observed]:
        """What was seen of each module, in running order: now, if nobody has looked."""
        if self._unaltered is not None:
            return self._unaltered()
        if self._observed is None:
            with torch.autocast(self.device.type, enabled=False):
                self._observed = observe_modules(
                    self._classify, self.network, (self.size, self.size)
                )
        return self._observed

    def alterable(self) -> "Backbone":
        """A copy whose network may be altered; what its layers mean is asked of this one."""
        copied = copy.deepcopy(self)
        copied.probed, copied._unaltered = self.probed, self.observe
        return copied

    def _classify(self, pixels: Tensor) -> Tensor:
        """See `_logits`; pixels may be elsewhere."""
        return self._logits(pixels.to(self.mean))

    def _meaning(self, layer: str) -> tuple[Meaning | None, str]:
        """What a layer means, or why explainers cannot read it."""
        seen = self.observe()[layer]
        if why := seen.flaw():
            return None, why
        declared = self.channel_axis, self.prefix_tokens
        readings = readings_of(seen, (self.size, self.size))
        if not readings:
            return None, f"it gives {seen.shape} for one image, which has no places"
        given = readings[0]
        if given.follows < FOLLOWS:
            said = [m for m in readings if (m.channel_axis, m.prefix_tokens) == declared]
            given = (said or readings)[0]
        if given.prefix_tokens is not None:
            exact, answer = self._exact_reading(given, seen)
            if are_apart(exact, answer):
                return None, "tokens that are no patches stand among the patches, not in front"
            given = read_alike(seen, exact)
        if given.follows < FOLLOWS and layer not in self.trusted:
            return None, (
                f"no place of it follows the image (rank correlation {given.follows:.2f}, expected "
                f"{FOLLOWS}): `trusted` names layers that are read all the same"
            )
        if (given.channel_axis, given.prefix_tokens) != declared or given.behind:
            return None, f"it gives {given.describe()}, expected {self._describe_layout()}"
        return given, ""

    def _exact_reading(self, given: Meaning, seen: Observed) -> tuple[Meaning, Tensor]:
        """The reading of the earliest layer of as many tokens, with its answer.

        A deep layer follows the patch, but does not say to a place where it is; the earliest does.
        """
        answer = seen.answers[given.channel_axis]
        return self._exact_readings().get(answer.shape[1], (given, answer))

    def _exact_readings(self) -> dict[int, tuple[Meaning, Tensor]]:
        """The reading of the earliest layer that is exact, with its answer, by number of tokens."""
        if self._exact is None:
            self._exact = {}
            for own in self.observe().values():
                counts = {answer.shape[1] for answer in own.answers.values() if answer.ndim == 2}
                if own.flaw() or counts <= self._exact.keys():
                    continue
                for first in readings_of(own, (self.size, self.size))[:1]:
                    answer = own.answers[first.channel_axis]
                    sharp = first.follows >= FOLLOWS and first.peak >= SHARP
                    if sharp and first.prefix_tokens is not None:
                        self._exact.setdefault(answer.shape[1], (first, answer))
        return self._exact

    def _describe_layout(self) -> str:
        said = Meaning(self.channel_axis, self.prefix_tokens, 0, 0, 1.0, 1.0).describe()
        return f"{said}, as prefix_tokens and channels_last say"

    def _nearest(self, layer: str) -> str:
        """In words: the layer nearest in running order that explainers can read."""
        order = list(self.observe())
        place = order.index(layer)
        usable = [name for name in self.readable_layers() if name != layer]
        if not usable:
            return "it has no layer that they can"
        far = {name: order.index(name) - place for name in usable}
        nearest = min(usable, key=lambda name: (abs(far[name]), -far[name]))
        return f"the nearest that they can is {nearest!r}"

    def has_class_token(self) -> bool:
        """Whether the first token is a class token: the logits are read from it, not from patches.

        Of the last tokens of the network, by one forward and one backward pass, not counted.
        """
        if self.probed.class_token is None:
            self.probed.class_token = bool(self.prefix_tokens) and self._reads_first_token()
        return self.probed.class_token

    def _reads_first_token(self) -> bool:
        size = (self.size, self.size)
        read = read_tokens(self._classify, self.network, size, self.cam_layer)
        nothing = not bool(read.any())  # an untrained head of zeros
        return (bool(read[0]) or nothing) and not bool(read[self.prefix_tokens :].any())

    def grid(self, features: Tensor) -> Tensor:
        """Features of a layer as (B, C, h, w), of tokens the patches.

        Patches are those of the images that passed last, which need not be square.
        """
        if self.prefix_tokens is None:
            return features.movedim(self.channel_axis, 1)
        patches = features[:, self.prefix_tokens :]
        shape = places(patches.shape[1], self._shape)
        if shape is None:
            height, width = self._shape
            raise ValueError(
                f"{patches.shape[1]} patch tokens of {self.name!r} form no grid of images of "
                f"{height} x {width} pixels: expected one after {self.prefix_tokens} prefix "
                "tokens, see prefix_tokens"
            )
        grid: Tensor = patches.transpose(1, 2).unflatten(2, shape)
        return grid

    def tapped_channels(self, layers: Sequence[str]) -> list[int]:
        """Number of channels of each of `layers`; its one forward pass is not counted."""
        outputs = self.outputs_of_black(layers)
        return [self.grid(outputs[layer]).shape[1] for layer in layers]

    def outputs_of_black(self, layers: Sequence[str]) -> dict[str, Tensor]:
        """What each of `layers` gives for one black image; its forward pass is not counted."""
        counted = Passes(self.passes.forward, self.passes.backward)
        blank = torch.zeros(1, 3, self.size, self.size, device=self.device)
        with torch.no_grad(), self._outputs(layers) as outputs:
            self(blank)
        self.passes = counted
        return outputs


def refuse_size(name: str, size: Any) -> None:
    """Refuse what is no side of a square.

    Raises:
        ValueError: names the backbone and the size.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"backbone {name!r} has size {size!r}: expected the side of a square, in pixels"
        )


def refuse_normalisation(name: str, mean: Any, std: Any) -> None:
    """Refuse what cannot normalise pixels in [0, 1].

    Raises:
        ValueError: names the backbone and the values.
    """
    for what, given in (("mean", mean), ("std", std)):
        try:
            values = [float(value) for value in given]
        except (TypeError, ValueError):
            values = []
        if len(values) != 3:
            raise ValueError(
                f"backbone {name!r} has {what} {given!r}: expected three numbers, one a channel"
            )
        if not all(0 <= value <= 1 for value in values) or (what == "std" and 0 in values):
            raise ValueError(
                f"backbone {name!r} has {what} {given!r}: expected values in "
                f"{'(' if what == 'std' else '['}0, 1], as pixels are; divide those for pixels of "
                "0 to 255 by 255"
            )


def _digest(module: nn.Module) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


class Explainer(ABC):
    """Turns images and classes into maps. One class in one file; the file's name is its name.

    A subclass says in `explain` how. The constructor takes the backbone first and its settings as
    keyword arguments with defaults. A call leaves no trace: hooks, modes, gradients and random
    state are as before. Randomness is seeded by the settings and by the image alone (see
    `image_seeds`), so that a map does not depend on the images beside it.

    Raises:
        ValueError: the backbone is of a family that is not among `families`.

    Example:
        >>> class Brightness(Explainer):
        ...     label, paper, cost = "Brightness", "none", "none"
        ...     def explain(self, images, targets):
        ...         return images.mean(dim=1)
        >>> sorted(Brightness.families)
        ['cnn', 'transformer']
    """

    label: ClassVar[str]
    """Name as printed in tables and plots."""
    paper: ClassVar[str]
    """Author, year, venue or arXiv number."""
    cost: ClassVar[str]
    """Images through the network for one explanation, in words: `1 forward, 1 backward`."""
    kind: ClassVar[Kind] = "other"
    """What it draws on; plots and tables keep those of a kind together."""
    families: ClassVar[frozenset[str]] = FAMILIES
    """The families of backbones it supports."""

    def __init__(self, backbone: Backbone) -> None:
        self.refuse_family(backbone)
        self.backbone = backbone

    @classmethod
    def refuse_family(cls, backbone: Backbone) -> None:
        """Refuse a backbone of a family that is not supported.

        Raises:
            ValueError: names both.
        """
        if backbone.family not in cls.families:
            raise ValueError(
                f"explainer {cls.__module__.rpartition('.')[2]!r} does not support "
                f"{backbone.name!r}: it is a {backbone.family}, expected "
                f"{' or '.join(sorted(cls.families))}"
            )

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Maps of the evidence for `targets` in `images`.

        Args:
            images: (B, 3, H, W), float32 in [0, 1], on the backbone's device.
            targets: (B,), int64, the explained class of each image.

        Returns:
            (B, h, w), float32 in [0, 1], at the method's own resolution.

        Raises:
            ValueError: images or targets are not as they should be, see `check_images` and
                `check_targets`; of a trained explainer, it is not trained, or never saw a class;
                `explain` gives no such tensor, see `check_layout`.
        """
        self.refuse_input(images, targets)
        maps = self.explain(images, targets)
        check_layout(maps, images)
        return maps

    def refuse_input(self, images: Tensor, targets: Tensor) -> None:
        """Refuse images and targets that are not as they should be, see `__call__`."""
        backbone = self.backbone
        check_images(images, backbone.mean)
        check_targets(targets, len(images), backbone.classes, backbone.device)

    @abstractmethod
    def explain(self, images: Tensor, targets: Tensor) -> Tensor:
        """What a call gives, of images and targets that are checked; see `__call__`."""


class TrainableExplainer(Explainer):
    """An explainer that learns an attention mechanism over a frozen backbone.

    Example:
        >>> import methods
        >>> issubclass(methods.load("ttame"), TrainableExplainer)
        True
    """

    attention: nn.Module

    class_counts: Tensor | None = None
    """How many training images of each class `count_classes` has seen, (K,) int64, an image once an
    epoch; None if nobody counted."""

    has_state: bool = False
    """Whether it took a trained state over."""

    allows_unseen: bool = False
    """Whether classes that training never saw are explained, by initial noise: the pipeline does
    so, and counts them."""

    whole_batch: Callable[[Tensor], Tensor] = staticmethod(lambda own: own)
    """Labels (B,) of these images to those of all images of a step, these in front.

    Training sets it where several processes share a step, each with B images.
    """

    @abstractmethod
    def losses(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The training loss of a batch.

        Args:
            images: (B, 3, H, W), float32 in [0, 1].
            labels: (B,), int64; the backbone's own predictions if None.

        Returns:
            `loss`, which is differentiable, and its terms, each a scalar.
        """

    def refuse_input(self, images: Tensor, targets: Tensor) -> None:
        """See Explainer; also that there is no training to explain them by, see `refuse_unseen`."""
        super().refuse_input(images, targets)
        self.refuse_unseen(targets)

    def count_classes(self, labels: Tensor) -> None:
        """Count the labels (B,) of the images of a training step; `losses` calls it."""
        if self.class_counts is None:
            self.class_counts = labels.new_zeros(self.backbone.classes)
        self.class_counts.index_add_(0, labels, torch.ones_like(labels))

    def state_dict(self) -> dict[str, Any]:
        """What training changes, for `load_state_dict`: to go on where it was stopped."""
        return {"attention": self.attention.state_dict(), CLASS_COUNTS: self.class_counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.attention.load_state_dict(state["attention"])
        self.has_state = True
        counts: Tensor | None = state[CLASS_COUNTS]
        self.class_counts = None if counts is None else counts.to(self.backbone.device)

    def origin(self) -> dict[str, Any]:
        """What a trained state says of itself: explainer, digest of the backbone, class counts."""
        counts = None if self.class_counts is None else self.class_counts.tolist()
        return {
            "explainer": type(self).__name__,
            "backbone": self.backbone.digest,
            CLASS_COUNTS: counts,
        }

    def unseen(self, targets: Tensor) -> Tensor:
        """Which of the classes `targets` (B,) training never saw: none if nobody counted."""
        if self.class_counts is None:
            return torch.zeros_like(targets, dtype=torch.bool)
        return self.class_counts.to(targets.device)[targets] == 0

    def seen_classes(self) -> list[int]:
        """The classes of which training saw an image; none if nobody counted."""
        counts = self.class_counts
        return [] if counts is None else counts.nonzero()[:, 0].tolist()

    def refuse_unseen(self, targets: Tensor) -> None:
        """Refuse to explain before training, or a class that it never saw; but `allows_unseen`.

        Raises:
            ValueError: names the class.
        """
        if self.allows_unseen:
            return
        if self.class_counts is None and not self.has_state:
            raise ValueError(
                f"{self.label} is not trained, so that its map would be noise: expected its "
                "trained state, see load_state"
            )
        if not self.unseen(targets).any():
            return
        first, seen = targets[self.unseen(targets)][0], self.seen_classes()
        few = ", ".join(map(str, seen[:SEEN])) + (", ..." if len(seen) > SEEN else "")
        raise ValueError(
            f"no training image of {self.label} was of class {int(first)}, so that its map would "
            f"be noise: expected one of the {len(seen)} classes that it saw ({few}; see "
            "seen_classes); train it with such images"
        )

    def load_state(self, path: Path) -> None:
        """Load what training wrote (safetensors), and how many images of each class it saw.

        Raises:
            ValueError: the file is damaged, does not fit the attention mechanism, or says that it
                is of another explainer or other weights of the network.
        """
        try:
            with safetensors.safe_open(path, "pt", device=str(self.backbone.device)) as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                provenance = dict(json.loads((file.metadata() or {}).get(PROVENANCE, "{}")))
        except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"cannot read the trained state {path}: {error}; run `dvc repro` to train it"
            ) from error
        for what, own in self.origin().items():
            if what != CLASS_COUNTS and provenance.get(what, own) != own:
                raise ValueError(
                    f"trained state {path} is of {what} {_short(provenance[what])}: expected "
                    f"{_short(own)}, on {self.backbone.name!r}; train it anew"
                )
        counts = self._read_counts(provenance, path)
        self.adopt(state, str(path))
        self.class_counts = counts

    def _read_counts(self, provenance: Mapping[str, Any], path: Path) -> Tensor | None:
        counts = provenance.get(CLASS_COUNTS)
        if counts is None:
            return None
        if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
            raise ValueError(
                f"trained state {path} has {CLASS_COUNTS} that are no counts: expected a whole "
                "number of images for each class; train it anew"
            )
        if len(counts) != self.backbone.classes:
            raise ValueError(
                f"trained state {path} counts the images of {len(counts)} classes: expected the "
                f"{self.backbone.classes} of {self.backbone.name!r}; train it on this backbone"
            )
        return torch.tensor(counts, dtype=torch.int64, device=self.backbone.device)

    def adopt(self, state: Mapping[str, Tensor], source: str) -> None:
        """Take a trained state over.

        Args:
            state: the tensors of the attention mechanism, by name.
            source: where it came from, for the message.

        Raises:
            ValueError: it does not fit the attention mechanism.
        """
        own = {name: tuple(t.shape) for name, t in self.attention.state_dict().items()}
        given = {name: tuple(t.shape) for name, t in state.items()}
        for name in sorted(own.keys() | given.keys()):
            if own.get(name) != given.get(name):
                raise ValueError(
                    f"trained state {source} does not fit {type(self).__name__} on "
                    f"{self.backbone.name!r}: {name} is {given.get(name, 'missing')}, expected "
                    f"{own.get(name, 'none')}; train it with the same settings"
                )
            if state[name].is_floating_point() and not bool(state[name].isfinite().all()):
                raise ValueError(
                    f"trained state {source} holds NaN or infinite values, in {name}: its training "
                    "diverged or the file is damaged; train it anew"
                )
        self.attention.load_state_dict(state)
        self.has_state = True


def _short(value: object) -> str:
    """A name, or the start of a digest."""
    return str(value)[:24]


Scores = Literal["probabilities", "logits"]
"""What is asked of the network, of the explained class."""


def scored(backbone: Backbone, scores: Scores) -> Callable[[Tensor], Tensor]:
    """What gives the scores (B, K) of images (B, 3, H, W), without gradients.

    Raises:
        ValueError: unknown scores.
    """
    refuse_unless_one_of("scores", scores, Scores)
    return backbone.probabilities if scores == "probabilities" else torch.no_grad()(backbone)


def target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Of logits (B, K) those of the classes (B,)."""
    return logits.gather(1, targets[:, None])[:, 0]


def normalise(maps: Tensor) -> Tensor:
    """Min-max normalise maps (B, h, w), each by itself, to [0, 1]; a constant map becomes 0.

    One that holds NaN or infinite values holds NaN, for `check_maps` to see.
    """
    low = maps.amin(dim=(1, 2), keepdim=True)
    spread = maps.amax(dim=(1, 2), keepdim=True) - low
    return torch.where(spread == 0, 0.0, (maps - low) / spread.clamp_min(1e-30))


def image_seeds(images: Tensor) -> list[int]:
    """A seed of 63 bits for each image (B, 3, H, W), from its pixels alone."""
    pixels = images.detach().cpu().contiguous().numpy()
    return [
        int.from_bytes(hashlib.blake2b(p.tobytes(), digest_size=8).digest()) >> 1 for p in pixels
    ]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, torch, numpy and random draw from `seed`; then they go on as before.

    For libraries that draw from global generators.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def refuse_unless_one_of(name: str, value: object, choices: Any) -> None:
    """Refuse a setting that is not one of the choices of a Literal.

    Raises:
        ValueError: names the setting, its value and the choices.
    """
    if value not in get_args(choices):
        expected = ", ".join(map(str, get_args(choices)))
        raise ValueError(f"{name} is {value!r}: expected one of {expected}")


def check_tensor(maps: Any) -> None:
    """Refuse what an explainer gave if it is no tensor of floats alone.

    Raises:
        ValueError: no tensor, not of float32, or with a graph.
    """
    if not isinstance(maps, Tensor):
        kind = f"{type(maps).__module__}.{type(maps).__name__}"
        raise ValueError(f"maps are a {kind}: expected a tensor, such as torch.from_numpy makes")
    if maps.dtype != torch.float32:
        raise ValueError(f"maps are {maps.dtype}: expected a tensor of torch.float32")
    if maps.requires_grad:
        raise ValueError("maps carry a graph: expected a tensor without, such as maps.detach()")


def check_layout(maps: Any, images: Tensor) -> None:
    """Refuse what an explainer gave if it is no map an image, whatever values it holds.

    Raises:
        ValueError: not a float32 tensor (B, h, w) without a graph.
    """
    check_tensor(maps)
    if maps.ndim != 3 or len(maps) != len(images):
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}: expected ({len(images)}, h, w), one an image"
        )


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that break an explainer's promise.

    Raises:
        ValueError: not a float32 tensor (B, h, w), without a graph, of finite values in [0, 1].
    """
    check_layout(maps, images)
    if not bool(maps.isfinite().all()):
        bad = int((~maps.isfinite()).sum())
        raise ValueError(f"maps hold {bad} values that are NaN or infinite: expected finite values")
    if float(maps.min()) < 0 or float(maps.max()) > 1:
        raise ValueError(
            f"maps range from {float(maps.min()):.3g} to {float(maps.max()):.3g}: expected [0, 1]"
        )
