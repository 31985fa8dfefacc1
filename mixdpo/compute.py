"""The device, precision and threads that params.yaml asks for."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import torch

from mixdpo.errors import ConfigError

if TYPE_CHECKING:
    from mixdpo.config.models import Device


# a step has some twenty shapes of products, each in several layers or heads
KERNELS = 32


class Compute(NamedTuple):
    device: torch.device
    precision: torch.dtype


def prepare_compute(settings: Device) -> Compute:
    """Choose the device and set the number of CPU threads of this process.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise ConfigError(
            "compute.device is cuda but this machine or this torch build has none; set it to auto or cpu in params.yaml"
        )
    _keep_large_buffers()
    _keep_few_kernels()
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # ranks on this machine, as torchrun says
    if settings.threads or beside > 1:
        torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 1) // beside))
    kind = "cuda" if available and settings.device != "cpu" else "cpu"
    return Compute(torch.device(kind), torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32)


def _keep_large_buffers() -> None:
    """Let glibc reuse large buffers instead of returning them to the system after each step.

    Every step makes the same large temporaries; faulting them in again is about a third of a CPU step
    (docs/performance.md). The environment variables that do the same cannot be set from inside the process.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library: slower, not wrong
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)  # the largest that it takes; gradients of a few heads are more than 1 GiB
    mallopt(top_pad, 64 << 20)


def _keep_few_kernels() -> None:
    """Let oneDNN and torch's cache above it keep the kernels of a step, not those of all steps.

    In bfloat16 a product gets a kernel of half a megabyte for its shape alone. No two batches have the same number of
    tokens, so the thousand that are kept if nobody says otherwise would never be used again (docs/performance.md).
    Both read the environment at their first product.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))
