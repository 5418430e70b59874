"""Draw every figure as PNG and PDF, from the tables, the curves, the maps and the runtime."""

from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.store import Result, Shelf


def main(params: Params) -> None:
    """Draw the figures whose data have changed."""
    project = Project(params)
    shelf = Shelf(results.PLOTS)
    if not shelf.due([project.plots()]):
        return
    from matplotlib import rc_context

    from benchmark.report.drawing import style, write
    from benchmark.report.figures import drawings
    from benchmark.report.measures import known_measures

    every = []
    with rc_context(style()):
        for drawing in drawings(project, known_measures(project.catalogue)):
            path = results.PLOTS / drawing.name
            modules, files = ["benchmark.report.figures"], drawing.files.values()
            parameters = [drawing.digest, drawing.caption, params.plots, project.labels()[1]]
            key = project.report_key(modules, parameters, files)
            written = tuple(path.with_suffix(suffix) for suffix in (".png", ".pdf", ".md"))
            made = Result(drawing.name, key, written)
            if shelf.due([made]):
                write(path, drawing.draw(), drawing.caption)
                shelf.record([made])
            every.append(made)
    shelf.prune(every)
    shelf.record([project.plots()])


if __name__ == "__main__":
    run(main)
