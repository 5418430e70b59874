"""Build every explainer of a backbone before there is work that could be lost."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmark.engine.explaining import assemble
from methods import build_backbone


def probe_cells(
    backbone: str, spec: Mapping[str, Any], cells: Mapping[str, tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """What is known of a network once every explainer has asked for its layers.

    Args:
        backbone: its name.
        spec: the other arguments of methods.build_backbone.
        cells: by what messages call them, explainers (see `assemble`) and their settings.

    Returns:
        methods.Probed as JSON can hold it, for `probed` of methods.build_backbone.

    Raises:
        ValueError: a network or explainer that cannot be built, and why.
    """
    network = build_backbone(backbone, **spec)
    for name, (explainer, settings) in cells.items():
        try:
            assemble(explainer, network, settings)
        except ValueError as error:
            raise ValueError(f"{name} cannot be built: {error}") from error
    return asdict(network.probed)
