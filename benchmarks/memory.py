"""Peak memory of this process: resident on a processor, allocated on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def resident_mb(device: str) -> float:
    return _status("VmRSS") if device == "cpu" else _cuda().memory_allocated() / 1e6


def peak_mb(device: str) -> float:
    """Since the process began, or since `forget_peak`."""
    return _status("VmHWM") if device == "cpu" else _cuda().max_memory_allocated() / 1e6


def forget_peak(device: str) -> None:
    if device == "cuda":
        _cuda().reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _status(field: str) -> float:
    """A field of /proc/self/status, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


def _cuda() -> Any:
    import torch  # data stages do without

    return torch.cuda
