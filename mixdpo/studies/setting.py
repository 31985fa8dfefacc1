"""studies/params.yaml, typed: the small setting that all studies start from, and what a study may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from mixdpo.config.base import Count, Name, Natural, NonNegative, Section
from mixdpo.config.data import Annotators, Style
from mixdpo.config.policy import Policy
from mixdpo.config.training import Training
from mixdpo.errors import ConfigError

Label = str | int | float


class Labelling(Section):
    """Who compares what. Test annotators always judge by the annotating reward models, without noise on scores."""

    annotators: Annotators
    styles: dict[Name, Style] = Field(min_length=1)
    scores: Literal["annotator", "judge"]  # whose scores the annotators of training and validation judge by
    score_noise: NonNegative  # Gaussian noise on those, in standard deviations of each dimension


class Setting(Section):
    """Everything that one training and its evaluation depend on, beside the world and the seed."""

    labelling: Labelling
    policy: Policy
    training: Training
    crossed: Natural  # further test prompts of each domain, in its own language and in the other's; 0: none

    @model_validator(mode="after")
    def _starts_from_the_world(self) -> Setting:
        if self.policy.references or self.policy.start:
            raise ValueError("studies start from the SFT policy, which is their reference; leave both out")
        return self

    def changed(self, **sections: Mapping[str, Any] | int) -> Setting:
        """This setting with some values replaced: `changed(policy={"experts": 1})`. The result is checked anew."""
        values = self.model_dump(mode="json")
        for name, changes in sections.items():
            values[name] = {**values[name], **changes} if isinstance(changes, Mapping) else changes
        return Setting.model_validate(values)

    def asking(self, **annotators: Any) -> Setting:
        """This setting with other annotators: `asking(train=40)`."""
        return self.changed(labelling={"annotators": self.labelling.annotators.model_dump() | annotators})


class Grid(Section):
    """A study's section of studies/params.yaml; each study adds its axes."""

    seeds: Count  # 0, 1, …: of annotators, their labels and the training; the world stays


@dataclass(frozen=True)
class Variant:
    """One point of a study's grid.

    Attributes:
        labels: axis → value, what the table shows of it.
    """

    labels: Mapping[str, Label]
    setting: Setting

    @property
    def key(self) -> str:
        """`beta=0.1,entropy=0.01`."""
        return ",".join(f"{axis}={value}" for axis, value in self.labels.items())

    def matches(self, wanted: str) -> bool:
        """Whether each `axis=value` of `wanted` (joined by commas) is one of this variant's labels."""
        return set(wanted.split(",")) <= set(self.key.split(","))


class StudyParams(Section):
    """The whole of studies/params.yaml."""

    base: Setting
    grids: dict[Name, dict[str, Any]]  # checked by the study whose name it has

    def grid(self, name: str, kind: type[Grid]) -> Grid:
        """Raises ConfigError where the study has no section, or one that does not fit."""
        if name not in self.grids:
            raise ConfigError(f"studies/params.yaml has no section {name}; it has {', '.join(self.grids)}")
        try:
            return kind.model_validate(self.grids[name])
        except ValidationError as error:
            raise _faults(error, name) from None


def load_study_params(path: Path) -> StudyParams:
    """Read studies/params.yaml: `base`, and a section for each study.

    Raises:
        ConfigError: the file is missing, not YAML, or does not fit.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; run this in the project's directory, or name it with --root")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict) or "base" not in values:
        raise ConfigError(f"{path}: expected a mapping with `base` and a section for each study; see docs/studies")
    base = values.pop("base")
    try:
        return StudyParams.model_validate({"base": base, "grids": values})
    except ValidationError as error:
        raise _faults(error, "base") from None


def _faults(error: ValidationError, section: str) -> ConfigError:
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"])
        lines.append(f"  {where}: {fault['msg']}, got {fault['input']!r}; change the value")
    return ConfigError(f"studies/params.yaml does not fit (section {section}):\n" + "\n".join(lines))
