"""The pages that people read: they say what the code says, and fit."""

import contextlib
import doctest
import functools
import io
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import skimage.data
from PIL import Image

import methods
import metrics
from benchmark.report import heat_maps

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

sys.path.insert(0, str(DOCS))
import catalogue  # noqa: E402


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 12 * 1024


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Those within the repository, to their headings too."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, heading = target.partition("#")
        path = page if not file else (page.parent / file).resolve()
        assert path.exists(), target
        if heading:
            anchors = [slug(line) for line in re.findall(r"^#+ (.*)$", path.read_text(), re.M)]
            assert heading in anchors, target


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_targets_and_commands_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.M):
        assert target in targets, target
    stages = {path.stem for path in (ROOT / "benchmark").glob("*.py")}
    commands = {path.stem for path in (ROOT / "benchmark" / "commands").glob("*.py")}
    for dot, name in re.findall(r"python -m benchmark([. ])([a-z]+)", text):
        assert name in (stages if dot == "." else commands), name


def commands_of(page: Path) -> set[tuple[str, frozenset[str]]]:
    """Stages and commands that a page calls, with their options."""
    lines = re.findall(r"python -m benchmark[. ]([a-z]+)([^`\n#]*)", page.read_text())
    return {(name, frozenset(re.findall(r"--[a-z-]+", rest))) for name, rest in lines}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_options_of_commands_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: dict[str, set[str]] = {}
    for page in PAGES:
        for name, options in commands_of(page):
            wanted.setdefault(name, set()).update(options)
    assert {"compare", "new", "layers", "verify"} <= wanted.keys()
    for name, options in wanted.items():
        monkeypatch.setattr(sys, "argv", ["benchmark", name, "--help"])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("benchmark", run_name="__main__", alter_sys=True)
        assert stopped.value.code in (None, 0), name
        said = capsys.readouterr().out
        for option in options:
            assert option in said, f"{name} {option}"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "status", "layers resnet18"])
def test_short_commands_run(command: str) -> None:
    asked = [sys.executable, "-m", "benchmark", *command.split()]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_page_for_each_explainer_and_metric(tmp_path: Path) -> None:
    catalogue.write_pages(tmp_path)
    for kind, names in (("explainers", methods.names()), ("metrics", metrics.names())):
        pages = {path.stem for path in (tmp_path / kind).glob("*.md")}
        assert pages == {*names, "index"}
        listed = (tmp_path / kind / "index.md").read_text()
        assert all(f"\n{name}\n" in listed for name in names)
    page = (tmp_path / "explainers" / "rise.md").read_text()
    assert page.startswith("# RISE\n")
    for line in (
        "| Paper | Petsiuk et al. 2018, BMVC, arXiv 1806.07421 |",
        "| `masks` | `4000` |",
        ".. autoclass:: methods.rise.RISE",
    ):
        assert line in page, line
    assert "| `gain` | `1.0` |" in (tmp_path / "explainers" / "ttame.md").read_text()
    road = (tmp_path / "metrics" / "road.md").read_text()
    for line in (
        "| ROAD MoRF | % unchanged | 0 to 100 | lower |",
        "| Images through the network | 14 a map with the default settings, and the image itself",
        "| `noise` | `0.01` |",
        "results/plots/efficientnet_lite0_road.png)",
    ):
        assert line in road, line
    assert (
        "| Images through the network | none |"
        in (tmp_path / "metrics" / "complexity.md").read_text()
    )


def test_a_page_that_is_no_more_goes(tmp_path: Path) -> None:
    (tmp_path / "explainers").mkdir()
    (tmp_path / "explainers" / "gone.md").touch()
    catalogue.write_pages(tmp_path)
    assert not (tmp_path / "explainers" / "gone.md").exists()


def test_copied_pages_link_to_what_is_there(tmp_path: Path) -> None:
    catalogue.copy_pages(ROOT, tmp_path / "docs" / "generated")
    text = (tmp_path / "docs" / "generated" / "readme.md").read_text()
    for line in (
        "](../results.md)",
        "](../first_map.jpg)",
        "](contributing.md)",
        "](../../results/plots/",
    ):
        assert line in text, line
    source = ["see [it](../README.md#a-first-map), [that](../CONTRIBUTING.md)"]
    catalogue.link_copies(None, "compare", source)
    expected = "see [it](generated/readme.md#a-first-map), [that](generated/contributing.md)"
    assert source == [expected]


