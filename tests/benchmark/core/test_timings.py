"""Timings: what is merged, whose machine the seconds are of, and the figures by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest

from benchmark.core import timings

INFO: dict[str, Any] = {
    "cpu": {"brand_raw": "A CPU @ 2 GHz"},
    "machine": "x86_64",
    "node": "a name that changes nothing",
    **dict.fromkeys(timings.VERSIONS, 2),
}
OTHER = INFO | {"cpu": {"brand_raw": "Another CPU"}}


def entry(
    explainer: str, images: int, median: float, backbone: str = "net", **info: Any
) -> dict[str, Any]:
    """A timing as pytest-benchmark writes it."""
    extra = {"backbone": backbone, "explainer": explainer, "images": images} | info
    return {"stats": {"median": median, "iqr": median / 10, "min": 1.0}, "extra_info": extra}


def cost(ratio: float, peak: float | None = 120.0) -> dict[str, Any]:
    """What is beside an explainer's seconds."""
    passes = {"images_forward": 32.0, "images_backward": 0.0}
    return {"ratio": ratio, "peak_memory_mb": peak, **passes}


def sitting(*entries: dict[str, Any], info: dict[str, Any] = INFO) -> timings.Raw:
    """A run of pytest-benchmark."""
    return {"machine_info": info, "datetime": "then", "benchmarks": list(entries)}


def timed(raw: timings.Raw) -> dict[tuple[str, str, int], float]:
    """The medians of a raw file, by backbone, explainer and images."""
    return {
        (*timings.cell_of(one), one["extra_info"]["images"]): one["stats"]["median"]
        for one in raw["benchmarks"]
    }


def test_figures_by_hand() -> None:
    raw = sitting(
        entry("rise", 1, 0.123456, **cost(31.98765)),
        entry("rise", 2, 0.25, **cost(30.0, None)),
        entry("forward", 1, 0.004),
        entry("rise", 1, 0.5, backbone="other", **cost(2.0)),
    )
    passes = {"images_forward": 32, "images_backward": 0}
    rise = {"seconds_1": 0.1235, "iqr_1": 0.01235, "peak_mb_1": 120, "ratio_1": 31.99, **passes}
    rise |= {"seconds_2": 0.25, "iqr_2": 0.025, "ratio_2": 30}
    other = {"seconds_1": 0.5, "iqr_1": 0.05, "peak_mb_1": 120, "ratio_1": 2, **passes}
    expected = {
        "net": {"rise": rise, "forward": {"seconds_1": 0.004, "iqr_1": 0.0004}},
        "other": {"rise": other},
    }
    assert timings.medians(raw) == expected
    assert timings.medians(timings.merge(None, copy.deepcopy(raw), set())) == expected


def test_what_was_timed_is_kept_replaced_or_dropped() -> None:
    old = timings.merge(
        None,
        sitting(
            *(entry("kept", images, 1.0, **cost(2.0)) for images in (1, 2)),
            *(entry("again", images, 1.0, **cost(2.0)) for images in (1, 2)),
            entry("gone", 1, 1.0, **cost(2.0)),
            entry("again", 1, 1.0, backbone="other", **cost(2.0)),
            entry("kept", 1, 1.0, backbone="dropped", **cost(2.0)),
        ),
        set(),
    )
    new = sitting(
        entry("again", 1, 5.0, **cost(9.0)),
        entry("new", 1, 3.0, **cost(4.0)),
        entry("unwanted", 1, 3.0, **cost(4.0)),
    )
    wanted = {("net", "kept"), ("net", "again"), ("net", "new"), ("other", "again")}
    merged = timings.merge(old, new, wanted)
    assert timed(merged) == {
        ("net", "kept", 1): 1.0,
        ("net", "kept", 2): 1.0,
        ("other", "again", 1): 1.0,
        ("net", "again", 1): 5.0,  # all of it is of the new sitting: no batch of 2
        ("net", "new", 1): 3.0,
    }
    assert {key: merged[key] for key in ("machine_info", "datetime")} == {
        "machine_info": INFO,
        "datetime": "then",
    }


