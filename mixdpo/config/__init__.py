"""params.yaml, typed and frozen: the single file of values that a run depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from mixdpo.config.base import Name, Natural, Section
from mixdpo.config.data import (
    AnnotatedPairs,
    Arrivals,
    Cleaning,
    Drift,
    FilesSource,
    PreferenceFiles,
    Preferences,
    Source,
    Splits,
    Validation,
    reads_arrivals,
)
from mixdpo.config.engine import Engine, LocalEngine, RayEngine
from mixdpo.config.models import SFT, Candidates, Device, Rewards
from mixdpo.config.outcome import Evaluation, Promotion, Registry
from mixdpo.config.policy import Policy
from mixdpo.config.training import Training
from mixdpo.errors import ConfigError

_REFERENCE = "sft"


class Params(Section):
    """The whole of params.yaml."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    profile: Name
    seed: Natural
    inputs: str  # directory of the files that this profile reads; every path below is relative to it
    compute: Device
    engine: Engine = LocalEngine(kind="local")  # no stage depends on it: where shards run changes no result
    arrivals: Arrivals | None = None
    source: Source
    cleaning: Cleaning
    splits: Splits
    validation: Validation
    drift: Drift | None = None
    rewards: Rewards
    sft: SFT
    candidates: Candidates
    preferences: Preferences
    training: Training
    policies: dict[Name, Policy] = Field(min_length=1)
    evaluation: Evaluation
    registry: Registry
    promotion: Promotion

    @model_validator(mode="after")
    def _sections_agree(self) -> Params:
        known = set(self.rewards.dimensions)
        for name, style in self.preferences.styles.items():
            if unknown := set(style.weights) - known:
                raise ValueError(
                    f"preferences.styles.{name} weighs {', '.join(sorted(unknown))}, but rewards.dimensions has only "
                    f"{', '.join(sorted(known))}; correct the name or add the dimension"
                )
        if self.registry.policy not in self.policies:
            raise ValueError(
                f"registry.policy is {self.registry.policy}, but policies has {', '.join(self.policies)}; name one"
            )
        if _REFERENCE in self.policies:
            raise ValueError(
                f"policies has {_REFERENCE}, which is what the reference policy is called in every table; rename it"
            )
        return self

    @model_validator(mode="after")
    def _someone_reads_what_arrives(self) -> Params:
        sets = self.source.sets if isinstance(self.source, FilesSource) else ()
        ready = self.preferences.source
        globs = [part.paths for part in sets] + ([ready.paths] if isinstance(ready, PreferenceFiles) else [])
        if self.arrivals is not None and not any(map(reads_arrivals, globs)):
            raise ValueError(
                f"arrivals.url is {self.arrivals.url}, but nothing reads what arrives there; add a path such as "
                "arrivals/*/books/*.parquet to a set of source.sets or to preferences.source"
            )
        return self

    @model_validator(mode="after")
    def _workers_hold_what_they_use(self) -> Params:
        if isinstance(self.engine, RayEngine) and self.compute.device != "auto":
            gpus, device = self.engine.gpus, self.compute.device
            if (device == "cuda") != (gpus > 0):
                raise ValueError(
                    f"compute.device is {device} but a Ray worker holds engine.gpus {gpus:g}; make the two agree, or "
                    "set compute.device to auto: workers then use a GPU where they hold one"
                )
        return self

    @model_validator(mode="after")
    def _promotion_can_be(self) -> Params:
        annotated = isinstance(self.preferences.source, AnnotatedPairs)
        tastes = self.preferences.styles if annotated else self.rewards.dimensions
        if self.promotion.must_beat > len(tastes):
            raise ValueError(
                f"promotion.must_beat is {self.promotion.must_beat}, but there are {len(tastes)} "
                f"{'preferences.styles' if annotated else 'rewards.dimensions'} to be better for; lower it"
            )
        if self.registry.alias in self.promotion.aliases:
            raise ValueError(
                f"registry.alias is {self.registry.alias}, which promotion.aliases guards: a version would take it "
                "without being compared; let registration move another alias, such as staging"
            )
        return self

    @model_validator(mode="after")
    def _annotators_have_enough_pairs(self) -> Params:
        source, least = self.preferences.source, self.validation.min_pairs_per_annotator
        made = self.preferences.annotators
        if isinstance(source, AnnotatedPairs) and made is not None and made.pairs < least:
            raise ValueError(
                f"preferences.annotators.pairs is {made.pairs}, below "
                f"validation.min_pairs_per_annotator {least}: all would be refused; raise pairs"
            )
        if isinstance(source, PreferenceFiles) and source.columns.annotator is None and least > 1:
            raise ValueError(
                "preferences.source.columns.annotator is null, so each pair is its own annotator, below "
                f"validation.min_pairs_per_annotator {least}: all would be refused; set that to 1 or name the column"
            )
        return self


def parse_params(values: Any, origin: str = "params.yaml") -> Params:
    """Type and check the values of a params.yaml.

    Raises:
        ConfigError: names every faulty key, what was expected, what was given.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: expected a mapping of sections, got {type(values).__name__}; see profiles/")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        faults = "\n".join(f"  {_describe(fault)}" for fault in error.errors(include_url=False))
        raise ConfigError(
            f"{origin} does not fit:\n{faults}\nThe profiles in profiles/ are complete, valid examples."
        ) from None


def load_params(path: Path) -> Params:
    """Read params.yaml. Raises ConfigError where it is missing, not YAML, or wrong."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; run this in the project's directory, or `mixdpo profile use demo`")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    return parse_params(values, str(path))


def _describe(fault: Any) -> str:
    """One line a fault: key, what is wrong, remedy."""
    # pydantic puts the chosen variant of a union ('embedded', 'files') into the path; users know only keys
    key = ".".join(str(part) for part in fault["loc"]) or "(top level)"
    kind, given = fault["type"], fault.get("input")
    if kind == "extra_forbidden":
        return f"{key}: unknown key; remove it or correct its spelling"
    if kind == "missing":
        return f"{key}: missing; add it (null where it is to be empty and may be)"
    if kind == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    return f"{key}: {fault['msg']}, got {given!r}; change the value"


__all__ = ["Params", "load_params", "parse_params"]
