"""Every stage, end to end, on a few images: everything is written, and twice the same bytes."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmark import (
    ablate,
    evaluate,
    explain,
    page,
    params,
    plots,
    randomise,
    runtime,
    sources,
    subset,
    tables,
    train,
)

ROOT = Path(__file__).parents[1]
CELLS = {
    "efficientnet_lite0": ("ttame", "gradcam", "edges"),
    "vit_sample": ("rollout", "constant"),
}
MEASURED = ("seconds", "peak_memory_mb")


def small() -> dict[str, Any]:
    """The sample's parameters with few images, steps and cells."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["subset"]["images"] = {"train": 8, "validation": 4, "evaluation": 4}
    for recipe in ("train", "ablate"):
        raw[recipe] |= {"epochs": 1, "batch_size": 4}
    keys = [f"{backbone}-{name}" for backbone, names in CELLS.items() for name in names]
    raw["cells"] = {key: raw["cells"][key] for key in keys}
    raw["heads"] = {"efficientnet_lite0-ttame": raw["heads"]["efficientnet_lite0-ttame"]}
    raw["ablate"]["seeds"] = 2
    variants = ("efficientnet_lite0-baseline", "efficientnet_lite0-one_layer")
    raw["ablation"] = {key: raw["ablation"][key] for key in variants}
    raw["runtime"] = {"batch": 2, "rounds": 1, "seconds": 0, "warmup": 1}
    raw["evaluate"]["delta_images"] = 3
    raw["randomise"] = {"images": 2, "layers": [10, 100]}
    raw["evaluate"]["metrics"]["deletion_insertion"]["steps"] = 2
    raw["tables"]["resamples"] = 50
    raw["plots"]["grid_images"] = 2
    raw["page"]["images"] = 2
    raw["code"] = str(ROOT)
    return raw


def run_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("data", "tests", "methods", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(small(), sort_keys=False))
    loaded = params.load()
    sources.main(loaded)
    subset.main(loaded)
    train.main(loaded, "efficientnet_lite0-ttame")
    for cell in loaded.cells:
        explain.main(loaded, cell)
        evaluate.main(loaded, cell)
        randomise.main(loaded, cell)
    for variant in loaded.ablation:
        ablate.main(loaded, variant)
    runtime.main(loaded)
    tables.main(loaded)
    plots.main(loaded)
    page.main(loaded)


def digest(path: Path) -> str:
    """Of a result file, without what was measured."""
    if path.parts[-3] == "cost":
        cost = json.loads(path.read_text())
        return repr({key: value for key, value in cost.items() if key not in MEASURED})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_all(first, monkeypatch)
    run_all(second, monkeypatch)
    files = sorted(p.relative_to(first) for p in (first / "results").rglob("*") if p.is_file())
    again = sorted(p.relative_to(second) for p in (second / "results").rglob("*") if p.is_file())
    assert files == again
    timed = {"raw.json", "medians.json", "index.html"}
    stable = [f for f in files if f.name not in timed and "quality_runtime" not in f.name]
    differing = [f for f in stable if digest(first / f) != digest(second / f)]
    assert differing == []
    check_results(first / "results")
    assert not list((first / "work").iterdir())
    check_the_other_mode(second, monkeypatch)


