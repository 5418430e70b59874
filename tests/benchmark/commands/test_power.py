"""The smallest decided difference: of normal differences it is the t test's, and it is found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestPower

from benchmark.commands import power
from benchmark.core import results
from benchmark.core.params import Params


@pytest.mark.parametrize("count", [24, 96])
def test_normal_differences_need_what_the_t_test_needs(count: int) -> None:
    """The signed-rank test's efficiency is 3 / pi of the t test's."""
    differences = np.random.default_rng(0).normal(3.0, 20.0, (4000, 1))
    found = power.smallest(differences, count, 0)[0]
    of_t_test = TTestPower().solve_power(nobs=count * 3 / np.pi, alpha=0.05, power=0.8)
    assert found == pytest.approx(of_t_test * 20, rel=0.12)


def test_what_is_found_is_decided_in_new_draws() -> None:
    rng = np.random.default_rng(1)
    differences = rng.exponential(10.0, (300, 1)) - rng.exponential(6.0, (300, 1))
    shift = power.smallest(differences, 48, 0)[0]
    centred = differences[:, 0] - differences.mean()
    draws = centred[rng.integers(300, size=(1000, 48))]
    decided = (power.signed_rank((draws + shift).T) < 0.05).mean()
    assert decided == pytest.approx(0.8, abs=0.06)
    fewer = (power.signed_rank((draws + 0.7 * shift).T) < 0.05).mean()
    assert fewer < 0.7


def test_images_without_a_difference_do_not_count() -> None:
    differences = np.random.default_rng(0).normal(3.0, 20.0, (60, 1))
    padded = np.concatenate([differences, np.full((9, 1), np.nan)])
    assert power.smallest(padded, 24, 0) == power.smallest(differences, 24, 0)


def test_equal_explainers_have_no_difference_to_decide() -> None:
    assert np.isnan(power.smallest(np.zeros((9, 2)), 24, 0)).all()


def test_skewed_differences() -> None:
    """Four in five are zero: around their mean the test finds the wrong direction."""
    differences = np.where(np.arange(100) % 5, 0.0, 50.0)[:, None]
    shifts = [power.smallest(differences, count, 0)[0] for count in (48, 384)]
    assert shifts[0] > shifts[1] > 5
    centred = differences[:, 0] - 10
    draws = centred[np.random.default_rng(1).integers(100, size=(400, 384))]
    assert (power.signed_rank(draws.T) < 0.05).mean() > 0.9
    assert power.share_found(draws) < 0.05
    assert power.share_found(draws + shifts[1] + 1) > 0.75
    assert power.share_found(1 + shifts[1] - draws) > 0.75


def test_the_table(
    settings: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(Path(__file__).parents[3] / "data")
    chosen = ("gradcam", "rise", "constant")
    skipped = [name for name in settings.explainers if name not in chosen]
    own = settings.backbones["vit_sample"].model_copy(update={"skip": tuple(skipped)})
    changed = settings.model_copy(update={"backbones": {"vit_sample": own}})
    rng = np.random.default_rng(0)
    for name in chosen:
        rows = [
            (f"i{image}", metric, level, rng.uniform(0, 100))
            for image in range(20)
            for metric, level in (("average_drop", 50.0), ("road_morf", 10.0), ("road_morf", 90.0))
        ]
        table = pd.DataFrame(rows, columns=["image", "metric", "level", "value"])
        table = table.assign(backbone="vit_sample", explainer=name, weights="w")
        results.write_csv(
            results.scores_path("vit_sample", name), table[list(results.SCORE_COLUMNS)]
        )
    power.main(changed, "vit_sample", "gradcam")
    lines = capsys.readouterr().out.splitlines()
    assert [word.strip() for word in lines[2].strip("|").split("|")] == [
        *("images", "average_drop 50 %", "road_morf_area"),
    ]
    shares = [float(line.split("|")[2]) for line in lines[4:]]
    assert shares == sorted(shares, reverse=True)
    tables = {
        name: power.matrix(results.read_scores(results.scores_path("vit_sample", name)))
        for name in chosen
    }
    column = ("average_drop", 50.0)
    each = [
        power.smallest((tables["gradcam"] - tables[name])[[column]].to_numpy(), 24, changed.seed)
        for name in ("rise", "constant")
    ]
    assert shares[power.IMAGES.index(24)] == pytest.approx(np.mean(each), abs=0.06)
    path = results.scores_path("vit_sample", "rise")
    scores = results.read_scores(path)
    results.write_csv(path, scores[scores["image"] != "i0"])
    power.main(changed, "vit_sample", "gradcam")  # on the images that both have
    results.write_csv(path, scores.assign(image="other " + scores["image"]))
    with pytest.raises(ValueError, match="rise has scores of 20 images, gradcam of 20, and none"):
        power.main(changed, "vit_sample", "gradcam")
    with pytest.raises(ValueError, match="explainer is 'best': expected one of"):
        power.main(changed, "vit_sample", "best")
