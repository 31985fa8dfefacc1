"""params.yaml: how policies are judged, and which one is published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.base import Count, Natural, NonNegative, Section

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


Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class Signing(Section):
    """Signatures of versions. The environment may ask for more of them ($MIXDPO_TRUSTED_KEYS)."""

    key: str | None  # file of the private key, from here or ~, that signs what is registered; null: $MIXDPO_SIGNING_KEY
    required: bool  # whether a version without a signature of a trusted key is refused
    trusted: tuple[Annotated[str, Field(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")], ...]  # public keys

    @model_validator(mode="after")
    def _someone_is_trusted(self) -> Signing:
        if self.required and not self.trusted:
            raise ValueError("signatures are required, but nobody is trusted; name a public key (`mixdpo keygen`)")
        return self


class Registry(Section):
    url: str | None  # a directory or s3://…; null: $MIXDPO_REGISTRY, else the user's own data directory
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    policy: str
    alias: Alias
    refuse: tuple[Finding, ...] = ()  # health findings of the policy's training with which it is not registered
    signing: Signing | None = None


class Promotion(Section):
    """What a version must show before it takes an alias that people are served from (docs/registry.md)."""

    aliases: Annotated[tuple[Alias, ...], Field(min_length=1)]  # which; the first is meant where none is named
    delta: NonNegative  # standard deviations of the SFT policy's samples by which a style may come to be worse off
    confidence: Annotated[float, Field(gt=0.5, lt=1)]  # of all intervals
    must_beat: Natural  # styles that must be better off
    comparisons: Literal[0, 1, 2, 4, 8, 16]  # what is known of a person who is served; 0: nothing
    refuse: Literal["any"] | tuple[Finding, ...]  # findings in the health of its training
    validation: Literal["passed", "clean"]  # of its data: the gates let it through, or had no warning either
