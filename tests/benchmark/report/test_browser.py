"""The page: what the metrics saw, no byte from elsewhere, and it works in a browser."""

import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MakeSplit, tiny_cnn
from PIL import Image
from stand_in import write_split

from benchmark import page
from benchmark.core import results
from benchmark.core.catalogue import Catalogue, ExplainerFacts
from benchmark.core.cells import Project
from benchmark.core.params import Backbone, Evaluate, Explainer, Page, Params, Scored
from benchmark.core.store import WORK
from benchmark.engine import scoring
from benchmark.report import heat_maps
from metrics import Maps
from metrics.confidence import Confidence
from metrics.road import ROAD

IMAGES = 3
LABEL = "First <script>alert(1)</script>"
DROPS = {"first": [10.0, 50.0, 30.0], "second": [20.0, 10.0, 35.0]}
"""AD of the images: the two disagree by 10, 40 and 5."""


@pytest.fixture
def stored(
    settings: Params, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """Results of two explainers on two backbones, as every stage before the page leaves them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("methods.build_backbone", lambda *_, **__: tiny_cnn())
    facts = {
        name: ExplainerFacts("x", label, "CAM", ("cnn",), trained=False, seeded=False, passes=1)
        for name, label in (("first", LABEL), ("second", "Second"))
    }
    monkeypatch.setattr(page, "Project", partial(Project, catalogue=Catalogue(facts, {})))
    split = make_split("evaluation", IMAGES)
    write_split("evaluation", split)
    rng = np.random.default_rng(0)
    for backbone, name in itertools.product(("net", "other"), DROPS):
        maps = rng.random((IMAGES, 8, 8), np.float32)
        results.write_array(results.maps_path(backbone, name), maps)
        rows = [
            (backbone, name, image, metric, level, value, "abc")
            for image, drop in zip(split.ids, DROPS[name], strict=True)
            for metric, level, value in (
                ("average_drop", 50, drop),
                ("increase_in_confidence", 50, 0.0),
                ("road_morf", 40, 100.0),
                ("road_lerf", 40, 0.0),
            )
        ]
        table = pd.DataFrame(rows, columns=results.SCORE_COLUMNS)
        results.write_csv(results.scores_path(backbone, name), table)
        printed = pd.DataFrame(
            {
                "Explainer": ["First", "Second", "Third"],
                "AD 50 % ↓": ["9.5", "30.0", "100.0"],
                "AD 50 % ↓ interval": ["1–12", "2–40", "3–100"],
                "AD 50 % ↓ mark": ["best", "tied", ""],
            }
        )
        results.write_csv(results.TABLES / backbone / "comparison.csv", printed)
    figures = {"seconds_2": 0.1, "ratio_2": 3.0, "images_forward": 1.0}
    medians = {name: dict.fromkeys(DROPS, figures) for name in ("net", "other")}
    results.write_json(results.RUNTIME / "medians.json", medians)
    info = {"cpu": {"brand_raw": "A <CPU>"}, "device": "cpu", "cores": 2, "threads": 2}
    raw = {"machine_info": info | {"torch": "2", "machine": "x"}}
    results.write_json(results.RUNTIME / "raw.json", raw)
    results.PLOTS.mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(results.PLOTS / "net_road.png")
    (results.PLOTS / "net_road.md").write_text("A caption.\n")
    for backbone in ("net", "other"):
        rows = {
            "image": split.ids,
            "class_index": [4, 1, 2],
            "class_name": ["rock crab", "", "otter"],
            "probability": [34.5, 5.0, 99.0],
        }
        results.write_csv(results.targets_path(backbone), pd.DataFrame(rows))
    spec = Backbone(
        source="timm", model="x", weights="none", size=32, mean=(0.5,) * 3, std=(0.5,) * 3,
        taps=("0",), cam_layer="2",
    )  # fmt: skip
    chosen = {"confidence": {"kept": [50]}, "road": {"removed": [40]}}
    metrics = {name: Scored(settings=own) for name, own in chosen.items()}
    changed = {
        "explainers": dict.fromkeys(DROPS, Explainer()),
        "backbones": {"net": spec, "other": spec},
        "ablation": {},
        "page": Page(images=IMAGES, side=32, quality=95),
        "evaluate": Evaluate(batch_size=8, delta_images=1, metrics=metrics),
    }
    return settings.model_copy(update=changed)


def embedded(text: str) -> dict[str, Any]:
    """The data of the browser of images."""
    (line,) = re.findall(r"^const data = (.*);$", text, re.MULTILINE)
    found: dict[str, Any] = json.loads(line)
    return found


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance: WebP keeps colours at half the resolution."""
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)


