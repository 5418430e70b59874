"""The check builds every explainer beforehand, and remembers what it found out of the networks."""

from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_cnn, tiny_spec

from benchmark import check
from benchmark.core import results
from benchmark.core.cells import Project
from benchmark.core.params import Explainer, Params
from benchmark.engine import probing
from methods import Backbone

built: list[dict[str, Any]] = []


def build(*_names: str, **spec: Any) -> Backbone:
    built.append(spec)
    return tiny_cnn()


@pytest.fixture
def tiny(settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters of two explainers on the tiny network, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probing, "build_backbone", build)
    built.clear()
    explainers = {"gradcam": Explainer(), "rise": Explainer(settings={"masks": 4})}
    entry = {"explainers": explainers, "backbones": {"tiny": tiny_spec()}, "ablation": {}}
    return settings.model_copy(update=entry)


def written(params: Params) -> dict[str, Any]:
    """What the check writes of the network."""
    network = check.known_network(Project(params), "tiny")
    results.write_json(results.CHECK, {"networks": {"tiny": network}})
    return network


def test_a_network_is_probed_once(tiny: Params) -> None:
    first = written(tiny)
    assert list(first["layers"]) == ["2"]
    assert first["layers"]["2"]["rows"] == 4
    assert written(tiny) == first
    assert len(built) == 1
    assert Project(tiny).spec("tiny")["probed"] == first
    entry = tiny.explainers["rise"].model_copy(update={"settings": {"masks": 5}})
    changed = tiny.model_copy(update={"explainers": tiny.explainers | {"rise": entry}})
    assert Project(changed).spec("tiny")["probed"] is None
    written(changed)
    assert len(built) == 2


@pytest.mark.parametrize(
    ("explainer", "entry", "message"),
    [
        ("rise", {"settings": {"maskss": 4}},
         "tiny/rise cannot be built: unknown setting 'maskss' of explainer 'rise': expected"),
        ("rise", {"reference": {"masks": 0}},
         "tiny/rise in the mode reference cannot be built: masks is 0"),
        ("gradcam", {"settings": {"layer": "3.0"}},
         "tiny/gradcam cannot be built: .* layer '3.0': it gives .* no places"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_beforehand(
    tiny: Params, explainer: str, entry: dict[str, Any], message: str
) -> None:
    wrong = tiny.explainers | {explainer: Explainer(**entry)}
    with pytest.raises(ValueError, match=message):
        check.known_network(Project(tiny.model_copy(update={"explainers": wrong})), "tiny")
