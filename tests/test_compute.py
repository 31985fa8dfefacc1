from __future__ import annotations

import pytest
import torch

from mixdpo.compute import prepare_compute
from mixdpo.config.models import Device
from mixdpo.errors import ConfigError


def test_precision_and_threads_are_those_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        compute = prepare_compute(Device(device="cpu", dtype="bfloat16", threads=1))
        assert compute == (torch.device("cpu"), torch.bfloat16)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_gpu_is_told_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"compute.device is cuda but .* set it to auto or cpu in params.yaml"):
        prepare_compute(Device(device="cuda", dtype="float32", threads=0))
