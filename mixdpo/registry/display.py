"""What a registry holds, as plain aligned text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mixdpo.registry.log import Entry, State
from mixdpo.registry.registry import Registry, Version

DIGEST_SHOWN = 12  # hex digits; `NAME@sha256:` takes 8 and more


def list_table(registry: Registry, name: str | None = None) -> str:
    """All versions, or those of one name, one a line. Raises RegistryError where nothing is registered as `name`."""
    versions = registry.list(name)
    if not versions:
        return f"nothing is registered in {registry.store.location} yet; `mixdpo register` does that"
    rows = [
        (
            version.reference,
            ", ".join(version.aliases) or "-",
            version.entry.at,
            version.entry.by,
            f"{version.manifest.size / 2**20:.1f} MiB",
            version.digest[:DIGEST_SHOWN],
            one_line(version.entry.reason),
        )
        for version in versions
    ]
    return table(("version", "aliases", "registered", "by", "size", "sha256", "reason"), rows)


def history_table(history: State, entries: Iterable[Entry]) -> str:
    """What happened to a name, one log entry a line."""
    rows = [
        (
            str(entry.seq),
            entry.at,
            f"{entry.op} (forced)" if entry.decision and entry.decision.forced else entry.op,
            f"v{history.number(entry.manifest)}",
            entry.alias or "-",
            entry.by,
            one_line(entry.reason),
        )
        for entry in entries
    ]
    return table(("entry", "at", "what", "version", "alias", "by", "reason"), rows)


def registered(version: Version) -> str:
    """One line on what `Registry.register` did."""
    if version.created:
        outcome = f"registered {version.reference}"
    elif version.written is not None:
        outcome = f"nothing new: the same is {version.reference} already; {version.written.alias} moved to it"
    else:
        outcome = f"nothing new: the same is {version.reference} already"
    return f"{outcome} ({', '.join(version.aliases) or 'no alias'}; sha256:{version.digest})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces between."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def one_line(text: str) -> str:
    """A text without line ends and control characters, which others' reasons could hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
