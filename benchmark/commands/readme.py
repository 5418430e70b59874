"""Copy the generated tables into README.md and docs/, between the comment lines that name them."""

import re
from pathlib import Path

from benchmark.core import results
from benchmark.core.params import Params
from benchmark.core.stage import run

README = Path("README.md")
DOCS = Path("docs")

NONE = "Not measured.\n"
"""Stands where a table is missing."""


def main(_params: Params) -> None:
    """Bring README.md and the pages of docs/ up to date with results/."""
    for path in (README, *sorted(DOCS.glob("*.md"))):
        results.write_text(path, filled(path))


def filled(path: Path) -> str:
    """The text of a page with every `<!-- results/.../NAME.md -->` block holding that file.

    A table that there is not, since params.yaml has none of its metrics, is said to be none.

    Raises:
        ValueError: the README has no such block.
    """
    pattern = re.compile(r"(<!-- (results/[\w/]+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)

    def block(match: re.Match[str]) -> str:
        table = Path(match[2])
        return match[1] + (table.read_text() if table.is_file() else NONE) + match[3]

    text, count = pattern.subn(block, path.read_text())
    if count == 0 and path == README:
        raise ValueError(
            f"{path} has no block <!-- results/tables/NAME.md --> ... <!-- end -->: add one"
        )
    return text


if __name__ == "__main__":
    run(main)
