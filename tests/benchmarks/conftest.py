"""What pytest-benchmark writes down of the machine, and the option of test_runtime.py."""

import os
from importlib.metadata import version
from typing import Any

import pytest
import torch

PACKAGES = ("torch", "torchvision", "timm", "captum", "grad-cam", "numpy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seconds`, instead of those of params.yaml."""
    parser.addoption("--seconds", type=float, help="to spend on each explainer and batch size")


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    """Leave out the host's name; add what the timings depend on."""
    machine_info.pop("node", None)
    cuda = torch.cuda.is_available()
    machine_info["device"] = torch.cuda.get_device_name() if cuda else "cpu"
    machine_info["threads"] = torch.get_num_threads()
    machine_info["cores"] = os.cpu_count()
    machine_info |= {package: version(package) for package in PACKAGES}
