"""params.yaml: what runs the shards of annotation, candidates and evaluation. It never decides a result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.base import Count, NonNegative, Section


class LocalEngine(Section):
    """One shard after the other, in the process of the stage."""

    kind: Literal["local"]


class RayEngine(Section):
    """Shards on the workers of a Ray cluster (docs/ray.md)."""

    kind: Literal["ray"]
    cpus: Count  # held by a worker, and its threads where compute.threads is 0
    gpus: NonNegative = 0.0  # held by a worker; a fraction lets some share one
    workers: Count | None = None  # at most; null: as many as there is room for
    address: str | None = None  # null: RAY_ADDRESS, or else a temporary cluster on this machine

    @model_validator(mode="after")
    def _whole_or_a_part_of_one(self) -> RayEngine:
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus {self.gpus:g} is neither whole nor below 1; Ray divides one GPU only")
        return self


Engine = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]