@pytest.mark.parametrize("first", [True, False])
def test_seconds_are_of_one_machine(first: bool) -> None:
    """That of the whole sitting; of what was timed elsewhere there are multiples and passes."""
    old = sitting(
        entry("gradcam", 1, 0.02, **cost(2.5)),
        entry("rise", 1, 0.4, **cost(33.0)),
        entry("forward", 1, 0.01),
    )
    if first:  # the first sitting is marked with its machine too
        old = timings.merge(None, old, set())
    new = sitting(
        entry("rise", 1, 0.2, **cost(35.0)), entry("mine", 1, 0.1, **cost(17.0)), info=OTHER
    )
    every = {("net", name) for name in ("gradcam", "rise", "forward", "mine")}
    merged = timings.merge(old, new, every)
    assert merged["machine_info"] == INFO
    passes = {"images_forward": 32, "images_backward": 0}
    assert timings.medians(merged) == {
        "net": {
            "gradcam": {"seconds_1": 0.02, "iqr_1": 0.002, "peak_mb_1": 120, "ratio_1": 2.5}
            | passes,
            "forward": {"seconds_1": 0.01, "iqr_1": 0.001},
            "rise": {"ratio_1": 35, **passes},
            "mine": {"ratio_1": 17, **passes},
        }
    }
    back = timings.merge(merged, sitting(entry("mine", 1, 0.3, **cost(17.5))), every)
    mine = timings.medians(back)["net"]["mine"]
    assert mine == {"seconds_1": 0.3, "iqr_1": 0.03, "peak_mb_1": 120, "ratio_1": 17.5, **passes}


def test_all_timed_anew_is_of_the_new_machine() -> None:
    old = timings.merge(None, sitting(entry("rise", 1, 0.4), entry("gone", 1, 0.4)), set())
    merged = timings.merge(old, sitting(entry("rise", 1, 0.2), info=OTHER), {("net", "rise")})
    assert merged["machine_info"] == OTHER
    assert timings.medians(merged) == {"net": {"rise": {"seconds_1": 0.2, "iqr_1": 0.02}}}


def test_a_bare_forward_pass_of_another_machine_has_no_figures() -> None:
    old = timings.merge(None, sitting(entry("rise", 1, 0.4, **cost(33.0))), set())
    new = sitting(entry("forward", 1, 0.02), info=OTHER)
    merged = timings.merge(old, new, {("net", "rise"), ("net", "forward")})
    assert timings.medians(merged)["net"]["forward"] == {}


@pytest.mark.parametrize("name", [*timings.VERSIONS, "processor"])
def test_a_machine_is_what_timings_depend_on(name: str) -> None:
    changed = INFO | {name: "another"}
    if name == "processor":
        changed = OTHER
    assert timings.describe_machine(changed) != timings.describe_machine(INFO)
    merged = timings.merge(
        timings.merge(None, sitting(entry("rise", 1, 0.4, **cost(33.0))), set()),
        sitting(entry("mine", 1, 0.4, **cost(33.0)), info=changed),
        {("net", "rise"), ("net", "mine")},
    )
    assert "seconds_1" in timings.medians(merged)["net"]["rise"]
    assert "seconds_1" not in timings.medians(merged)["net"]["mine"]


def test_the_name_of_the_host_is_no_matter() -> None:
    renamed = INFO | {"node": "another"}
    assert timings.describe_machine(renamed) == timings.describe_machine(INFO)
    assert timings.processor({"cpu": {}, "machine": "arm64"}) == "arm64"


def test_failing_benchmarks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_wrong.py").write_text("def test_wrong(benchmark): benchmark(int, 'a')\n")
    monkeypatch.setattr(timings, "BENCHMARKS", tmp_path)
    with pytest.raises(ValueError, match=r"test_wrong.py failed with 1: see the output above"):
        timings.measure("test_wrong.py")
