"""What a promotion was decided on, as it stands in its log entry: compact; the whole evidence is a blob."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from mixdpo.registry.manifest import Digest, Record

Line = Annotated[str, Field(min_length=1, max_length=2000)]
Short = Annotated[str, Field(min_length=1, max_length=200)]


class Rules(Record):
    """`promotion` of params.yaml as it was."""

    delta: Annotated[float, Field(ge=0)]  # standard deviations of the SFT policy's samples
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    must_beat: Annotated[int, Field(ge=0)]
    comparisons: Annotated[int, Field(ge=0)]
    refuse: Literal["any"] | tuple[Short, ...]
    validation: Literal["passed", "clean"]


class Difference(Record):
    """Challenger less champion for people of one style: mean and interval, standard deviations of SFT's samples."""

    mean: float
    low: float
    high: float
    prompts: Annotated[int, Field(ge=1)]


class Decision(Record):
    """Whether the rules let a version take an alias, and why.

    Attributes:
        forced: whether a person had the alias moved whatever the rules say.
        reasons: why the rules refuse, and which of them had nothing to compare with.
        champion: the manifest that the alias pointed to; None for the first promotion.
        styles: empty where there was no champion, or no comparison could be made.
        findings: of the health check of the challenger's training, by name.
        validation: what the gates found amiss in the challenger's data.
        prompts, judges: digests of what both were compared on.
        evidence: sha256 of the blob that holds all of it.
    """

    passed: bool
    forced: bool
    reasons: Annotated[tuple[Line, ...], Field(max_length=16)]
    rules: Rules
    champion: Digest | None
    styles: dict[Short, Difference]
    findings: tuple[Short, ...]
    validation: Annotated[tuple[Line, ...], Field(max_length=16)]
    prompts: Digest | None
    judges: Digest | None
    evidence: Digest | None


class Ruling(NamedTuple):
    """A decision, and the blob that `decision.evidence` names."""

    decision: Decision
    evidence: bytes | None