EXAMPLES: list[ModuleType] = [
    methods, methods._base, methods._inputs, methods._probe, methods._wrapping, metrics,
    metrics._base, metrics._maps, heat_maps,
    *(import_module(metrics.load(name).__module__) for name in metrics.names()),
]  # fmt: skip
WRAPPED = functools.cache(methods.wrap)
"""`methods.wrap`, which makes each network of the examples once."""
FUNCTIONS = [methods.wrap, methods.build, methods.choose_targets, metrics.score, heat_maps.overlay]


@pytest.mark.parametrize("module", EXAMPLES, ids=lambda module: module.__name__)
def test_examples_of_docstrings_run(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", methods.names())
def test_examples_of_explainers_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(methods, "wrap", WRAPPED)
    test_examples_of_docstrings_run(import_module(methods.load(name).__module__))


def test_what_is_public_has_an_example() -> None:
    """Every class that the packages export, every explainer and metric, what people call first."""
    exported = [
        getattr(package, name) for package in (methods, metrics) for name in package.__all__
    ]
    classes = [own for own in exported if isinstance(own, type)]
    assert len(classes) >= 13
    classes += [methods.load(name) for name in methods.names()]
    classes += [metrics.load(name) for name in metrics.names()]
    for own in [*classes, *FUNCTIONS]:
        assert ">>>" in (own.__doc__ or ""), own


def run_blocks(page: Path) -> dict[str, Any]:
    """The names of a page's Python blocks, run one after the other; and what they printed."""
    names: dict[str, Any] = {"__name__": "page"}
    printed = io.StringIO()
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        with contextlib.redirect_stdout(printed):
            exec(compile(block, page.name, "exec"), names)
    return names | {"printed": printed.getvalue()}


def test_pages_with_python_are_run() -> None:
    """By the tests below and by test_contributing.py."""
    pages = {page.name for page in PAGES if "```python" in page.read_text()}
    assert pages == {"README.md", "python.md", "CONTRIBUTING.md"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the repository's, with a photograph."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    photograph = Path(skimage.data.__file__).parent / "coffee.png"
    Image.open(photograph).save(tmp_path / "photograph.jpg")
    return tmp_path


def test_the_lines_of_the_readme_run(folder: Path) -> None:
    names = run_blocks(ROOT / "README.md")
    assert names["maps"].shape == (1, 7, 7)
    assert "road_morf" in names["printed"]
    assert names["printed"].startswith("espresso\n")
    with Image.open(folder / "map.png") as picture:
        assert picture.size == (224, 224)


@pytest.mark.slow
def test_the_lines_of_the_tutorial_run(folder: Path) -> None:
    names = run_blocks(DOCS / "python.md")
    assert len(names["seen"]) == 300
    assert names["hugging"].classes == 5
    assert names["maps"].shape == (1, 224, 224)


@pytest.mark.slow
def test_the_pictures_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import first_map

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(first_map, "EXPLAINERS", {"gradcam": {}, "saliency": {}})
    monkeypatch.setattr(first_map, "__file__", str(tmp_path / "first_map.py"))
    first_map.main(["ttame", "rollout", "edges"])
    with Image.open(tmp_path / "first_map.jpg") as picture:
        assert picture.width > 1000
    for name in ("ttame", "rollout", "edges"):
        with Image.open(tmp_path / "maps" / f"{name}.jpg") as picture:
            assert picture.size == (224, 224)


def test_every_explainer_has_a_picture_on_its_page(tmp_path: Path) -> None:
    assert {path.stem for path in (DOCS / "maps").glob("*.jpg")} == set(methods.names())
    catalogue.write_pages(tmp_path)
    assert "](../../maps/rise.jpg)" in (tmp_path / "explainers" / "rise.md").read_text()
