"""The engine that params.yaml asks for, and the device that its workers use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

from mixdpo.config import Params
from mixdpo.config.engine import RayEngine
from mixdpo.config.models import Device
from mixdpo.engine.cluster import prepare_ray
from mixdpo.engine.local import InProcess
from mixdpo.engine.task import Engine
from mixdpo.layout import Layout


@contextmanager
def open_engine(params: Params, layout: Layout) -> Iterator[Engine]:
    """The engine; with Ray its workers, and a cluster that was started for it, end with the body.

    Ray is started or joined with the first shard that is not finished already.
    """
    if not isinstance(params.engine, RayEngine):
        yield InProcess()
        return
    prepare_ray(params.engine)
    from mixdpo.engine.crew import Crew

    with closing(Crew(params.engine, layout.work("engine", uuid.uuid4().hex))) as crew:
        yield crew


def worker_device(params: Params) -> Device:
    """params.compute for a worker, with the device decided, so that shards of one kind of device stay together."""
    if isinstance(params.engine, RayEngine):
        device = "cuda" if params.engine.gpus else "cpu"
    else:
        from mixdpo.compute import prepare_compute  # torch: workers start without it

        device = prepare_compute(params.compute).device.type
    return params.compute.model_copy(update={"device": device})
