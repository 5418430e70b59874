"""What is known of a network once every explainer is built on it."""

from pathlib import Path

import pytest
from conftest import tiny_cnn

from benchmark.engine.probing import Asked, probe_cells
from methods import Backbone

OWN = """
from methods import Explainer


class Mine(Explainer):
    label, paper, cost = "Mine", "none", "1 forward"

    def __init__(self, backbone, *, layer):
        super().__init__(backbone)
        backbone.use(layer)

    def explain(self, images, targets):
        return images[:, 0]
"""


@pytest.fixture
def cnn() -> Backbone:
    """The tiny CNN, which nobody has looked at."""
    return tiny_cnn()


@pytest.fixture
def passed(cnn: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that pass the network; somebody's explainer is there."""
    (tmp_path / "probing_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    sizes: list[int] = []
    cnn.network.register_forward_pre_hook(lambda _m, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr("benchmark.engine.probing.build_backbone", lambda *_, **__: cnn)
    return sizes


def test_layers_of_somebodys_explainer_are_known(passed: list[int]) -> None:
    """It has a copy of the network, and what it asks is asked once for all."""
    cells = {
        "own": Asked("probing_own:Mine", {"layer": "1"}),
        "again": Asked("probing_own:Mine", {"layer": "0"}),
        "gradcam": Asked("gradcam", {}),
    }
    found = probe_cells("net", {}, cells, {})
    assert set(found["layers"]) == {"0", "1", "2"}
    assert found["trusted"] == {}
    assert sum(passed) == 18
    passed.clear()
    probe_cells("net", {}, cells, {})
    assert passed == []


def test_a_layer_that_somebody_forces_is_marked(
    cnn: Backbone, passed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cnn.trusted = ("1",)
    monkeypatch.setattr("methods._base.FOLLOWS", 1.1)
    monkeypatch.setattr("benchmark.engine.probing.FOLLOWS", 1.1)
    found = probe_cells("net", {}, {"own": Asked("probing_own:Mine", {"layer": "1"})}, {})
    assert set(found["trusted"]) == {"1"}
    with pytest.raises(ValueError, match=r"own cannot be built: .* no place of it follows"):
        probe_cells("net", {}, {"own": Asked("probing_own:Mine", {"layer": "2"})}, {})
