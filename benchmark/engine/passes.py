"""What passes through a backbone take by themselves, as a share of the time that went by."""

import torch

from benchmark.engine.devices import clock
from methods import Backbone, Passes

TIMED = 3
"""Batches that are timed, the first of which loads what is loaded at first use."""


def share_of_network(backbone: Backbone, batch_size: int, seconds: float) -> str:
    """In words: what the passes that a backbone counted take by themselves, of so many seconds.

    A pass counts as a whole one also where gradients end at a layer, or what lies before a layer
    is computed once for all; then it may be more than the seconds that went by.

    Args:
        backbone: that counted them.
        batch_size: images through it at a time.
        seconds: in which it did.
    """
    passes = backbone.passes
    forward = seconds_of_passes(backbone, batch_size, back=False)
    alone, said = passes.forward * forward, f"{passes.forward:,} images forward"
    if passes.backward:
        both = seconds_of_passes(backbone, batch_size, back=True)
        alone += passes.backward * (both - forward)
        said += f" and {passes.backward:,} back"
    share = (
        f"{100 * alone / seconds:.0f} %"
        if alone <= seconds
        else "more than went by: some stop at a layer"
    )
    return f"{said} take {alone:.0f} seconds by themselves, of {seconds:.0f} ({share})"


def seconds_of_passes(backbone: Backbone, batch_size: int, *, back: bool) -> float:
    """Of an image, forward or also back to its pixels: the best of some batches, not counted."""
    counted, backbone.passes = backbone.passes, Passes()
    size, found = backbone.size, []
    pixels = torch.rand(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(backbone.device)
    for _ in range(TIMED):
        start = clock(backbone.device)
        if back:
            logits = backbone(pixels.requires_grad_())
            torch.autograd.grad(logits.sum(), pixels)
        else:
            backbone.probabilities(pixels)
        found.append(clock(backbone.device) - start)
    backbone.passes = counted
    return min(found) / batch_size
