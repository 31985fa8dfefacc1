from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.registry import Registry, Version
from mixdpo.registry.display import history_table, list_table, registered


def columns(table: str) -> list[list[str]]:
    """Cells by where the header's words begin, so that a table out of line does not pass."""
    lines = table.splitlines()
    starts = [at for at, letter in enumerate(lines[0]) if letter != " " and (at == 0 or lines[0][at - 1] == " ")]
    return [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines]


def test_tables_are_aligned_and_tell_what_happened(registry: Registry, publish: Callable[..., Version]) -> None:
    publish(1)
    version = publish(2)
    registry.set_alias("reviews", "production", "v1", "the first\nis \x1b[31mgood")
    registry.rollback("reviews", "staging", "worse")
    listed = columns(list_table(registry))
    assert listed[0] == ["version", "aliases", "registered", "by", "size", "sha256", "reason"]
    assert [(row[0], row[1], row[6]) for row in listed[1:]] == [
        ("reviews@v1", "production, staging", "seed 1"),
        ("reviews@v2", "-", "seed 2"),
    ]
    assert version.digest.startswith(listed[2][5])
    state = registry.history("reviews")
    history = columns(history_table(state, state.entries))
    assert [(row[0], row[2], row[3], row[4], row[6]) for row in history[1:]] == [
        ("1", "register", "v1", "staging", "seed 1"),
        ("2", "register", "v2", "staging", "seed 2"),
        ("3", "alias", "v1", "production", "the first is  [31mgood"),
        ("4", "rollback", "v1", "staging", "worse"),
    ]


def test_an_empty_registry_says_so(registry: Registry, location: Path) -> None:
    assert list_table(registry) == f"nothing is registered in {location} yet; `mixdpo register` does that"
    with pytest.raises(RegistryError, match=r"^nothing is registered as reviews"):
        list_table(registry, "reviews")


def test_registering_says_whether_it_made_a_version(publish: Callable[..., Version]) -> None:
    first = publish(1)
    assert registered(first) == f"registered reviews@v1 (staging; sha256:{first.digest})"
    assert registered(publish(1)) == f"nothing new: the same is reviews@v1 already (staging; sha256:{first.digest})"
    moved = registered(publish(1, alias="production"))
    assert moved == (
        f"nothing new: the same is reviews@v1 already; production moved to it "
        f"(production, staging; sha256:{first.digest})"
    )
