"""Run one explainer on one backbone over the evaluation images."""

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import methods
from benchmark import backbones, processes, store
from benchmark.devices import autocast, in_memory
from benchmark.images import Split, read_split
from benchmark.params import Cell, Explain, Params, Precision
from benchmark.stage import run_shared
from methods import Backbone, Explainer, TrainableExplainer, check_maps


def main(params: Params, cell: str) -> None:
    """Write the maps of a cell of params.yaml, and what they cost."""
    spec: Cell = params.entry("cells", cell)
    explainer = build(params, spec, params.mode)
    work = store.Work(
        "explain",
        [cell, spec, params.backbones[spec.backbone], params.explain, params.mode],
        inputs(spec),
    )
    split = read_split("evaluation")
    maps, cost = explain(explainer, split, params.explain, work, cell, precision=spec.precision)
    if processes.first():
        store.write_array(store.maps_path(spec.backbone, spec.explainer), maps)
        store.write_json(store.cost_path(spec.backbone, spec.explainer), cost)
    work.done()


def inputs(cell: Cell) -> list[Path]:
    """The files that the maps of a cell depend on."""
    source = store.sources_path("explainers", cell.explainer)
    return [store.split_path("evaluation"), cell.needs, source]


def build(params: Params, cell: Cell, mode: str) -> Explainer:
    """The explainer of a cell on its backbone, see `assemble`."""
    backbone = backbones.build(cell.backbone, params.backbones[cell.backbone])
    return assemble(params, cell, mode, backbone)


def assemble(params: Params, cell: Cell, mode: str, backbone: Backbone) -> Explainer:
    """The explainer of a cell on a given backbone, with its trained state if it is trainable.

    In the mode `reference` it has the cell's `reference` settings.
    """
    cls = methods.load(cell.load or cell.explainer)
    settings = cell.settings
    if issubclass(cls, TrainableExplainer):
        head = params.entry("heads", f"{cell.backbone}-{cell.explainer}")
        if settings:
            raise ValueError(
                f"cell {cell.backbone}-{cell.explainer} has settings {settings}: a trained "
                "explainer takes them from heads in params.yaml, move them there"
            )
        settings = head.settings
    if mode == "reference":
        settings = settings | cell.reference
    explainer = methods.build(cls, backbone, settings)
    if isinstance(explainer, TrainableExplainer):
        explainer.load_state(store.state_path(cell.backbone, cell.explainer))
    return explainer


def explain(
    explainer: Explainer,
    split: Split,
    settings: Explain,
    work: store.Work,
    label: str,
    targets: torch.Tensor | None = None,
    precision: Precision = "float32",
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Explain a class of every image of a split, from where `work` left off.

    Several processes share the batches; all of them return all maps.

    Args:
        explainer: the explainer.
        split: the images.
        settings: images at a time, and what to do with NaN.
        work: the folder of what is finished.
        label: of the progress bar.
        targets: (N,), the explained classes; the backbone's predictions if None.
        precision: of the explainer's forward passes.

    Returns:
        Maps (N, h, w), and the cost: the explainer's label and kind, the number of images, of one
        explanation the images through the network forward and backward and the seconds; the
        growth of the process's peak memory in MB.
    """
    files = {work.path(f"{b.start:06d}.npz"): b for b in split.batches(settings.batch_size)}
    own = processes.own(list(files.items()))
    for path, batch in tqdm(own, desc=label, unit="batch", disable=processes.silent()):
        if not path.exists():
            chunk = explain_batch(
                explainer,
                split.images(batch),
                None if targets is None else targets[batch],
                count_nan=settings.nan_maps == "count",
                precision=precision,
            )
            with store.replacing(path) as beside, beside.open("wb") as file:
                np.savez(file, **chunk)
    processes.wait()
    chunks = []
    for path in files:
        with np.load(path, allow_pickle=False) as saved:
            chunks.append(dict(saved))
    cost = {
        "label": explainer.label,
        "kind": explainer.kind,
        "images": len(split),
        "images_forward": sum(int(c["forward"]) for c in chunks) / len(split),
        "images_backward": sum(int(c["backward"]) for c in chunks) / len(split),
        "seconds": sum(float(c["seconds"]) for c in chunks) / len(split),
        "peak_memory_mb": max(float(c["memory"]) for c in chunks),
    }
    return np.concatenate([c["maps"] for c in chunks]), cost


def explain_batch(
    explainer: Explainer,
    images: torch.Tensor,
    targets: torch.Tensor | None,
    *,
    count_nan: bool,
    precision: Precision = "float32",
) -> dict[str, Any]:
    """Maps of a batch, with their cost; refuses maps that break a promise.

    Without `targets` the predicted classes are explained. With `count_nan` NaN and infinite values
    pass: evaluate counts them.
    """
    backbone = explainer.backbone
    images = images.to(backbone.device)
    targets = backbone.predict(images) if targets is None else targets.to(backbone.device)
    before = backbone.passes.forward, backbone.passes.backward
    memory = peak_memory(backbone.device)
    start = time.perf_counter()
    with autocast(backbone.device, precision):
        maps = in_memory(explainer, images, targets)
    array = maps.cpu().numpy()
    seconds = time.perf_counter() - start
    check_maps(maps.nan_to_num(0.0, 0.0, 0.0) if count_nan else maps, images)
    return {
        "maps": array,
        "forward": backbone.passes.forward - before[0],
        "backward": backbone.passes.backward - before[1],
        "seconds": seconds,
        "memory": peak_memory(backbone.device) - memory,
    }


def peak_memory(device: torch.device) -> float:
    """The most memory held so far, in MB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    run_shared(main, "cell")
