"""Explainers are found by name, and refused in one line."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import methods
from benchmark.engine.explaining import explain_batch
from methods import Backbone, Explainer


def test_names_are_the_files() -> None:
    folder = Path(methods.__file__).parent
    files = {p.stem for p in folder.glob("*.py") if not p.name.startswith("_")}
    assert set(methods.names()) == files
    assert {"ttame", "gradcam", "rise"} <= files


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown explainer 'gradcan'.*gradcam.*ttame"):
        methods.load("gradcan")


def test_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebody.py").write_text(
        "from methods import Explainer\n"
        "class Mine(Explainer):\n"
        "    label, paper, cost = 'Mine', 'unpublished', 'none'\n"
        "    def explain(self, images, targets):\n"
        "        return images.mean(dim=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cls = methods.load("somebody:Mine")
    assert issubclass(cls, Explainer)
    assert cls.label == "Mine"
    sys.modules.pop("somebody")


HEAD = "import numpy as np, torch\nfrom methods import Explainer\nclass Mine(Explainer):\n"
LABEL = "    label, paper, cost = 'Mine', 'unpublished', 'none'\n"
CALL = "    def explain(self, images, targets):\n"
MEAN = "        return images.mean(dim=1)\n"
INIT = "    def __init__(self, backbone, {}):\n        super().__init__(backbone)\n"


@pytest.fixture
def write_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes the lines of a class into a module, and gives its dotted path."""

    def write(lines: str) -> str:
        (tmp_path / "somebody.py").write_text(HEAD + lines)
        return "somebody:Mine"

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop("somebody", None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (LABEL, r"class Mine \(somebody.py:3\) has no explain: expected one"),
        (CALL + MEAN, r"class Mine \(somebody.py:3\) has no label: expected its name"),
        (
            LABEL + INIT.format("steps=3, size=1") + CALL + MEAN,
            r"class Mine \(somebody.py:3\) takes steps, size by position: .* before steps",
        ),
        (
            "    label = 'Mine'\n" + CALL + MEAN,
            r"class Mine \(somebody.py:3\) has no cost: expected such as '1 forward'",
        ),
        (
            LABEL + "    families = {'rnn', 'cnn'}\n" + CALL + MEAN,
            r"class Mine \(somebody.py:3\) has families .*rnn.*: expected of cnn, transformer",
        ),
        (
            LABEL + INIT.format("steps=3, /") + CALL + MEAN,
            r"class Mine \(somebody.py:3\) takes steps by position",
        ),
        ("    label = nowhere\n", r"'somebody:Mine': NameError: name 'nowhere' is not defined"),
        ("    label = \n", r"'somebody:Mine': SyntaxError: invalid syntax \(somebody.py, line 4\)"),
    ],
)
def test_an_incomplete_class_is_refused_with_its_place(
    lines: str, message: str, write_class: Callable[[str], str]
) -> None:
    with pytest.raises(ValueError, match=message):
        methods.load(write_class(lines))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            INIT.format("*, steps=3") + "        [][steps]\n" + CALL + MEAN,
            r"explainer Mine failed at somebody.py:7: IndexError: list index out of range",
        ),
        (
            INIT.format("*, steps") + CALL + MEAN,
            r"explainer Mine \(somebody.py:3\) failed: TypeError: .* keyword-only .*: 'steps'",
        ),
        (
            "    def __init__(self, backbone):\n        self.network = backbone\n" + CALL + MEAN,
            r"class Mine \(somebody.py:3\) does not hold its backbone: expected `super",
        ),
        (
            CALL + "        return self.missing\n",
            r"explainer Mine failed at somebody.py:6: AttributeError: .* 'missing'",
        ),
        (
            CALL + "        return np.ones(2) + np.ones(3)\n",
            r"explainer Mine failed at somebody.py:6: ValueError: operands could not be broadcast",
        ),
        (CALL + "        return images.mean(1).numpy()\n", r"maps are a numpy.ndarray: expected a"),
        (CALL + "        return images.mean(1).double()\n", r"maps are torch.float64: expected a"),
        (
            CALL + "        return images.mean(1) * torch.ones(1, requires_grad=True)\n",
            r"maps carry a graph: expected a tensor without",
        ),
    ],
)
def test_what_fails_in_somebodys_code_is_one_line_with_its_place(
    lines: str, message: str, write_class: Callable[[str], str], cnn: Backbone, pixels: Tensor
) -> None:
    def run() -> None:
        explainer = methods.build(methods.load(path), cnn, {})
        explain_batch(explainer, pixels, count_nan=False)

    path = write_class(LABEL + lines)
    with pytest.raises(ValueError, match=message) as raised:
        run()
    assert len(str(raised.value).splitlines()) == 1


