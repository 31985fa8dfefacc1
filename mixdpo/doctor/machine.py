"""Python, the installed packages, torch, memory and disk."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mixdpo.config import Params
from mixdpo.doctor.finding import Finding

# a run uses these directly; what they need in turn is the installer's business
KEY = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "prefect", "fastapi", "dvc"),
    *("datasets", "evaluate", "great-expectations", "pandas", "pyarrow", "scipy", "scikit-learn", "matplotlib"),
)
PIN = re.compile(r"^(?:# torch: )?([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)  # torch is pinned in a comment
FASTAPI_LIMIT = (0, 151)  # from here on the server of Prefect 3.8.8 does not start
DISK, MEMORY = 2.0, 4.0  # GiB that the demo needs
SETUP = "`make setup` installs what requirements.lock names"


def python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages(root: Path) -> Finding:
    """The installed versions against the lock's: other ones may work, missing ones and known traps do not."""
    lock = root / "requirements.lock"
    if not lock.is_file():
        return Finding("packages", "warn", f"{lock} is missing, so nothing to compare with", "restore it with git")
    pins = dict(PIN.findall(lock.read_text(encoding="utf-8")))
    installed = {name: _installed(name) for name in KEY if name in pins}
    missing = [name for name, there in installed.items() if there is None]
    if missing:
        return Finding("packages", "fail", f"not installed: {', '.join(missing)}", SETUP)
    fastapi = installed.get("fastapi") or "0"
    if tuple(int(part) for part in re.findall(r"\d+", fastapi)[:2]) >= FASTAPI_LIMIT:
        found = f"fastapi {fastapi}, but Prefect's server does not start with 0.151 or newer"
        return Finding("packages", "fail", found, SETUP)
    # a build of torch for one device is called 2.13.0+cpu
    others = [
        f"{name} {there} (locked {pins[name]})"
        for name, there in installed.items()
        if there and there.split("+")[0] != pins[name]
    ]
    if others:
        return Finding("packages", "warn", f"other than tested: {', '.join(others)}", SETUP)
    return Finding("packages", "ok", f"{len(installed)} looked at, all as in requirements.lock")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def torch_build(params: Params | None) -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it was built against is missing
        return Finding("torch", "fail", f"cannot be imported: {error}", SETUP)
    if torch.cuda.is_available():
        return Finding("torch", "ok", f"{torch.__version__}, CUDA on {torch.cuda.get_device_name()}")
    found = f"{torch.__version__}, no CUDA: runs on {os.cpu_count()} CPU cores"
    if params is not None and params.compute.device == "cuda":
        return Finding("torch", "fail", f"{found}, but compute.device is cuda", "set it to auto or cpu in params.yaml")
    return Finding("torch", "ok", found)


def memory() -> Finding:
    size = _memory() / 2**30
    found = f"{size:.1f} GiB"
    if size < MEMORY:
        remedy = "lower candidates.batch, training.tile_tokens and rewards.batch_tokens, or `make run WORKERS=1`"
        return Finding("memory", "warn", f"{found}, the demo was made for {MEMORY:g}", remedy)
    return Finding("memory", "ok", found)


def _memory() -> int:
    """Bytes of this machine, or of the container where that has fewer."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        sizes.append(int(text))
    return min(sizes)


def disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / 2**30
    if free < DISK:
        found = f"{free:.1f} GiB free at {root.resolve()}, expected {DISK:g}"
        return Finding("disk", "fail", found, "free space there; `dvc gc --workspace` removes earlier runs' data")
    return Finding("disk", "ok", f"{free:.1f} GiB free")
