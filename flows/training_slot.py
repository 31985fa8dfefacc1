"""Leave to train, asked of Prefect's server: so many trainings at once as there are GPUs behind all of its workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

LIMIT = "mixdpo-training"
LEASE_SECONDS = 60.0  # the least that Prefect takes; after which the slot of a run that was killed is free again


@contextmanager
def training_slot() -> Iterator[None]:
    """Wait for a slot of LIMIT and hold it; where the server has no such limit, nothing is waited for.

    It is renewed while it is held. A server that does not answer then stops no training.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            limits = []
        else:
            limits = [LIMIT]
    with concurrency(limits, lease_duration=LEASE_SECONDS):
        yield
