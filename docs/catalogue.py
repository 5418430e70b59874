"""The pages of the site that are made: one for each explainer and metric, and copies of two."""

import inspect
import re
from pathlib import Path
from typing import Any

import methods
import metrics
from methods import Explainer
from metrics import Measure, Metric, Perturbation

MAPS = Path(__file__).with_name("maps")
"""Pictures of single explainers, see first_map.py."""

PLOTS = Path(__file__).parents[1] / "results" / "plots"
"""The sample's figures, one a metric."""

COPIED = ("README", "CONTRIBUTING")
"""Pages of the repository's top folder that are pages of the site as well."""


def write_pages(folder: Path) -> None:
    """Write a page an explainer and a metric below `folder`, and an index of each kind."""
    explainers = {name: methods.load(name) for name in methods.names()}
    scores = {name: metrics.load(name) for name in metrics.names()}
    write_all(
        folder / "explainers",
        "Explainers",
        {name: explainer_page(name, cls) for name, cls in explainers.items()},
    )
    write_all(
        folder / "metrics",
        "Metrics",
        {name: metric_page(name, cls) for name, cls in scores.items()},
    )


def write_all(folder: Path, title: str, pages: dict[str, str]) -> None:
    """Write pages and, as `index`, a list of them; a page that is as it was is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = "\n".join(pages)
    pages = pages | {"index": f"# {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"}
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def copy_pages(source: Path, folder: Path) -> None:
    """Copy the pages of the repository's top folder, with links that fit."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        text = re.sub(r"\]\(docs/", "](../", (source / f"{name}.md").read_text())
        text = re.sub(r"\]\((?=results/|data/|CITATION)", "](../../", text)
        for other in COPIED:
            text = text.replace(f"]({other}.md", f"]({other.lower()}.md")
        path = folder / f"{name.lower()}.md"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def link_copies(_app: object, name: str, source: list[str]) -> None:
    """Let a page's links to what `copy_pages` copied lead to the copy."""
    if "/" not in name:
        for other in COPIED:
            source[0] = source[0].replace(f"](../{other}.md", f"](generated/{other.lower()}.md")


def explainer_page(name: str, cls: type[Explainer]) -> str:
    """What a reader wants to know of an explainer, as Markdown."""
    facts = {
        "Paper": cls.paper,
        "Images through the network": cls.cost,
        "Kind": cls.kind,
        "Networks": ", ".join(sorted(cls.families)),
        "Line of `params.yaml`": f"`{name}: {{}}`",
        "In Python": f'`methods.build("{name}", backbone)`',
    }
    picture = ""
    if (MAPS / f"{name}.jpg").is_file():
        what = "The map for *reflex camera* (photograph: CC0, Lav Varshney), on "
        if cls.kind == "trained":
            what = "The map for the predicted class of a composition of the sample, on "
        network = "EfficientNet-Lite0" if "cnn" in cls.families else "the sample's transformer"
        network = "the sample's transformer" if name == "tame" else network
        picture = f"![{cls.label}](../../maps/{name}.jpg)\n\n{what}{network}.\n\n"
    settings = settings_table(defaults_of(cls))
    return f"# {cls.label}\n\n{as_table(facts)}{settings}\n{picture}{documented(cls)}"


def metric_page(name: str, cls: type[Metric]) -> str:
    """What a reader wants to know of a metric, as Markdown."""
    rows = "".join(measure_row(own) for own in cls.measures)
    head = f"| measure | unit | range | better | levels | paper |\n{'| --- ' * 6}|\n"
    facts = {
        "Line of `params.yaml`": f"`{name}: {{}}` under `evaluate.metrics`",
        "In Python": f'`metrics.score(maps, images, targets, probabilities, ["{name}"])`',
        "Images through the network": cost_of(name),
        "Version": str(cls.version),
    }
    settings = settings_table(
        {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    )
    picture = ""
    if (PLOTS / f"efficientnet_lite0_{name}.png").is_file():
        plot = f"../../../results/plots/efficientnet_lite0_{name}.png"
        picture = f"![{name}, of every explainer on the sample's CNN]({plot})\n\n"
        picture += f"{(PLOTS / f'efficientnet_lite0_{name}.md').read_text()}\n"
    return f"# {name}\n\n{as_table(facts)}{settings}\n{head}{rows}\n{picture}{documented(cls)}"


def cost_of(name: str) -> str:
    """How many images a metric asks the network about, in words."""
    metric = metrics.build(name, {})
    if not isinstance(metric, Perturbation):
        return "none"
    return f"{metric.versions} a map with the default settings, and the image itself once"


def settings_table(defaults: dict[str, Any]) -> str:
    """Settings with their defaults as a table, empty without any."""
    rows = "".join(f"| `{name}` | `{default!r}` |\n" for name, default in defaults.items())
    return f"\n| setting | default |\n| --- | --- |\n{rows}" if rows else ""


def measure_row(measure: Measure) -> str:
    """A row of the table of measures."""
    low, high = measure.bounds
    better = "higher" if measure.higher_is_better else "lower"
    cells = [measure.label, measure.unit, f"{low:g} to {high:g}", better]
    cells += [measure.levels or "", measure.paper]
    return f"| {' | '.join(cells)} |\n"


def as_table(facts: dict[str, str]) -> str:
    """Facts as a table without a heading."""
    rows = "".join(f"| {what} | {fact} |\n" for what, fact in facts.items())
    return f"| | |\n| --- | --- |\n{rows}"


def defaults_of(cls: type[Explainer]) -> dict[str, Any]:
    """The settings of an explainer with their defaults, those of its bases included."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base) and issubclass(base, Explainer):
            parameters = inspect.signature(base.__init__).parameters.values()
            keyword = inspect.Parameter.KEYWORD_ONLY
            found |= {p.name: p.default for p in parameters if p.kind is keyword}
    return {name: found[name] for name in methods.settings_of(cls)}


def documented(cls: type) -> str:
    """The directives that print the docstring of a class, and of a base that has more settings."""
    bases = [b for b in cls.__mro__[1:] if issubclass(b, Explainer) and defaults_of(b)]
    lines = [f".. autoclass:: {cls.__module__}.{cls.__name__}"]
    lines += [
        f".. autoclass:: {base.__module__}.{base.__name__}\n   :no-index:" for base in bases[:1]
    ]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"
