"""Work shared by two processes (gloo, on the CPU) is the work of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shared_work
import torch
from conftest import MakeSplit, tiny_cnn
from safetensors.torch import load_file
from stand_in import write_split
from torch import nn

from benchmark.core import processes
from benchmark.core.store import Key, Unfinished
from benchmark.engine import parallel, scoring, training
from benchmark.engine.recipe import Recipe
from methods import Backbone
from methods.ttame import TTAME

ROOT = Path(__file__).parents[3]


def work_in_two(folder: Path, out: str) -> None:
    """Run the script in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [*launch, shared_work.__file__, out],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(
    tmp_path: Path, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, images in (("train", 35), ("validation", 70), ("evaluation", 21)):
        split = make_split(name, images)
        write_split(name, split)
    monkeypatch.setattr(scoring, "PERTURBED", shared_work.PERTURBED)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shared_work.main(tmp_path / "one")
    torch.set_num_threads(threads)
    work_in_two(tmp_path, "two")
    assert not list((tmp_path / "work").iterdir())
    one, two = (load_file(tmp_path / out / "state.safetensors") for out in ("one", "two"))
    untrained = TTAME(tiny_cnn()).attention.state_dict()
    assert not torch.allclose(untrained["fuser.weight"], one["fuser.weight"], atol=1e-3)
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    curves = [pd.read_csv(tmp_path / out / "curve.csv") for out in ("one", "two")]
    pd.testing.assert_frame_equal(*curves, rtol=1e-4)
    maps = [np.load(tmp_path / out / "maps.npz") for out in ("one", "two")]
    assert np.array_equal(maps[0]["gradcam"], maps[1]["gradcam"])
    assert np.allclose(maps[0]["ttame"], maps[1]["ttame"], atol=1e-3)
    for mode in ("corrected", "reference"):
        scores = [(tmp_path / out / f"{mode}.csv").read_bytes() for out in ("one", "two")]
        assert scores[0] == scores[1]


def test_alone_nothing_is_shared(cnn: Backbone) -> None:
    assert (processes.count(), processes.index(), processes.first()) == (1, 0, True)
    assert processes.own([1, 2, 3]) == [1, 2, 3]
    assert (parallel.count(), parallel.index()) == (1, 0)
    assert parallel.own([1, 2, 3]) == [1, 2, 3]
    assert parallel.collected([1, 2]) == [1, 2]
    labels = torch.tensor([4, 2])
    assert torch.equal(parallel.own_first(labels), labels)
    explainer = TTAME(cnn)
    assert isinstance(parallel.trainee(explainer), parallel.Trainee)
    assert all(type(bn) is nn.BatchNorm2d for bn in explainer.attention.bns)


@pytest.mark.parametrize("count", [2, 3])
def test_batches_are_dealt_out_in_turns(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    dealt = []
    for index in range(count):
        monkeypatch.setenv("RANK", str(index))
        dealt.append(processes.own(list(range(7))))
        assert processes.silent() is (None if index == 0 else True)
    assert sorted(item for own in dealt for item in own) == list(range(7))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_batch_must_divide(
    cnn: Backbone, tmp_path: Path, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parallel, "count", lambda: 3)
    recipe = Recipe(epochs=1, batch_size=8, max_lr=0.1, momentum=0, weight_decay=0)
    with pytest.raises(ValueError, match="batch_size is 8: expected a multiple of the 3 processes"):
        training.fit(
            TTAME(cnn),
            recipe,
            make_split("train", 9),
            make_split("validation", 9),
            seed=0,
            work=Unfinished("t", Key("", "")),
            label="",
        )


def test_the_shared_batch_norm_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one process: outputs, gradients and running statistics."""
    monkeypatch.setattr(parallel.distributed, "all_reduce", lambda _tensor: None)
    own, torchs = (nn.Sequential(nn.BatchNorm2d(4)).double() for _ in range(2))
    parallel.share_batch_norms(own)
    assert isinstance(own[0], parallel.SharedBatchNorm2d)
    results = []
    for module in (own, torchs):
        features = torch.rand(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).double()
        features.requires_grad_()
        outputs = module(features)
        outputs.pow(3).sum().backward()
        state = module.state_dict()
        results.append([outputs, features.grad, module[0].weight.grad, *state.values()])
        results[-1].append(module.eval()(features))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, atol=1e-10)
