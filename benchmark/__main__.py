"""List the stages and commands, or run one: `python -m benchmark NAME ...`."""

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
STAGES = (
    *("check", "images", "train", "explain", "evaluate", "randomise", "ablate"),
    *("runtime", "tables", "plots", "page"),
)


def main() -> None:
    """Run what the command line names, or list what there is."""
    commands = sorted(p.stem for p in (FOLDER / "commands").glob("*.py") if p.stem[0] != "_")
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in commands or name in STAGES:
        module = f"benchmark.commands.{name}" if name in commands else f"benchmark.{name}"
        sys.argv[:2] = [module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    listing = [
        "Stages, run by `dvc repro`:",
        *(describe(stage, FOLDER / f"{stage}.py") for stage in STAGES),
        "",
        "Commands, `python -m benchmark NAME --help`:",
        *(describe(command, FOLDER / "commands" / f"{command}.py") for command in commands),
    ]
    print("\n".join(listing))
    if name not in ("", "-h", "--help"):
        sys.exit(f"benchmark: no stage or command {name!r}: expected one of those above")


def describe(name: str, path: Path) -> str:
    """A line about a module: its name and the first line of its docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return f"  {name:12}{text.splitlines()[0]}"


if __name__ == "__main__":
    main()
