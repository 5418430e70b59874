"""One variant of the ablation study: train it, explain with it, score it, seed by seed."""

import pandas as pd

from benchmark import backbones, evaluate, explain, processes, store, train
from benchmark.images import read_split
from benchmark.params import Params, Variant
from benchmark.stage import run_shared
from methods import Backbone


def main(params: Params, variant: str) -> None:
    """Write the scores of a variant of params.yaml, with a column `seed`."""
    spec: Variant = params.entry("ablation", variant)
    backbone = backbones.build(spec.backbone, params.backbones[spec.backbone])
    finished = unfinished(params, variant, None)
    seeds = range(params.seed, params.seed + params.ablate.seeds)
    for seed in seeds:
        path = finished.path(f"{seed}.csv")
        if not path.exists():
            work = unfinished(params, variant, seed)
            scores = scored(params, variant, backbone, seed, work).assign(seed=seed)
            if processes.first():
                name = variant.removeprefix(f"{spec.backbone}-")
                evaluate.write(path, scores, spec.backbone, name)
            work.done()
    if processes.first():
        tables = [store.read_ablation(finished.path(f"{seed}.csv")) for seed in seeds]
        store.write_csv(store.ablation_path(variant), pd.concat(tables))
    finished.done()


def unfinished(params: Params, variant: str, seed: int | None) -> store.Work:
    """The work on a variant: of one seed, or (None) the scores of the seeds that are finished."""
    spec = params.ablation[variant]
    settings = [variant, params.seed, spec, params.backbones[spec.backbone], params.ablate]
    splits = (store.split_path(split) for split in ("train", "validation", "evaluation"))
    return store.Work(
        "ablate",
        [seed, *settings, params.explain, params.evaluate, params.mode],
        [*splits, spec.needs],
    )


def scored(
    params: Params, variant: str, backbone: Backbone, seed: int, work: store.Work
) -> pd.DataFrame:
    """Scores of a variant that was trained with `seed`, of its initial weights and its batches."""
    spec = params.ablation[variant]
    settings = spec.settings | {"seed": seed}
    explainer = train.build(spec.model_copy(update={"settings": settings}), backbone)
    label = f"{variant}, seed {seed}"
    train.fit(explainer, params.recipe(variant), seed=seed, work=work, label=label)
    split = read_split("evaluation")
    maps, _ = explain.explain(explainer, split, params.explain, work, label)
    suite = evaluate.build_suite(params.evaluate, params.mode, backbone, trained=True)
    seeds = evaluate.image_seeds(params.seed, split)
    view = evaluate.View(params.mode, [metric for metric in suite if metric.in_reference], maps)
    size = params.evaluate.batch_size
    (scores,) = evaluate.evaluate([view], backbone, split, seeds, size, work, label)
    return scores


if __name__ == "__main__":
    run_shared(main, "variant")
