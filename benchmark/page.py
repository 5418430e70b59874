"""Write results/index.html: tables, figures and a browser of the evaluation images."""

from typing import TYPE_CHECKING, Any

from benchmark.core import results
from benchmark.core.cells import Project, split_files
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.store import WORK, Result, Shelf

if TYPE_CHECKING:
    from benchmark.data.splits import Split
    from benchmark.report.browser import Cell

PARTS = WORK / "page"
"""What was drawn for each cell; made anew where it is missing."""


def main(params: Params) -> None:
    """Write the page, if anything that it shows has changed."""
    project = Project(params)
    shelf = Shelf(PARTS)
    if not shelf.due([project.page()]):
        return
    from benchmark.data.splits import read_split
    from benchmark.report import browser

    split = read_split(results.SPLITS, "evaluation").first(params.page.images)
    cells: dict[str, Any] = {}
    for backbone in params.backbones:
        drawn = {c.explainer: (c, part_of(project, c)) for c in browser.cells_of(project, backbone)}
        draw_parts(project, backbone, drawn, split, shelf)
        cells[backbone] = {n: results.read_json(made.files[0]) for n, (_, made) in drawn.items()}
    tables = [t for backbone in params.backbones for t in browser.tables_of(project, backbone)]
    figures = browser.figures_of(params.backbones)
    text = browser.render(project, cells, tables, figures, split, results.PICTURES)
    results.write_text(results.PAGE, text)
    parts = [part_of(project, c) for b in params.backbones for c in browser.cells_of(project, b)]
    kept = {made.files[1].name for made in parts}
    for path in results.PICTURES.glob("*.webp"):
        if path.name not in kept and not path.name.startswith("photograph-"):
            path.unlink()
    shelf.prune(parts)
    shelf.record([project.page()])


def part_of(project: Project, cell: "Cell") -> Result:
    """What the page shows of a cell: its maps and what the metrics saw, and scores."""
    params = project.params
    first = params.page.images, {"maps": cell.maps} | split_files("evaluation")
    chosen = {n: params.evaluate.settings.get(n) for n in ("confidence", "road")}
    parameters = [params.seed, params.mode, params.page, chosen, cell.label, cell.kind]
    modules = ["benchmark.report.browser", "metrics.confidence", "metrics.road"]
    name = f"{cell.backbone}-{cell.explainer}"
    parameters += [cell.trained]
    key = project.key(modules, parameters, {"scores": cell.scores}, cell.backbone, first)
    return Result(name, key, (PARTS / f"{name}.json", results.PICTURES / f"{name}.webp"))


def draw_parts(
    project: Project,
    backbone: str,
    drawn: "dict[str, tuple[Cell, Result]]",
    split: "Split",
    shelf: Shelf,
) -> None:
    """Draw the parts of a backbone that are due."""
    from benchmark.report import browser
    from methods import build_backbone

    due = shelf.due([made for _, made in drawn.values()])
    if not due:
        return
    network = build_backbone(backbone, **project.params.backbones[backbone].spec)
    for cell, made in drawn.values():
        if made.name in due:
            part = browser.describe_cell(project.params, cell, network, split, made.files[1])
            results.write_json(made.files[0], part)
            shelf.record([made])


if __name__ == "__main__":
    run(main)
