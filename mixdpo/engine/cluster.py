"""The Ray cluster that a run works on: one that is named, or a temporary one on this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from mixdpo.config.engine import RayEngine
from mixdpo.errors import ConfigError, TransientError

HERE = "local"  # what Ray calls a new cluster on this machine
STORE = 256 * 2**20  # bytes; rows and scores pass through it, a shard a worker at a time
SECONDS = 10.0  # for a named cluster to answer


def prepare_ray(settings: RayEngine) -> None:
    """To be called before Ray is imported: it reads its environment then, and never again.

    Raises:
        ConfigError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "engine.kind is ray, but the package ray is not installed; install mixdpo[ray], or set engine to local"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a worker's device is decided here, not by Ray
    if address_of(settings) == HERE and "RAY_AUTH_MODE" not in os.environ:
        # a token for this cluster alone, which Ray would otherwise leave in the home directory
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def connected(settings: RayEngine) -> Iterator[None]:
    """Be connected to the cluster in the body; one that this process is connected to already stays so.

    Raises:
        ConfigError: the cluster's version or token is another. TransientError: no answer.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    _join(address_of(settings))
    try:
        yield
    finally:
        ray.shutdown()


def address_of(settings: RayEngine) -> str:
    """HOST:PORT of a cluster's head, `auto` for the one on this machine, or `HERE`."""
    return settings.address or os.environ.get("RAY_ADDRESS") or HERE


def _join(address: str) -> None:
    import ray

    here = {"include_dashboard": False, "object_store_memory": STORE} if address == HERE else {}
    try:
        if not here:
            knock(address)
        ray.init(address, logging_level=logging.WARNING, **here)
    except OSError as error:
        if "InvalidAuthToken" in str(error.__cause__):
            raise ConfigError(
                f"the Ray cluster at {address} refuses this token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the "
                "cluster's own (docs/ray.md)"
            ) from error
        raise TransientError(
            f"no Ray cluster answers at {address} ({error}); start it, or correct engine.address in "
            "params.yaml or RAY_ADDRESS"
        ) from error
    except RuntimeError as error:  # other versions of Ray or Python there
        raise ConfigError(f"cannot join the Ray cluster at {address}: {error}") from error


def knock(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT; Ray itself waits for minutes and then ends the process."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), SECONDS).close()
