"""Write every table as CSV, Markdown and LaTeX, from the stored scores.

What people read is in results/tables/BACKBONE/, what programs read beside these folders: the long
form has a row an explainer, measure and level. Scores are all it takes; torch is not imported.
"""

from typing import TYPE_CHECKING, Any

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.store import Shelf

if TYPE_CHECKING:
    import pandas as pd


def main(params: Params) -> None:
    """Write results/tables/ and results/summary.json, if any score has changed."""
    project = Project(params)
    shelf = Shelf(results.TABLES)
    if shelf.due([project.tables()]):
        shelf.clear()
        write_tables(project)
        shelf.record([project.tables()])


def write_tables(project: Project) -> None:
    """Write the long forms, what people read of them, and what the measures are."""
    from benchmark.core.catalogue import measures_of
    from benchmark.report.measures import known_measures
    from benchmark.report.summaries import long_forms, summary

    known = known_measures(project.catalogue)
    long = long_forms(project, known)
    for name, table in long.items():
        results.write_csv(results.TABLES / f"{name}.csv", table)
    print_all(project, long, known)
    results.write_json(results.measures_path(), measures_of(project.catalogue.metrics.values()))
    results.write_json(results.SUMMARY, summary(long["comparison"]))


def print_all(project: Project, long: "dict[str, pd.DataFrame]", known: Any) -> None:
    """Write what people read, a folder a backbone, and a document of all of it."""
    from benchmark.report.printed import (
        CAPTIONS,
        HEADLINE,
        describe_answers,
        describe_claims,
        describe_targets,
        describe_trusted,
        printed_tables,
    )
    from benchmark.report.rendering import write, write_document

    labels = {cell.explainer: project.facts(cell.explainer).label for cell in project.all_cells()}
    captions = {}
    for backbone in long["comparison"]["backbone"].unique():
        own = {name: table[table["backbone"] == backbone] for name, table in long.items()}
        folder, variants = results.TABLES / str(backbone), project.marked_variants(str(backbone))
        claims = describe_claims(own, known, labels, project.params.tables.short)
        headline = [line for label, line in claims.items() if label in HEADLINE]
        trusted = describe_trusted(project.trusted_layers(str(backbone)))
        explained = results.read_table(results.targets_path(str(backbone)))
        said = describe_targets(explained, project.params.target)
        results.write_text(folder / "explained.md", said)
        results.write_text(folder / "claims.md", "".join([*trusted, *claims.values()]))
        results.write_text(folder / "headline.md", "".join([*trusted, *headline]))
        if variants:
            said = describe_answers(own["answers"], known, variants)
            results.write_text(folder / "answers.md", said)
        found = printed_tables(own, known, labels, variants, project.params.tables.short)
        for name, caption in CAPTIONS.items():
            if name in found and len(found[name]):
                path = folder / name
                write(path, found[name])
                captions[path] = f"{caption}, {backbone}"
    write_document(results.TABLES / "tables.tex", captions)


if __name__ == "__main__":
    run(main)
