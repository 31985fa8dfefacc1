from __future__ import annotations

import subprocess
import sys

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


# bytes that the C library has given out after some products of ever new shapes, and after twice as many
HELD = """
import ctypes
import torch
from mixdpo.compute import prepare_compute
from mixdpo.config.models import Device

prepare_compute(Device(device="cpu", dtype="bfloat16", threads=1))

class Heap(ctypes.Structure):
    _fields_ = [(f"other_{place}", ctypes.c_size_t) for place in range(7)] + [("given_out", ctypes.c_size_t)]
    _fields_ += [(f"more_{place}", ctypes.c_size_t) for place in range(2)]

heap = ctypes.CDLL("libc.so.6").mallinfo2
heap.restype = Heap
weight = torch.ones(96, 64, dtype=torch.bfloat16)

def products(first):
    for rows in range(first, first + 80):
        torch.nn.functional.linear(torch.ones(rows, 64, dtype=torch.bfloat16), weight)
    print(heap().given_out)

products(100)
products(200)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc what it has given out")
def test_products_of_ever_new_shapes_do_not_fill_memory() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 1 << 20
