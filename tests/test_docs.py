"""The pages that people read: they say what the code says, and fit."""

import re
import sys
from pathlib import Path

import pytest

import methods
import metrics

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
    assert (
        "| ROAD MoRF | % unchanged | 0 to 100 | lower |"
        in (tmp_path / "metrics" / "road.md").read_text()
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
        "](../page.png)",
        "](contributing.md)",
        "](../../results/plots/",
    ):
        assert line in text, line
    source = ["see [it](../README.md#a-first-map), [that](../CONTRIBUTING.md)"]
    catalogue.link_copies(None, "compare", source)
    expected = "see [it](generated/readme.md#a-first-map), [that](generated/contributing.md)"
    assert source == [expected]
