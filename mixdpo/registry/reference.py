"""How people name a version (`reviews`, `reviews@staging`, `reviews@v3`, `reviews@sha256:4f2c…`), or one expert."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixdpo.errors import RegistryError
from mixdpo.registry.log import ALIAS, State
from mixdpo.registry.manifest import NAME

_REFERENCE = re.compile(
    rf"(?P<name>{NAME})(@(v?(?P<number>[0-9]{{1,9}})|sha256:(?P<digest>[0-9a-f]{{8,64}})|(?P<alias>{ALIAS})))?"
)
_EXPERT = re.compile(r"(?P<whole>.+)/expert-(?P<expert>[0-9]{1,4})")
FORMS = "NAME, NAME@ALIAS, NAME@v3 or NAME@sha256:DIGEST"


@dataclass(frozen=True)
class Reference:
    """At most one of `alias`, `number` and `digest` (its first 8 to 64 hex digits); with none, the latest version."""

    name: str
    alias: str | None = None
    number: int | None = None
    digest: str | None = None

    @property
    def fixed(self) -> bool:
        """Whether it means the same version for good: a number or a digest does, an alias and a bare name move."""
        return self.number is not None or self.digest is not None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        if self.number is not None:
            return f"{self.name}@v{self.number}"
        return f"{self.name}@sha256:{self.digest}" if self.digest is not None else self.name


def parse_reference(text: str) -> Reference:
    """Raises RegistryError where `text` is no reference."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise RegistryError(f"{text!r} is not a reference to a version; expected {FORMS}, as in reviews@staging")
    number = match["number"]
    return Reference(match["name"], match["alias"], None if number is None else int(number), match["digest"])


def split_expert(text: str) -> tuple[str, int | None]:
    """What comes before `/expert-N`, a reference or a directory, and N; None where the whole is meant.

    >>> split_expert("reviews@v3/expert-1")
    ('reviews@v3', 1)
    >>> split_expert("data/policies/moe")
    ('data/policies/moe', None)
    """
    match = _EXPERT.fullmatch(text)
    return (text, None) if match is None else (match["whole"], int(match["expert"]))


def chosen_experts(text: str, expert: int | None, experts: int) -> range:
    """The experts that `text` names of a mixture of `experts`: one, or all where it names none (`expert` is None).

    Raises:
        RegistryError: the mixture has no such expert.
    """
    if expert is None:
        return range(experts)
    if expert >= experts:
        raise RegistryError(
            f"{text} does not exist: that mixture has expert-0 to expert-{experts - 1}; name one of these"
        )
    return range(expert, expert + 1)


def find(state: State, reference: Reference) -> str:
    """The manifest digest that `reference` means in the log that folded to `state` (which has a version).

    Raises:
        RegistryError: no such alias, version or digest; says which there are.
    """
    if reference.alias is not None:
        if target := state.target(reference.alias):
            return target
    elif reference.number is not None:
        if 1 <= reference.number <= len(state.versions):
            return state.versions[reference.number - 1]
    elif reference.digest is not None:
        found = [digest for digest in state.versions if digest.startswith(reference.digest)]
        if len(found) == 1:
            return found[0]
    else:
        return state.versions[-1]
    aliases = ", ".join(f"{alias} → v{state.number(stack[-1])}" for alias, stack in sorted(state.aliases.items()))
    raise RegistryError(
        f"{reference} does not exist: {state.name} has versions v1 to v{len(state.versions)} and "
        f"{'the aliases ' + aliases if aliases else 'no alias'}; name one of these (`mixdpo list` shows them)"
    )
