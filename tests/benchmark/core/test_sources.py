"""Digests of modules: of what they compute, through every kind of import."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core import sources

ROOT = Path(__file__).parents[3]


def names(*modules: str) -> set[str]:
    return set(sources.closure(frozenset(modules)))


def test_what_this_repository_is_made_of() -> None:
    assert names("methods.gradcam") == {
        "methods", "methods._acceleration", "methods._base", "methods._cam", "methods._inputs",
        "methods._known", "methods._layers", "methods._networks", "methods._probe",
        "methods._weights", "methods._wrapping",
        "methods.gradcam",
    }  # fmt: skip
    assert "metrics.road" not in names("benchmark.engine.explaining")
    training = names("benchmark.engine.training")
    assert {m for m in training if m.startswith("metrics.")} == {
        f"metrics.{name}" for name in ("_base", "_maps", "_score", "confidence")
    }
    scored = names("benchmark.engine.scoring", "metrics.road")
    assert {"metrics.imputation.cpu", "metrics.imputation.batched"} <= scored


def test_versions_of_what_is_imported() -> None:
    found = sources.versions_of(["metrics.road"])
    assert {"torch", "numpy", "numba"} <= found.keys()
    assert "captum" not in found
    assert "captum" in sources.versions_of(["methods.kernel_shap"])


TEXT = b'"""What it is."""\nimport os\n\n\ndef f(x):\n    """Say."""\n    return x + 1\n'


@pytest.mark.parametrize(
    "same",
    [
        TEXT.replace(b"return x + 1", b"return x+1  # one more"),
        TEXT.replace(b"Say", b"Speak").replace(b"What", b"Whatever"),
        TEXT.replace(b"\n\n\n", b"\n"),
        TEXT.replace(b"x + 1", b"(x\n            + 1)"),
        TEXT.replace(b'    """Say."""\n', b""),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(same: bytes) -> None:
    assert same != TEXT
    assert sources.parsed(same) == sources.parsed(TEXT)


@pytest.mark.parametrize(
    "other",
    [
        TEXT.replace(b"x + 1", b"x + 2"),
        TEXT.replace(b"x + 1", b"1 + x"),
        TEXT.replace(b"import os", b"import io"),
        TEXT.replace(b"f(x)", b"f(x=0)"),
        TEXT.replace(b"x + 1", b"'x'"),
    ],
)
def test_everything_else_counts(other: bytes) -> None:
    assert sources.parsed(other) != sources.parsed(TEXT)


SCRIPT = "from benchmark.core.sources import digest_of; import sys; print(digest_of(sys.argv[1:]))"


def digest(folder: Path, *modules: str) -> str:
    """In a process of its own, in which `folder` is where Python finds somebody's modules."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *modules],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FILES = {
    "mine/__init__.py": "",
    "mine/explainer.py": "from . import helper\nfrom .deep.inner import g\nimport methods._cam\n",
    "mine/helper.py": "x = 1\n",
    "mine/deep/__init__.py": "y = 1\n",
    "mine/deep/inner.py": "import beside\n\ndef g(): ...\n",
    "mine/unused.py": "x = 1\n",
    "beside.py": "import third\n",
    "third/__init__.py": "",
    "third/part.py": "x = 1\n",
    "alone.py": "import beside\nfrom methods import Explainer\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_module_of_somebody_else_counts_with_all_that_it_imports(folder: Path) -> None:
    """Relative imports, nested packages, single files and packages beside it."""
    before = digest(folder, "mine.explainer"), digest(folder, "alone")
    for name, package, file in (
        ("mine/helper.py", True, False),
        ("mine/deep/__init__.py", True, False),
        ("mine/deep/inner.py", True, False),
        ("beside.py", True, True),
        ("third/part.py", True, True),
        ("mine/unused.py", False, False),
        ("alone.py", False, True),
    ):
        path = folder / name
        text = path.read_text()
        path.write_text(text + "\nz = 2\n")
        after = digest(folder, "mine.explainer"), digest(folder, "alone")
        changed = tuple(a != b for a, b in zip(before, after, strict=True))
        assert changed == (package, file), name
        path.write_text(text)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(ValueError, match=r"no module 'nowhere\.at_all'"):
        sources.path_of("nowhere.at_all")
