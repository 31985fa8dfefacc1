"""The device, precision and threads that params.yaml asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from mixdpo.errors import ConfigError

if TYPE_CHECKING:
    from mixdpo.config.models import Device


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
    if settings.threads:
        torch.set_num_threads(settings.threads)
    kind = "cuda" if available and settings.device != "cpu" else "cpu"
    return Compute(torch.device(kind), torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32)
