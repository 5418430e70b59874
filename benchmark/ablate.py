"""One variant of the ablation study: train it, explain with it, score it."""

import metrics
from benchmark import evaluate, explain, store, train
from benchmark.images import read_split
from benchmark.params import Head, Params
from benchmark.stage import run, seed_of


def main(params: Params, variant: str) -> None:
    """Write the scores of a variant of params.yaml."""
    spec: Head = params.entry("ablation", variant)
    explainer = train.build(params, spec)
    settings = [variant, params.seed, spec, params.backbones[spec.backbone], params.ablate]
    splits = ("train", "validation", "evaluation")
    work = store.Work(
        "ablate",
        [*settings, params.explain, params.evaluate],
        [store.split_path(split) for split in splits],
    )
    train.fit(explainer, params.ablate, seed=params.seed, work=work, label=variant)
    split = read_split("evaluation")
    maps, _ = explain.explain(explainer, split, params.explain.batch_size, work, variant)
    suite = [metrics.build(name, s) for name, s in params.evaluate.metrics.items()]
    seeds = [seed_of(params.seed, "evaluate", image) for image in split.ids]
    scores = evaluate.evaluate(
        suite, explainer.backbone, split, maps, seeds, params.evaluate.batch_size, variant
    )
    scores.insert(0, "backbone", spec.backbone)
    scores.insert(1, "explainer", variant)
    store.write_csv(store.ablation_path(variant), scores)
    work.done()


if __name__ == "__main__":
    run(main, "variant")
