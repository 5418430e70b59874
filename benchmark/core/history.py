"""What git says: which commit of the suite is checked out, and how another one is had."""

import io
import subprocess
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
CODE = ("benchmark", "methods", "metrics", "data/sample", "pyproject.toml")


def current_commit() -> str:
    """The commit that the suite's code is checked out at; empty outside of git."""
    try:
        return read_git("rev-parse", "HEAD").strip()
    except ValueError:
        return ""


def read_git(*arguments: str, folder: Path = ROOT) -> str:
    """What git says of a folder, by default of the suite's code.

    Raises:
        ValueError: it refuses, or there is no git.
    """
    return run_git(*arguments, folder=folder).decode()


def run_git(*arguments: str, folder: Path = ROOT) -> bytes:
    """See `read_git`."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise ValueError(f"cannot run git: {error}") from error
    if ran.returncode != 0:
        reason = ran.stderr.decode().strip().splitlines()[-1:] or ["failed"]
        raise ValueError(f"git {' '.join(arguments)}: {reason[0]}; expected a commit of this clone")
    return ran.stdout


def unpack(commit: str, folder: Path) -> None:
    """Write the suite's code as it was at a commit into a folder.

    Raises:
        ValueError: there is no such commit.
    """
    there = read_git("ls-tree", "--name-only", commit, *CODE).split()
    with ZipFile(io.BytesIO(run_git("archive", "--format=zip", commit, *there))) as archive:
        archive.extractall(folder)
