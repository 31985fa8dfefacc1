"""params.yaml: what the K expert policies share, and what each has of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.base import Count, Positive, Section


class Lora(Section):
    """Low-rank adapters in the linear layers of a transformer (peft)."""

    rank: Count
    alpha: Positive  # scale of the adapters: alpha / rank
    targets: tuple[str, ...] | None = None  # names of the layers; none given: all linear ones of the body


class SharedTrunk(Section):
    """Case 1 (Mix-DPO): one transformer, an output head for each expert."""

    kind: Literal["shared"]
    head: Literal["linear", "lowrank"]
    rank: Count | None  # of a lowrank head; null for linear
    trunk: Literal["trainable", "frozen", "lora"]
    lora: Lora | None = None  # of a lora trunk

    @model_validator(mode="after")
    def _consistent(self) -> SharedTrunk:
        if (self.head == "lowrank") != (self.rank is not None):
            raise ValueError(f"head {self.head} with rank {self.rank}: lowrank needs a rank, linear takes null")
        if (self.trunk == "lora") != (self.lora is not None):
            raise ValueError(
                f"trunk {self.trunk} {'with' if self.lora else 'without'} lora: a lora trunk needs rank and alpha "
                f"there, any other takes none"
            )
        return self


class Independent(Section):
    """Case 2 (MoE-DPO): K whole models, or K adapters over one frozen model, head included."""

    kind: Literal["independent"]
    lora: Lora | None = None  # none given: whole models


Architecture = Annotated[SharedTrunk | Independent, Field(discriminator="kind")]