def test_pictures_are_what_the_metrics_saw(stored: Params, make_split: MakeSplit) -> None:
    page.main(stored)
    data = embedded(results.PAGE.read_text())
    assert (data["kept"], data["removed"]) == ([50], [40])
    split = make_split("evaluation", IMAGES)
    pixels = split.images(slice(IMAGES))
    native = torch.from_numpy(results.read_array(results.maps_path("other", "second")))
    maps = Maps(native, (32, 32), scoring.image_seeds(stored.seed, split))
    expected = torch.cat(
        [
            torch.from_numpy(heat_maps.coloured(heat_maps.shown(native.numpy(), (32, 32))))
            .float()
            .permute(0, 3, 1, 2)[:, None],
            Confidence(kept=[50]).perturb(pixels, maps),
            ROAD(removed=[40]).perturb(pixels, maps),
        ],
        dim=1,
    )
    sheet = Image.open(results.RESULTS / data["backbones"]["other"]["second"]["sheet"])
    rows = np.split(np.asarray(sheet.convert("RGB"), np.float32) / 255, IMAGES, axis=0)
    for image, found in enumerate(rows):
        tiles = grey(np.stack(np.split(found, 4, axis=1)))
        saw = grey(expected[image].clamp(0, 1).permute(0, 2, 3, 1).numpy())
        errors = np.abs(tiles[:, None] - saw).mean(axis=(2, 3))
        assert errors.diagonal().max() < 0.03
        assert errors.argmin(axis=1).tolist() == [0, 1, 2, 3]
    scores = data["backbones"]["net"]["second"]["scores"]
    assert scores["average_drop"] == {"50": DROPS["second"]}


def test_same_bytes_and_nothing_from_elsewhere(stored: Params) -> None:
    page.main(stored)
    text = results.PAGE.read_text()
    pictures = {path: path.read_bytes() for path in results.PICTURES.iterdir()}
    assert len(pictures) == IMAGES + 4
    results.PAGE.unlink()
    shutil.rmtree(results.PICTURES)
    shutil.rmtree(WORK)  # what was drawn for each cell
    page.main(stored)
    assert results.PAGE.read_text() == text
    assert {path: path.read_bytes() for path in results.PICTURES.iterdir()} == pictures
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", text)
    assert sources
    for source in sources:
        assert source.startswith(("data:,", "#")) or (results.RESULTS / source).is_file(), source
    assert "http" not in text


def test_lost_pictures_are_drawn_again(stored: Params) -> None:
    page.main(stored)
    for name in ("photograph-1.webp", "net-first.webp"):
        (results.PICTURES / name).unlink()
        page.main(stored)
        assert (results.PICTURES / name).is_file()


def test_pictures_of_what_is_no_more_go(stored: Params) -> None:
    page.main(stored)
    fewer = stored.model_copy(update={"explainers": {"second": Explainer()}})
    page.main(fewer)
    kept = {path.name for path in results.PICTURES.iterdir()}
    assert "net-second.webp" in kept
    assert "net-first.webp" not in kept
    assert "photograph-0.webp" in kept


def test_the_page_says_what_is_explained(stored: Params) -> None:
    page.main(stored)
    data = embedded(results.PAGE.read_text())
    assert data["explained"]["net"] == ["rock crab, 34.5\xa0%", "class 1, 5\xa0%", "otter, 99\xa0%"]
    assert "A caption." in results.PAGE.read_text()


def test_labels_are_escaped(stored: Params) -> None:
    page.main(stored)
    text = results.PAGE.read_text()
    assert "<script>alert" not in text
    assert "A &lt;CPU&gt;" in text
    assert embedded(text)["backbones"]["net"]["first"]["label"] == LABEL


