"""One variant of the ablation study: train it, explain with it, score it."""

from benchmark import evaluate, explain, processes, store, train
from benchmark.images import read_split
from benchmark.params import Head, Params
from benchmark.stage import run_shared


def main(params: Params, variant: str) -> None:
    """Write the scores of a variant of params.yaml."""
    spec: Head = params.entry("ablation", variant)
    explainer = train.build(params, spec)
    settings = [variant, params.seed, spec, params.backbones[spec.backbone], params.ablate]
    splits = ("train", "validation", "evaluation")
    work = store.Work(
        "ablate",
        [*settings, params.explain, params.evaluate, params.mode],
        [*(store.split_path(split) for split in splits), spec.needs],
    )
    train.fit(explainer, params.ablate, seed=params.seed, work=work, label=variant)
    split = read_split("evaluation")
    maps, _ = explain.explain(explainer, split, params.explain, work, variant)
    suite = evaluate.build_suite(params.evaluate, params.mode, explainer.backbone, trained=True)
    seeds = evaluate.image_seeds(params.seed, split)
    view = evaluate.View(params.mode, [metric for metric in suite if metric.in_reference], maps)
    size = params.evaluate.batch_size
    (scores,) = evaluate.evaluate([view], explainer.backbone, split, seeds, size, work, variant)
    if processes.first():
        evaluate.write(store.ablation_path(variant), scores, spec.backbone, variant)
    work.done()


if __name__ == "__main__":
    run_shared(main, "variant")
