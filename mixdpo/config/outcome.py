"""params.yaml: how policies are judged, and which one is published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mixdpo.config.base import Count, Natural, Section

# what training/health.py can find
Finding = Literal[
    "dead-expert",
    "early-sharpening",
    "expert-collapse",
    "identical-experts",
    "likelihood-displacement",
    "posterior-collapse",
    "worse-than-chance",
]


class Evaluation(Section):
    samples_per_prompt: Count
    bootstrap: Annotated[int, Field(ge=100)]
    examples: Natural  # prompts shown with everyone's completion in the report


class Registry(Section):
    url: str | None  # a directory; null: $MIXDPO_REGISTRY, else the user's own data directory
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    policy: str
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    refuse: tuple[Finding, ...] = ()  # health findings of the policy's training with which it is not registered
