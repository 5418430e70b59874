"""Tables as people read them: CSV, Markdown and LaTeX (booktabs) from one frame."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from benchmark.core import results

TIED = "°"
"""Marks what a paired test does not tell from the best."""

CLAIMS = {"better": "▲", "worse": "▼"}
"""Marks what the main claims tell from the first explainer."""

SYMBOLS = {
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    TIED: r"$^{\circ}$",
    "≡": r"$\equiv$",
    "▲": r"$^{\blacktriangle}$",
    "▼": r"$^{\blacktriangledown}$",
}
"""What LaTeX writes otherwise."""

DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{amssymb,booktabs,graphicx}
\newsavebox{\fitted}
\newcommand{\fit}[1]{\sbox{\fitted}{\input{#1}}%
  \ifdim\dimexpr\ht\fitted+\dp\fitted>0.85\textheight
    \resizebox*{!}{0.85\textheight}{\usebox{\fitted}}%
  \else\ifdim\wd\fitted>\linewidth
    \resizebox{\linewidth}{!}{\usebox{\fitted}}%
  \else\usebox{\fitted}\fi\fi}
\begin{document}
FLOATS
\end{document}
"""
"""A document of all tables, each made small enough for its page."""

FLOAT = r"""\begin{table}[p]\centering
\caption{CAPTION}
\fit{PATH}
\end{table}
\clearpage"""
"""A table in it."""

Mark = Literal["", "best", "tied"]
"""The best of its column, or not told from it by a paired test, or neither."""


class Entry(NamedTuple):
    """A cell as it is printed.

    Attributes:
        value: of the row.
        interval: of the value.
        mark: what it is in its column.
        claim: what it is against the first explainer, see CLAIMS, or empty.
        beside: what the first explainer has on the same images, where it has more.
    """

    value: str
    interval: str = ""
    mark: Mark = ""
    claim: str = ""
    beside: str = ""


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table of texts and entries as .csv, .md and .tex.

    Args:
        path: without suffix.
        table: a column of entries is right-aligned, any other holds texts.
    """
    results.write_text(path.with_suffix(".csv"), plain(table).to_csv(index=False))
    sides = ["right" if numeric(table[c]) else "left" for c in table.columns]
    markdown = table.map(markdown_cell).to_markdown(
        index=False, colalign=sides, disable_numparse=True
    )
    results.write_text(path.with_suffix(".md"), compact(markdown) + "\n")
    results.write_text(path.with_suffix(".tex"), latex(table))


def compact(markdown: str) -> str:
    """A table in Markdown without the blanks and dashes that only align its source."""
    return re.sub(r"-{4,}", "---", re.sub(r" {2,}", " ", markdown))


def write_document(path: Path, captions: dict[Path, str]) -> None:
    """Write a LaTeX document of tables that `write` wrote; it compiles where it stands.

    Args:
        path: of the document.
        captions: path of a table, without suffix, to its caption.
    """
    floats = [
        FLOAT.replace("CAPTION", escaped(caption)).replace(
            "PATH", str(table.with_suffix(".tex").relative_to(path.parent))
        )
        for table, caption in captions.items()
    ]
    results.write_text(path, DOCUMENT.replace("FLOATS", "\n".join(floats)))


def numeric(column: pd.Series) -> bool:
    """Whether a column is one of entries."""
    return any(isinstance(cell, Entry) for cell in column)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table of texts: a column of entries is followed by its intervals and marks, if any."""
    found = {}
    for name, column in table.items():
        if not numeric(column):
            found[name] = column
            continue
        found[name] = column.map(lambda cell: cell.value)
        for part in ("interval", "mark", "claim", "beside"):
            texts = column.map(lambda cell, part=part: getattr(cell, part))
            if texts.any():
                found[f"{name} {part}"] = texts
    return pd.DataFrame(found)


def markdown_cell(cell: str | Entry) -> str:
    """A cell in Markdown: the best bold, the interval small."""
    if isinstance(cell, str):
        return cell
    value = f"**{cell.value}**" if cell.mark == "best" else cell.value
    value += (TIED if cell.mark == "tied" else "") + CLAIMS.get(cell.claim, "")
    small = ", ".join(part for part in (cell.interval, cell.beside) if part)
    return f"{value} <sub>{small}</sub>" if small else value


def latex(table: pd.DataFrame) -> str:
    """A tabular; it needs the package booktabs."""
    alignment = "".join("r" if numeric(table[c]) else "l" for c in table.columns)
    cells = table.map(latex_cell).rename(columns=escaped)
    text: str = cells.style.hide(axis="index").to_latex(hrules=True, column_format=alignment)
    return text


def latex_cell(cell: str | Entry) -> str:
    """A cell in LaTeX: the best bold, the interval small."""
    if isinstance(cell, str):
        return escaped(cell)
    value = rf"\textbf{{{escaped(cell.value)}}}" if cell.mark == "best" else escaped(cell.value)
    value += escaped((TIED if cell.mark == "tied" else "") + CLAIMS.get(cell.claim, ""))
    small = escaped(", ".join(part for part in (cell.interval, cell.beside) if part))
    return rf"{value} {{\scriptsize {small}}}" if small else value


def escaped(text: str) -> str:
    """A text with what LaTeX reads as commands escaped."""
    for symbol in "&%$#_{}":
        text = text.replace(symbol, rf"\{symbol}")
    for symbol, command in SYMBOLS.items():
        text = text.replace(symbol, command)
    return text
