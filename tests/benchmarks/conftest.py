"""What pytest-benchmark writes down of the machine."""

import os
from typing import Any

import torch


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    """Leave out the host's name; add what the timings depend on."""
    machine_info.pop("node", None)
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["cores"] = os.cpu_count()
    machine_info["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
