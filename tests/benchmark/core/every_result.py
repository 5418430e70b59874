"""Record every result of the folder's pipeline as made, or print which of them are due, as JSON.

Run in a process of its own, so that it sees the sources as they are. Files are made up: keys are
about what results are made of, not about what is in them.
"""

import json
import sys
from pathlib import Path

from benchmark import check
from benchmark.core import params, results
from benchmark.core.cells import NOT_COMPARED, Project
from benchmark.core.store import Result, Shelf


def every_result(project: Project) -> list[tuple[str, Shelf, list[Result]]]:
    """What each stage makes, in the order of the pipeline."""
    found = [("images", Shelf(results.SPLITS), [project.splits()])]
    for name in project.params.backbones:
        cells, study = project.cells(name), project.variants(name)
        metrics = project.scored_metrics()
        other = [made for cell in cells if (made := project.other_maps(cell))]
        states = [project.variant_state(v, c, s) for v, c in study.items() for s in project.seeds()]
        stages = {
            "train": (results.STATES, [project.state(cell) for cell in project.trained(name)]),
            "explain": (results.MAPS, [*map(project.maps, cells), *other]),
            "evaluate": (results.SCORES, [project.scores(c, m) for c in cells for m in metrics]),
            "randomise": (results.RANDOMISATION, [project.randomised(cell) for cell in cells]),
            "variants": (results.VARIANTS, states),
            "ablate": (results.ABLATION, [project.variant_scores(*v) for v in study.items()]),
        }
        for stage, (folder, made) in stages.items():
            but = NOT_COMPARED if stage in ("train", "variants") else ()
            found.append((f"{stage} {name}", Shelf(folder / name, but), made))
    return found


def main() -> None:
    """See above."""
    project = Project(params.load())
    if sys.argv[1:] == ["record"]:
        for _, _, made in every_result(project):
            for file in (file for result in made for file in result.files):
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.suffix == ".safetensors":
                    file.write_bytes((2).to_bytes(8, "little") + b"{}" + str(file).encode())
                else:
                    file.write_text(str(file))
        for _, shelf, made in every_result(project):
            shelf.record(made)
        check.main(project.params)  # remembers the facts of the classes
    due = {stage: shelf.due(made) for stage, shelf, made in every_result(project)}
    print(json.dumps({stage: found for stage, found in due.items() if found}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
