"""The table of networks: what it says of some is what they do."""

import pandas as pd
import pytest

import methods
from benchmark.commands import networks
from benchmark.core import results

EIGHT = (
    *("resnet18", "mobilenetv3_small_100", "efficientvit_m0", "levit_128s", "pit_ti_224"),
    *("deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_224"),
    "torchvision:squeezenet1_1",
)
"""Small ones, of as many families."""

TABLE = pd.DataFrame(
    [("a", "x", "e", "works"), ("a", "x", "f", "no"), ("b", "", "", "none of it")],
    columns=["network", "layers", "explainer", "result"],
)


@pytest.mark.slow
@pytest.mark.parametrize("name", EIGHT)
def test_the_table_says_what_a_network_does(name: str) -> None:
    table = results.read_table(networks.EXPLAINERS).fillna("")
    expected = table[table["network"] == name].to_dict("records")
    assert networks.tried(name, methods.names()) == expected


def test_every_network_of_the_table_is_tried_and_none_fails() -> None:
    table = results.read_table(networks.EXPLAINERS).fillna("")
    assert tuple(table["network"].unique()) == networks.TRIED
    assert len(networks.TRIED) >= 40
    failed = table[table["result"].str.startswith("fails")]
    assert failed.empty, failed.to_string()


def test_rows_of_a_network_that_is_tried_again_are_replaced() -> None:
    again = pd.DataFrame([("c", "", "", "new"), ("a", "y", "e", "works")], columns=TABLE.columns)
    found = networks.among(TABLE, again, None).to_dict("split")["data"]
    assert found == [["a", "y", "e", "works"], ["b", "", "", "none of it"], ["c", "", "", "new"]]
    again.loc[2] = ["b", "", "", "still none"]
    found = networks.among(TABLE, again, ["e"]).to_dict("split")["data"]
    own = [["a", "y", "e", "works"], ["a", "x", "f", "no"]]
    assert found == [*own, ["b", "", "", "still none"], ["c", "", "", "new"]]
    lost = pd.DataFrame([("a", "", "", "gone"), ("b", "z", "e", "works")], columns=TABLE.columns)
    found = networks.among(TABLE, lost, ["e"]).to_dict("split")["data"]
    assert found == [["a", "", "", "gone"], ["b", "z", "e", "works"]]


def test_an_explainer_that_does_not_exist_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["networks", "resnet18", "--explainers", "gradcm"])
    with pytest.raises(SystemExit, match=r"networks: .*gradcm") as stopped:
        networks.main()
    assert "\n" not in str(stopped.value)


def test_reasons_are_gathered() -> None:
    first, second = networks.summary(TABLE).to_dict("records")
    assert first == {"Network": "a", "Layers": "x", "Explainers": "1 of 2", "Refused": "no (f)"}
    assert second == {"Network": "b", "Layers": "", "Explainers": "none", "Refused": "none of it"}
