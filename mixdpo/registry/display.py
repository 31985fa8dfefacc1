"""What a registry holds, as plain aligned text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mixdpo.registry.registry import Registry, Version

DIGEST_SHOWN = 12  # hex digits; `NAME@sha256:` takes 8 and more


def list_table(registry: Registry) -> str:
    """All versions, one a line."""
    versions = registry.list()
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
            _one_line(version.entry.reason),
        )
        for version in versions
    ]
    return table(("version", "aliases", "registered", "by", "size", "sha256", "reason"), rows)


def history_table(registry: Registry, name: str) -> str:
    """All that happened to `name`, one log entry a line. Raises RegistryError where nothing is registered as it."""
    history = registry.history(name)
    rows = [
        (
            str(entry.seq),
            entry.at,
            entry.op,
            f"v{history.number(entry.manifest)}",
            entry.alias or "-",
            entry.by,
            _one_line(entry.reason),
        )
        for entry in history.entries
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


def _one_line(text: str) -> str:
    """Without line ends and control characters, which others' reasons could hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
