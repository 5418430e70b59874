"""Copy the generated tables into README.md, between the comment lines that name them."""

import re
from pathlib import Path

from benchmark.core import results
from benchmark.core.params import Params
from benchmark.core.stage import run

README = Path("README.md")


def main(_params: Params) -> None:
    """Bring README.md up to date with results/."""
    results.write_text(README, filled(README.read_text()))


def filled(text: str) -> str:
    """The text with every `<!-- results/.../NAME.md -->` block holding that file.

    Raises:
        ValueError: no such block.
    """
    pattern = re.compile(r"(<!-- (results/[\w/]+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)
    text, count = pattern.subn(lambda m: m[1] + Path(m[2]).read_text() + m[3], text)
    if count == 0:
        raise ValueError(
            f"{README} has no block <!-- results/tables/NAME.md --> ... <!-- end -->: add one"
        )
    return text


if __name__ == "__main__":
    run(main)
