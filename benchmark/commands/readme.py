"""Copy the generated tables into README.md and docs/, between the comment lines that name them."""

import re
from pathlib import Path

from benchmark.core import results
from benchmark.core.params import Params
from benchmark.core.stage import run

README = Path("README.md")
DOCS = Path("docs")


def main(_params: Params) -> None:
    """Bring README.md and the pages of docs/ up to date with results/."""
    for path in (README, *sorted(DOCS.glob("*.md"))):
        results.write_text(path, filled(path))


def filled(path: Path) -> str:
    """The text of a page with every `<!-- results/.../NAME.md -->` block holding that file.

    Raises:
        ValueError: the README has no such block.
    """
    pattern = re.compile(r"(<!-- (results/[\w/]+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)
    text, count = pattern.subn(lambda m: m[1] + Path(m[2]).read_text() + m[3], path.read_text())
    if count == 0 and path == README:
        raise ValueError(
            f"{path} has no block <!-- results/tables/NAME.md --> ... <!-- end -->: add one"
        )
    return text


if __name__ == "__main__":
    run(main)
