"""Build every explainer and metric of a backbone before there is work that could be lost."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import metrics
from benchmark.engine.explaining import assemble
from methods import build_backbone
from methods._probe import FOLLOWS

DIGITS = 3
"""Of what is kept of a layer, after the point."""


class Asked(NamedTuple):
    """An explainer to build: see `assemble`."""

    explainer: str
    settings: dict[str, Any]
    state: Path | None = None


def probe_cells(
    backbone: str,
    spec: Mapping[str, Any],
    cells: Mapping[str, Asked],
    scored: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """What is known of a network once every explainer has asked for its layers.

    Args:
        backbone: its name.
        spec: the other arguments of methods.build_backbone.
        cells: explainers by what messages call them.
        scored: the settings of metrics, by name.

    Returns:
        methods.Probed as JSON can hold it, for `probed` of methods.build_backbone; and in `trusted`
        how far those layers follow the image that are read although they do not.

    Raises:
        ValueError: a network, explainer or metric that cannot be built, and why.
    """
    for name, settings in scored.items():
        try:
            metrics.build(name, settings)
        except ValueError as error:
            raise ValueError(f"metric {name} cannot be built: {error}") from error
    network = build_backbone(backbone, **spec)
    for name, cell in cells.items():
        try:
            assemble(cell.explainer, network, cell.settings, cell.state)
        except ValueError as error:
            raise ValueError(f"{name} cannot be built: {error}") from error
    found = asdict(network.probed)
    for layer in found["layers"].values():
        layer |= {name: round(layer[name], DIGITS) for name in ("follows", "peak")}
    known = network.probed.layers.items()
    trusted = {name: round(own.follows, DIGITS) for name, own in known if own.follows < FOLLOWS}
    return found | {"trusted": trusted}
