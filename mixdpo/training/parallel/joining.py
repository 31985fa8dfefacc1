"""From the environment that torchrun (or another launcher) sets to this process's place among the ranks."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh

from mixdpo.errors import ConfigError
from mixdpo.training.parallel.ranks import ALONE, Ranks
from mixdpo.training.parallel.roll import Roll, naming_who_left
from mixdpo.training.parallel.shares import grid

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.training import Parallel


def started() -> int:
    """How many processes a launcher started together with this one; 1 where none did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def refuse_misfit(settings: Parallel | None) -> None:
    """Refuse a number of processes that the parameters do not ask for.

    Raises:
        ConfigError: names what would fit.
    """
    found = started()
    if settings is None and found > 1:
        raise ConfigError(
            f"{found} processes were started but training.parallel is not set, so each would train the whole policy; "
            f"set it, as in `parallel: {{data: {found}, experts: 1}}`, or start one process"
        )
    if settings is not None and found != settings.data * settings.experts:
        fitting = " or ".join(
            f"{{data: {found // experts}, experts: {experts}}}"
            for experts in range(1, found + 1)
            if not found % experts
        )
        raise ConfigError(
            f"training.parallel asks for data {settings.data} x experts {settings.experts} processes but {found} were "
            f"started; start {settings.data * settings.experts}, or set it to {fitting}"
        )


@contextmanager
def joined(settings: Parallel | None, experts: int, device: torch.device) -> Iterator[Ranks]:
    """Meet the other ranks for as long as the context lasts; a process by itself meets nobody.

    Args:
        experts: of the policy; no more ranks share them than there are (`shares.grid`).
        device: its kind decides how ranks speak: nccl between GPUs, of which each has its own, gloo between processors.

    Raises:
        ConfigError: another number of processes than `settings` ask for.
        TrainingError: a rank was lost; names it.
    """
    refuse_misfit(settings)
    if settings is None or started() == 1:
        yield ALONE
        return
    _end_with_launcher()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    patience = timedelta(seconds=settings.timeout_seconds)
    store, rank, size = next(rendezvous("env://", timeout=patience))
    store.set_timeout(patience)
    # the agent keeps its store when it starts ranks again, and with it the addresses of those that are gone
    store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    data, rows = grid(settings.data, settings.experts, experts)
    backend = "nccl" if device.type == "cuda" else "gloo"
    own = PrefixStore("ranks", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=patience)
    try:
        mesh = init_device_mesh(device.type, (rows, data), mesh_dim_names=("experts", "data"))
        roll = Roll(PrefixStore("roll", store), rank, size, settings.timeout_seconds)
        with roll, naming_who_left(roll), _quiet(rank > 0):
            yield Ranks(data, rows, rank, device, settings.shard, mesh, roll)
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet(others: bool) -> Iterator[None]:
    """One rank speaks for all."""
    if others:
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        if others:
            logging.disable(logging.NOTSET)


def _end_with_launcher() -> None:
    """Let the kernel end this process when the one that started it is gone: nobody else would."""
    if sys.platform.startswith("linux"):
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)
