"""Convert a released checkpoint of T-TAME, TAME or L-CAM into a trained state of this suite.

The authors' files are Lightning checkpoints: `state_dict` holds the attention mechanism under
`generic.attn_mech.`, on a transformer one step deeper, and beside it the classifier. If the batch
norms of that drifted, the classifier as it was then is written beside the state, with the ending
`.weights.safetensors`, to be the backbone's `weights`.
"""

import pickle
import re
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmark.core import results
from benchmark.core.params import Params, refuse_unknown
from benchmark.core.stage import run
from benchmark.engine.devices import device
from benchmark.engine.training import build_trainable
from methods import build_backbone, build_network
from methods._wrapping import NETWORK

MECHANISM = re.compile(r"(?:^|\.)attn_mech\.(?:\d+\.)?((?:convs|bns)\.\d+\.\w+|(?:fuser|op)\.\w+)$")
"""Keys of an attention mechanism, and the name of the tensor inside it."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What a batch norm counts while it is in train mode."""


def main(params: Params, backbone: str, explainer: str, checkpoint: str, state: str) -> None:
    """Write the file `state`, for an explainer on a backbone, from the file `checkpoint`.

    Raises:
        ValueError: the checkpoint cannot be used, see `read_state` and `mechanism_of`, or does not
            fit the explainer.
    """
    refuse_unknown("backbone", [backbone], params.backbones)
    refuse_unknown("explainer", [explainer], params.explainers)
    cell = params.cell(backbone, explainer)
    spec = params.backbones[backbone].spec
    network = build_backbone(backbone, device=device(), **spec)
    trainable = build_trainable(cell.load or explainer, network, cell.settings)
    released = read_state(Path(checkpoint))
    trainable.adopt(mechanism_of(released, checkpoint), checkpoint)
    if drifted := count_drifted(released):
        beside = Path(state).with_suffix(".weights.safetensors")
        own = {key: spec[key] for key in NETWORK if key in spec}
        weights = build_network(backbone, **own).state_dict()
        try:
            results.write_tensors(beside, weights | statistics_of(released, weights))
            say = f"to explain it as it was then, set the weights of {backbone} to {beside}"
        except ValueError as error:
            say = f"{backbone} has the published statistics, since {error}"
        print(
            f"convert: {checkpoint} was trained beside a network in train mode, whose {drifted} "
            f"batch norms drifted; {say}",
            file=sys.stderr,
        )
    print(
        f"convert: nobody counted the training images of each class, so that {state} explains "
        "every class, also one that training never saw",
        file=sys.stderr,
    )
    results.write_tensors(Path(state), trainable.attention.state_dict())


def read_state(path: Path) -> dict[str, Tensor]:
    """The state of a Lightning checkpoint: the attention mechanism and the classifier.

    Raises:
        ValueError: missing or truncated, holding more than tensors and plain values, or no state.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path} holds more than tensors and plain values, which could run code: "
            "expected a file that torch.load reads with weights_only=True, save its state_dict "
            f"alone ({str(error).splitlines()[0]})"
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"cannot read the checkpoint {path}: {error}; expected a whole file, fetch it again"
        ) from error
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"checkpoint {path} has no state_dict: expected a Lightning checkpoint")
    return state


def count_drifted(state: dict[str, Tensor]) -> int:
    """How many batch norms of the classifier have counted batches: in eval mode they count none."""
    return sum(
        key.endswith("num_batches_tracked") and not MECHANISM.search(key) and int(tensor) > 0
        for key, tensor in state.items()
    )


def statistics_of(state: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch-norm statistics of the classifier in a checkpoint, by their names in a network.

    Args:
        state: of the checkpoint.
        weights: of the network.

    Raises:
        ValueError: the checkpoint lacks one, or has it in another shape.
    """
    known = sorted(name for name in weights if name.rpartition(".")[2] in STATISTICS)
    if not known:
        raise ValueError("it has no batch norms")
    starts = {key[: -len(known[0])] for key in state if key.endswith(f".{known[0]}")}
    start = max(starts, key=lambda own: sum(own + name in state for name in known), default="")
    found = {name: state[start + name] for name in known if start + name in state}
    for name in known:
        if name not in found or found[name].shape != weights[name].shape:
            has = list(found[name].shape) if name in found else "missing"
            raise ValueError(
                f"{name} of the checkpoint's network is {has}, expected {list(weights[name].shape)}"
            )
    return found


def mechanism_of(state: dict[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """The attention mechanism of a checkpoint's state, by the names of its modules.

    Raises:
        ValueError: there is none in the state, which came from `path`.
    """
    found = {key: MECHANISM.search(key) for key in state}
    mechanism = {match[1]: state[key] for key, match in found.items() if match}
    if not mechanism:
        raise ValueError(
            f"checkpoint {path} has no attention mechanism: expected keys such as "
            f"generic.attn_mech.fuser.weight, it has {', '.join(list(state)[:3]) or 'none'}"
        )
    return mechanism


if __name__ == "__main__":
    run(main, "backbone", "explainer", "checkpoint", "state")