def test_out_of_memory_is_told_apart_from_a_failure(
    write_class: Callable[[str], str], cnn: Backbone, pixels: Tensor
) -> None:
    """Half of the images are tried, then said so."""
    lines = LABEL + CALL + "        raise torch.OutOfMemoryError\n"
    explainer = methods.build(methods.load(write_class(lines)), cnn, {})
    halved = pytest.warns(UserWarning, match="going on with 1")
    with halved, pytest.raises(ValueError, match="out of memory with one image"):
        explain_batch(explainer, pixels, count_nan=False)


@pytest.mark.parametrize("path", ["nowhere:Mine", "pathlib:Nothing", "pathlib:Path"])
def test_wrong_dotted_path(path: str) -> None:
    with pytest.raises(ValueError, match=path):
        methods.load(path)


def test_unknown_setting_lists_the_known_ones(cnn: Backbone) -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'mask' of explainer 'rise'.*masks"):
        methods.build(methods.load("rise"), cnn, {"mask": 3})


def test_unsupported_family(cnn: Backbone) -> None:
    class Transformers(methods.load("edges")):  # type: ignore[misc]
        families = frozenset({"transformer"})

    with pytest.raises(ValueError, match="is a cnn, expected transformer"):
        methods.build(Transformers, cnn, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masks": "many"}, "setting 'masks' of explainer 'rise' is 'many': expected a valid int"),
        ({"masks": 20.5}, "setting 'masks' of explainer 'rise' is 20.5: expected a valid integer"),
        (
            {"fill": "pink"},
            "setting 'fill' of explainer 'rise' is 'pink': expected 'mean', 'black'",
        ),
        ({"mask": 20}, "unknown setting 'mask' of explainer 'rise': expected one of masks, cells"),
    ],
)
def test_settings_are_of_their_types(
    settings: dict[str, object], message: str, cnn: Backbone
) -> None:
    with pytest.raises(ValueError, match=message):
        methods.build("rise", cnn, settings)
    assert methods.build("rise", cnn, {"masks": 20, "probability": 0.25})


def test_settings_are_what_parameters_can_say(
    write_class: Callable[[str], str], cnn: Backbone
) -> None:
    """A list is a tuple, a text a path, and a number of numpy a number."""
    arguments = "*, sizes: tuple[int, ...] = (1,), file: Path = Path(), steps: int = 1, own=None"
    lines = LABEL + INIT.format(arguments) + CALL + MEAN
    path = write_class("    from pathlib import Path\n" + lines)
    given = {"sizes": [1, 2], "file": "a.txt", "steps": np.int64(20), "own": object()}
    methods.build(path, cnn, given)
    with pytest.raises(ValueError, match="setting 'steps' of explainer 'Mine' is True: expected"):
        methods.build(path, cnn, {"steps": True})


def test_a_backbone_is_asked_for(cnn: Backbone) -> None:
    for given in ("rise", cnn.network):
        with pytest.raises(ValueError, match=r"backbone is of type .*: expected methods.Backbone"):
            methods.build("rise", given)  # type: ignore[arg-type]


def test_settings_of_somebodys_own_class_are_named_after_it(
    write_class: Callable[[str], str], cnn: Backbone
) -> None:
    path = write_class(LABEL + INIT.format("*, step: int = 1") + CALL + MEAN)
    with pytest.raises(ValueError, match="unknown setting 'steps' of explainer 'Mine'"):
        methods.build(path, cnn, {"steps": 3})


def test_what_somebodys_own_class_gives_is_checked(
    write_class: Callable[[str], str], cnn: Backbone, pixels: Tensor
) -> None:
    targets = cnn.targets(pixels)
    for body, message in (
        ("        return images\n", r"maps have shape \(3, 3, 32, 32\): expected \(3, h, w\)"),
        ("        return images.mean(dim=1).numpy()\n", "maps are a numpy.ndarray: expected a te"),
    ):
        sys.modules.pop("somebody", None)
        mine = methods.build(write_class(LABEL + CALL + body), cnn)
        with pytest.raises(ValueError, match=message):
            mine(pixels, targets)
