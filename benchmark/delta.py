"""What the arithmetic of the T-TAME reference changes: one cell scored in the other mode too."""

import pandas as pd

from benchmark import evaluate, explain, store
from benchmark.images import read_split
from benchmark.params import Cell, Params
from benchmark.stage import run

KEY = ["image", "metric", "level"]


def main(params: Params, cell: str) -> None:
    """Write the difference of the two modes for a cell of params.yaml."""
    spec: Cell = params.entry("cells", cell)
    other = "reference" if params.mode == "corrected" else "corrected"
    split = read_split("evaluation")
    explainer = explain.build(params, spec, other)
    work = store.Work(
        "delta",
        [cell, spec, params.backbones[spec.backbone], params.explain, other],
        [store.split_path("evaluation"), spec.code, spec.needs],
    )
    if explainer.reference_settings:
        maps, _ = explain.explain(explainer, split, params.explain, work, f"{cell} ({other})")
    else:
        count_nan = params.explain.nan_maps == "count"
        maps = evaluate.read_maps(spec, len(split), count_nan=count_nan)
    suite = evaluate.build_suite(
        params.evaluate, other, explainer.backbone, trained=cell in params.heads
    )
    scores = evaluate.evaluate(
        [metric for metric in suite if metric.in_reference],
        explainer.backbone,
        split,
        maps,
        evaluate.image_seeds(params.seed, split),
        other,
        params.evaluate.batch_size,
        cell,
    )
    stored = store.read_scores(store.scores_path(spec.backbone, spec.explainer))
    table = difference(stored, scores, params.mode, other)
    table.insert(0, "backbone", spec.backbone)
    table.insert(1, "explainer", spec.explainer)
    store.write_csv(store.delta_path(spec.backbone, spec.explainer), table)
    work.done()


def difference(stored: pd.DataFrame, scores: pd.DataFrame, mode: str, other: str) -> pd.DataFrame:
    """Means of both modes over the images, by measure and level.

    Args:
        stored: per-image scores.
        scores: per-image scores of the same images in the other mode.
        mode: of `stored`.
        other: of `scores`.

    Returns:
        columns metric, level, corrected, reference, delta (reference - corrected), changed (per
        cent of the images whose value differs by more than rounding) and n.

    Raises:
        ValueError: the images, measures or levels of the two are not the same.
    """
    measures = set(scores["metric"])
    own = stored[stored["metric"].isin(measures)]
    joined = own.merge(scores, on=KEY, how="outer", suffixes=("_own", "_other"), indicator=True)
    if (joined["_merge"] != "both").any():
        lone = joined[joined["_merge"] != "both"].iloc[0]
        raise ValueError(
            f"{lone['metric']} at {lone['level']} of image {lone['image']} has a score in one mode "
            "only: expected the same images, measures and levels, run `dvc repro`"
        )
    joined = joined.rename(columns={"value_own": mode, "value_other": other})
    joined["delta"] = joined["reference"] - joined["corrected"]
    joined["changed"] = 100.0 * (joined["delta"].abs() > 1e-3)
    columns = ["corrected", "reference", "delta", "changed"]
    groups = joined.groupby(["metric", "level"], sort=True)
    return groups[columns].mean().assign(n=groups.size()).reset_index()


if __name__ == "__main__":
    run(main, "cell")
