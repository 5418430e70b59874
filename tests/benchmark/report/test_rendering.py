"""Rendering: one frame as CSV, Markdown and LaTeX that compiles."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from benchmark.report import rendering
from benchmark.report.rendering import Entry

ROOT = Path(__file__).parents[3]
PDFLATEX = shutil.which("pdflatex") or shutil.which("tectonic")
compiles = pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex or tectonic")


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Explainer": ["T-TAME", "50 % & a_b {#1}"],
            "AD 50 % ↓": [Entry("1.5", "1–2", "best"), Entry("2.5", "2–3", "tied")],
            "Images": [Entry("1"), Entry("17")],
            "IC ↑": [Entry("4", claim="better"), Entry("3", "2–5", "", "worse", "T-TAME 8")],
        }
    )


def test_markdown(table: pd.DataFrame, tmp_path: Path) -> None:
    rendering.write(tmp_path / "t", table)
    lines = (tmp_path / "t.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(table.columns)
    assert [line.endswith(":") for line in cells[1]] == [False, True, True, True]
    assert cells[2] == ["T-TAME", "**1.5** <sub>1–2</sub>", "1", "4▲"]
    assert cells[3][1:] == ["2.5° <sub>2–3</sub>", "17", "3▼ <sub>2–5, T-TAME 8</sub>"]


def test_csv_has_values_intervals_and_marks_apart(table: pd.DataFrame, tmp_path: Path) -> None:
    rendering.write(tmp_path / "t", table)
    found = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    name = "AD 50 % ↓"
    assert list(found.columns) == [
        *("Explainer", name, f"{name} interval", f"{name} mark", "Images"),
        *("IC ↑", "IC ↑ interval", "IC ↑ claim", "IC ↑ beside"),
    ]
    own = ["50 % & a_b {#1}", "2.5", "2–3", "tied", "17", "3", "2–5", "worse", "T-TAME 8"]
    assert found.iloc[1].tolist() == own


def test_latex_is_booktabs_and_escaped(table: pd.DataFrame) -> None:
    lines = rendering.latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}"
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"Explainer & AD 50 \% $\downarrow$ & Images & IC $\uparrow$ \\" in lines
    better, worse = (
        r"4$^{\blacktriangle}$",
        r"3$^{\blacktriangledown}$ {\scriptsize 2--5, T-TAME 8}",
    )
    assert rf"T-TAME & \textbf{{1.5}} {{\scriptsize 1--2}} & 1 & {better} \\" in lines
    tied = r"2.5$^{\circ}$ {\scriptsize 2--3}"
    assert rf"50 \% \& a\_b \{{\#1\}} & {tied} & 17 & {worse} \\" in lines


def compiled(folder: Path, document: str) -> str:
    """What the compiler said; its last line if it failed."""
    options = [] if "tectonic" in str(PDFLATEX) else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [str(PDFLATEX), *options, document],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@compiles
def test_latex_compiles(table: pd.DataFrame, tmp_path: Path) -> None:
    rendering.write(tmp_path / "net_a" / "t", table)
    rendering.write_document(tmp_path / "all.tex", {tmp_path / "net_a" / "t": "100 % of net_a"})
    compiled(tmp_path, "all.tex")
    assert (tmp_path / "all.pdf").stat().st_size > 5_000


@compiles
def test_committed_tables_compile(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "tables", tmp_path / "tables")
    said = compiled(tmp_path / "tables", "tables.tex")
    tables = list((tmp_path / "tables").glob("*/*.tex"))
    assert len(tables) >= 2 * 8
    assert f"({len(tables)} pages" in said