def check_the_other_mode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parameter switches; the difference of the two modes is the same from either side."""
    monkeypatch.chdir(folder)
    cell, path = "efficientnet_lite0-edges", explain.store.delta_path("efficientnet_lite0", "edges")
    before = pd.read_csv(path)
    (folder / "params.yaml").write_text(yaml.safe_dump(small() | {"mode": "reference"}))
    loaded = params.load()
    explain.main(loaded, cell)
    evaluate.main(loaded, cell)
    after = pd.read_csv(path)
    assert set(after["metric"]) >= {"average_drop", "road_morf"}
    pd.testing.assert_frame_equal(before, after, check_exact=False, atol=1e-3, rtol=1e-4)
    scores = pd.read_csv(explain.store.scores_path("efficientnet_lite0", "edges"))
    some = scores["image"].isin(explain.read_split("evaluation").ids[:3])
    means = scores[some].groupby(["metric", "level"])["value"].mean()
    assert means.to_numpy() == pytest.approx(after["reference"].to_numpy(), abs=1e-3)


def test_a_compiled_network_gives_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    raw = small()
    raw["subset"]["images"] = {"train": 1, "validation": 1, "evaluation": 2}
    tables = []
    for compiled in (False, True):
        raw["evaluate"]["compile"] = compiled
        raw["evaluate"]["metrics"] = {"confidence": {"kept": [50]}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
        loaded = params.load()
        if not compiled:
            sources.main(loaded)
            subset.main(loaded)
            explain.main(loaded, "efficientnet_lite0-edges")
        evaluate.main(loaded, "efficientnet_lite0-edges")
        tables.append(pd.read_csv(explain.store.scores_path("efficientnet_lite0", "edges")))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-3)


def check_results(results: Path) -> None:
    scores = pd.read_csv(results / "scores" / "efficientnet_lite0" / "gradcam.csv")
    assert len(scores) == 4 * (3 * 3 + 4 * 7 + 2 + 4 + 2 + 3)
    comparison = pd.read_csv(results / "tables" / "comparison.csv")
    assert len(comparison) == 5 * (48 + 2 * 4 + 2)
    found = comparison.groupby("backbone")["explainer"].unique()
    assert {backbone: set(own) for backbone, own in found.items()} == {
        backbone: set(own) for backbone, own in CELLS.items()
    }
    similarity = pd.read_csv(results / "tables" / "randomisation.csv")
    assert len(similarity) == 5 * 2 * 2
    unchanged = similarity.groupby("explainer")["unchanged"].all()
    assert unchanged.to_dict() == {
        "ttame": False,
        "gradcam": False,
        "edges": True,
        "rollout": unchanged["rollout"],
        "constant": True,
    }
    gradcam = comparison[comparison["explainer"] == "gradcam"].set_index("metric")
    assert gradcam.loc["images_forward", "value"] == 1
    ad = scores[(scores["metric"] == "average_drop") & (scores["level"] == 50)]["value"].mean()
    drop = gradcam.loc["average_drop"].set_index("level")["value"]
    assert drop[50] == pytest.approx(ad, rel=1e-5)
    ablation = pd.read_csv(results / "tables" / "ablation.csv")
    assert set(ablation["explainer"]) == {"baseline", "one_layer"}
    assert set(ablation["n"]) == {2}
    seeds = pd.read_csv(results / "tables" / "ablation_seeds.csv")
    assert not seeds[seeds["seed"] == 0]["value"].equals(seeds[seeds["seed"] == 1]["value"])
    medians = json.loads((results / "runtime" / "medians.json").read_text())["efficientnet_lite0"]
    assert set(medians) == {*CELLS["efficientnet_lite0"], "forward"}
    assert medians["gradcam"]["seconds_2"] > 0
    assert "node" not in json.loads((results / "runtime" / "raw.json").read_text())["machine_info"]
    pictures = sorted((results / "plots").glob("*.png"))
    assert len(pictures) == 2 * 5 + 1 + 1
    for picture in pictures:
        with Image.open(picture) as image:
            assert len(image.convert("L").getcolors()) > 20
        assert picture.with_suffix(".svg").read_text().startswith("<?xml")


def test_nan_maps_stop_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.chdir(source)
    (source / "data").symlink_to(ROOT / "data")
    (source / "params.yaml").write_text(yaml.safe_dump(small(), sort_keys=False))
    loaded = params.load()
    subset.main(loaded)
    path = explain.store.maps_path("efficientnet_lite0", "edges")
    maps = explain.np.full((4, 8, 8), explain.np.nan, "float32")
    explain.store.write_array(path, maps)
    with pytest.raises(ValueError, match="4 of 4 maps hold NaN"):
        evaluate.main(loaded, "efficientnet_lite0-edges")
    assert not (source / "results" / "scores").exists()
