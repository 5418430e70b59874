"""The check builds every explainer beforehand, and remembers what it found out of the networks."""

from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_cnn, tiny_spec

from benchmark import check
from benchmark.core import preconditions, results
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


def test_layers_that_do_not_follow_are_known_to_the_tables(
    tiny: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a layer is trusted does not matter where it follows."""
    spec = tiny.backbones["tiny"].model_copy(update={"trusted": ("2",)})
    trusting = tiny.model_copy(update={"backbones": {"tiny": spec}})
    network = written(trusting)
    assert Project(trusting).trusted_layers("tiny") == {}
    before = Project(trusting).tables().key
    monkeypatch.setattr(probing, "FOLLOWS", 2.0)
    results.CHECK.unlink()
    assert written(trusting)["layers"] == network["layers"]
    assert Project(trusting).trusted_layers("tiny") == {"2": network["layers"]["2"]["follows"]}
    assert Project(trusting).tables().key != before


def test_a_metric_that_cannot_be_built_is_refused_first(tiny: Params) -> None:
    """Its scores come after hours of maps."""
    scored = tiny.evaluate.metrics["road"].model_copy(update={"settings": {"removd": [10]}})
    changed = tiny.evaluate.metrics | {"road": scored}
    evaluate = tiny.evaluate.model_copy(update={"metrics": changed})
    with pytest.raises(ValueError, match="metric road cannot be built: unknown setting 'removd'"):
        written(tiny.model_copy(update={"evaluate": evaluate}))
    assert not built


def test_a_checkpoint_that_is_not_there_is_refused_first(tiny: Params) -> None:
    missing = Explainer(checkpoint=Path("nowhere.safetensors"))
    changed = tiny.model_copy(update={"explainers": {"ttame": missing}})
    with pytest.raises(ValueError, match=r"tiny/ttame cannot be built: .* nowhere.safetensors"):
        written(changed)


@pytest.mark.parametrize(
    ("train", "message"),
    [(15, "batch_size of tiny/ttame is 16: expected at most the 15 training images"), (16, "")],
)
def test_batches_are_no_larger_than_what_there_is(tiny: Params, train: int, message: str) -> None:
    images = tiny.images.model_copy(update={"train": train})
    recipe = tiny.train.model_copy(update={"batch_size": 16, "images": None})
    given = {"images": images, "train": recipe, "explainers": {"ttame": Explainer()}}
    project = Project(tiny.model_copy(update=given))
    if message:
        with pytest.raises(ValueError, match=message):
            preconditions.refuse_large_batches(project)
    else:
        preconditions.refuse_large_batches(project)


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


def test_what_is_left_out_is_said(tiny: Params) -> None:
    """A study, training, or an explainer to compare with."""
    assert preconditions.left_out(Project(tiny)) == [
        "no explainer is trained: there are no training curves",
        "ablation is empty: there is no ablation study",
    ]
    alone = tiny.model_copy(update={"explainers": {"ttame": Explainer()}})
    assert preconditions.left_out(Project(alone)) == [
        "ablation is empty: there is no ablation study",
        "tiny has one explainer: it is compared with none, and there are no ranks",
    ]


def test_training_wants_validation_images(tiny: Params) -> None:
    none = {"images": tiny.images.model_copy(update={"validation": 0})}
    preconditions.refuse_no_validation(Project(tiny.model_copy(update=none)))
    trained = tiny.model_copy(update=none | {"explainers": {"ttame": Explainer()}})
    with pytest.raises(ValueError, match=r"images\.validation is 0 and tiny/ttame is trained"):
        preconditions.refuse_no_validation(Project(trained))


@pytest.mark.parametrize(
    ("chosen", "needed"),
    [
        ({"train": 10**9, "validation": 0, "evaluation": 0}, "200704.0 GB of disk"),
        ({"train": 1, "validation": 10**9, "evaluation": 10**9}, "401408.0 GB of disk"),
    ],
)
def test_images_that_cannot_be_kept_are_refused_before_they_are_made(
    tiny: Params, chosen: dict[str, int], needed: str
) -> None:
    preconditions.refuse_small_disk(Project(tiny))
    images = tiny.images.model_copy(update=chosen)
    project = Project(tiny.model_copy(update={"images": images}))
    with pytest.raises(ValueError, match=rf"pixels need {needed}: there are .*, expected"):
        preconditions.refuse_small_disk(project)
