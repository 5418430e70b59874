"""Which modules something is computed by, what they say, and which distributions they need.

Nothing is imported: modules are found in the import graph (grimp) and read. A digest is of the
parsed module, so that comments, docstrings and layout do not count.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import grimp

from benchmark.core.memory import remembered

PACKAGES = ("benchmark", "methods", "metrics")


def digest_of(modules: Iterable[str], but: str = "") -> str:
    """What modules, and all that they import of these packages or beside them, compute by.

    Args:
        modules: full names.
        but: a package whose modules do not count.
    """
    return whole_digest(frozenset(modules), but)


@cache
def whole_digest(modules: frozenset[str], but: str) -> str:
    """See `digest_of`; sources do not change while a stage runs."""
    sources = hashlib.sha256()
    for name in sorted(m for m in closure(modules) if not is_part(m, but)):
        sources.update(f"{name} {source_digest(path_of(name))}\n".encode())
    return sources.hexdigest()[:16]


def versions_of(modules: Iterable[str], but: str = "") -> dict[str, str]:
    """The versions of the distributions that modules, and all that they import, import.

    Args:
        modules: full names.
        but: a package whose modules do not count.
    """
    return dict(whole_versions(frozenset(modules), but))


@cache
def whole_versions(modules: frozenset[str], but: str) -> dict[str, str]:
    """See `versions_of`."""
    found = {}
    for name in (m for m in closure(modules) if not is_part(m, but)):
        for package in outside(name):
            for distribution in distributions().get(package, []):
                found[distribution.lower()] = version_of(distribution)
    return dict(sorted(found.items()))


version_of = cache(version)


def is_part(name: str, package: str) -> bool:
    """Whether a module is a package or in it."""
    return bool(package) and f"{name}.".startswith(f"{package}.")


@cache
def closure(modules: frozenset[str]) -> frozenset[str]:
    """Modules, and everything of these packages or of one's own that they import, directly or not.

    A module's packages belong to it: importing it runs their `__init__`. Modules that are loaded by
    name are in no import graph and have to be among `modules`.
    """
    found: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += [*parents(name), *inside(name)]
    return frozenset(found)


def parents(name: str) -> Iterator[str]:
    """The packages that a module is in, as far as they have an `__init__`."""
    while name := name.rpartition(".")[0]:
        if path_of(name).is_file():
            yield name


def inside(name: str) -> Iterator[str]:
    """Modules that a module imports: of these packages, of its own, or else of one's own."""
    for found in imports_of(name):
        if top(found) in (*PACKAGES, top(name)):
            yield found
        elif is_own(top(found)):
            yield from members(top(found))


def outside(name: str) -> set[str]:
    """Top-level names that a module imports, of installed distributions."""
    return ({top(m) for m in imports_of(name)} & distributions().keys()) - set(PACKAGES)


@cache
def imports_of(name: str) -> frozenset[str]:
    """What a module imports, whether at its top or in a function; not for types alone."""
    if is_package(top(name)):
        return frozenset(graph(top(name)).find_modules_directly_imported_by(name))
    found: set[str] = set()
    for node in ast.walk(ast.parse(path_of(name).read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & graph(PACKAGES[0]).modules
    return frozenset(found)


@cache
def graph(package: str) -> grimp.ImportGraph:
    """The import graph of these packages and one more; others are nodes without modules."""
    return grimp.build_graph(
        *dict.fromkeys((*PACKAGES, package)),
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


def members(name: str) -> list[str]:
    """A module that is a file alone, or all modules of a package."""
    return [name, *graph(name).find_descendants(name)] if is_package(name) else [name]


def top(name: str) -> str:
    """The top-level package or module of a name."""
    return name.partition(".")[0]


def is_package(name: str) -> bool:
    """Whether a top-level name is a package, not a file alone."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def is_own(name: str) -> bool:
    """Whether a top-level name is neither Python's nor of a distribution: somebody's own code."""
    if name in sys.stdlib_module_names or name in distributions():
        return False
    return importlib.util.find_spec(name) is not None


@cache
def path_of(name: str) -> Path:
    """The file of a module, or of the package of that name; it need not exist.

    Raises:
        ValueError: there is no such module.
    """
    try:
        spec = importlib.util.find_spec(top(name))
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(f"no module {name!r}: expected one that Python finds, see load")
    if spec.submodule_search_locations is None:
        return Path(str(spec.origin))
    folder = Path(next(iter(spec.submodule_search_locations))).joinpath(*name.split(".")[1:])
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def source_digest(path: Path) -> str:
    """The digest of a module's parsed source."""
    return remembered(
        "source", path, lambda: hashlib.sha256(parsed(path.read_bytes()).encode()).hexdigest()[:16]
    )


def parsed(source: bytes) -> str:
    """A module's code without comments, docstrings and layout, the same for all Pythons.

    `ast.dump` is not: newer ones leave out what is empty.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not is_text(n)]  # type: ignore[attr-defined]
    return written(tree)


def is_text(node: ast.AST) -> bool:
    """Whether a statement is a text alone, as docstrings are."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def written(node: object) -> str:
    """A syntax tree as text, without what is empty."""
    if isinstance(node, list):
        return f"[{','.join(map(written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (f"{k}={written(v)}" for k, v in ast.iter_fields(node) if v not in (None, []))
    return f"{type(node).__name__}({','.join(fields)})"


@cache
def distributions() -> dict[str, list[str]]:
    """The distributions of each top-level package that is installed."""
    folder = Path(str(grimp.__file__)).parents[1]
    return remembered("distributions", folder, lambda: dict(packages_distributions()))