def test_explainers_stand_in_their_order(stored: Params) -> None:
    swapped = {
        name: dict(reversed(getattr(stored, name).items())) for name in ("explainers", "backbones")
    }
    page.main(stored.model_copy(update=swapped))
    data = embedded(results.PAGE.read_text())
    assert list(data["backbones"]) == ["other", "net"]
    assert list(data["backbones"]["net"]) == ["second", "first"]


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)


@pytest.fixture
def browser(stored: Params, tmp_path: Path) -> Iterator[Any]:
    """The page in headless Chromium."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    page.main(stored)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (*OPTIONS, f"user-data-dir={tmp_path / 'chromium'}", "window-size=1300,1000"):
        options.add_argument(f"--{option}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get((tmp_path / results.PAGE).as_uri())
        yield driver
        assert driver.get_log("browser") == []
        requests = driver.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name)"
        )
        assert not [name for name in requests if not name.startswith(("data:", "file:"))]
    finally:
        driver.quit()


def column(driver: Any) -> list[str]:
    """The first words of the shown table's second column."""
    cells = driver.find_elements("css selector", "#tables .scroll:not([hidden]) td:nth-child(2)")
    return [cell.text.split()[0].rstrip("°") for cell in cells]


def test_tables_sort_by_mouse_and_by_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    assert column(browser) == ["9.5", "30.0", "100.0"]
    heading = "#tables .scroll:not([hidden]) th:nth-child(2)"
    button = browser.find_element("css selector", f"{heading} button")
    button.click()
    assert column(browser) == ["9.5", "30.0", "100.0"]
    assert browser.find_element("css selector", heading).get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert column(browser) == ["100.0", "30.0", "9.5"]
    assert browser.find_element("css selector", heading).get_attribute("aria-sort") == "descending"
    first = browser.find_element("css selector", "#tables .scroll:not([hidden]) tbody tr")
    assert first.text.startswith("Third")


def choose(driver: Any, name: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("id", name)).select_by_visible_text(text)


def shown_image(driver: Any) -> str:
    return str(driver.find_element("id", "name").text)


def picture(driver: Any) -> str:
    """What is seen of the first map over its image, once it is there."""
    time.sleep(0.3)
    return str(driver.find_element("css selector", "#cards canvas").screenshot_as_base64)


def test_images_backbones_and_explainers_are_switched(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    before = picture(browser)
    assert shown_image(browser).startswith("1:")
    browser.find_element("id", "next").click()
    assert shown_image(browser).startswith("2:")
    other = picture(browser)
    assert other != before
    browser.find_element("tag name", "body").send_keys(Keys.ARROW_LEFT)
    assert shown_image(browser).startswith("1:")
    assert picture(browser) == before
    choose(browser, "backbone", "other")
    assert picture(browser) != before
    assert len(browser.find_elements("css selector", ".card")) == 2
    browser.find_element("css selector", "#explainers input[value=second]").click()
    (card,) = browser.find_elements("css selector", ".card")
    assert LABEL in card.text
    assert "50 %: drop 10 %" in card.text
    assert "40 % =" in card.text
    assert "40 % ≠" in card.text


@pytest.mark.parametrize("width", [1300, 390], ids=["desktop", "phone"])
def test_the_page_is_for_everybody(browser: Any, width: int) -> None:
    """No fault that axe finds (names, contrast, keyboard), and nothing wider than the screen."""
    import axe_core_python

    emulated = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
    browser.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert [(v["id"], [n["html"][:80] for n in v["nodes"]]) for v in found["violations"]] == []
    assert found["passes"]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_images_are_sorted_by_disagreement(browser: Any) -> None:
    def order() -> list[int]:
        thumbs = browser.find_elements("css selector", "#thumbs button")
        return [int(thumb.get_attribute("data-image")) for thumb in thumbs]

    assert order() == [0, 1, 2]
    choose(browser, "order", "AD")
    assert order() == [1, 0, 2]
    assert shown_image(browser).startswith("2:")
    choose(browser, "second", LABEL)  # against itself: no disagreement, their number decides
    assert order() == [0, 1, 2]
