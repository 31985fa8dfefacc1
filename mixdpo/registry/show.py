"""Versions told to people: one in full, and what two differ in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo.registry.diff import Change, Difference
from mixdpo.registry.display import one_line, table
from mixdpo.registry.figures import Figure, at, key_figures
from mixdpo.registry.registry import Version

LONGEST = 60  # letters of a value in a table
SHOWN = 12  # hex digits of a digest
ABSENT = "-"


def version_record(version: Version, signers: Mapping[str, str], packages: int | None) -> dict[str, Any]:
    """One version as JSON.

    Args:
        signers: public key → what is known of it.
        packages: how many its list of packages has; None where it has none.
    """
    lineage = version.manifest.lineage
    return {
        "reference": version.reference,
        "sha256": version.digest,
        "aliases": list(version.aliases),
        "registered": {"at": version.entry.at, "by": version.entry.by, "reason": version.entry.reason},
        "signed": dict(signers),
        "profile": lineage.get("profile"),
        "git": lineage.get("git"),
        "data": lineage.get("data"),
        "start": lineage.get("start"),
        "figures": {name: figure.value for name, figure in key_figures(version.manifest).items()},
        "files": {path: {"sha256": each.sha256, "size": each.size} for path, each in version.manifest.files.items()},
        "packages": packages,
    }


def version_text(version: Version, signers: Mapping[str, str], packages: int | None) -> str:
    """One version in full; arguments as for `version_record`."""
    lineage, files = version.manifest.lineage, version.manifest.files
    own = {path: each for path, each in files.items() if not path.startswith("run/")}
    commit = at(lineage, "git", "commit")
    data = lineage.get("data")
    rows = [
        ("sha256", version.digest),
        ("aliases", ", ".join(version.aliases) or ABSENT),
        ("registered", f"{version.entry.at} by {version.entry.by}"),
        ("reason", version.entry.reason),
        ("signed by", "; ".join(f"{key} ({state})" for key, state in signers.items()) or "nobody"),
        ("made from", f"profile {lineage.get('profile')}, commit {str(commit)[:SHOWN] if commit else ABSENT}"),
        ("data", ", ".join(f"{name} {str(digest)[:SHOWN]}" for name, digest in _items(data)) or ABSENT),
        ("files", f"{len(own)} of the policy ({_size(own)}), {len(files) - len(own)} of its run"),
        ("packages", str(packages) if packages is not None else "no list"),
    ]
    parts = [version.reference, table(("", ""), [(name, one_line(value)) for name, value in rows]).strip("\n")]
    if figures := key_figures(version.manifest):
        parts.append(table(("figure", "value"), [(one_line(name), _figure(each)) for name, each in figures.items()]))
    return "\n".join(parts)


def difference_text(found: Difference, before: str, after: str) -> str:
    """What two versions differ in, a table for each kind."""
    parts = [f"{before} → {after}"]
    if found.figures:
        note = {
            True: "",
            False: ", on other prompts or judges: not comparable",
            None: ", on unknown prompts and judges",
        }
        moved = [
            (name, _number(each.before), _number(each.after), {True: "better", False: "worse", None: ""}[each.better])
            for name, each in found.figures.items()
        ]
        parts.append(_section(f"figures{note[found.same_terms]}", moved, ("figure", before, after, "")))
    for name in ("params", "inputs", "code", "packages", "files"):
        changes: dict[str, Change] = getattr(found, name)
        if changes:
            rows = [(key, _value(each.before), _value(each.after)) for key, each in changes.items()]
            parts.append(_section(name, rows, ("", before, after)))
    return "\n\n".join(parts) if len(parts) > 1 else f"{parts[0]}: nothing differs"


def _section(title: str, rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    return f"{title}\n{table(header, [tuple(map(one_line, row)) for row in rows])}"


def _value(value: Any) -> str:
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return text[:SHOWN]  # a digest
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _figure(figure: Figure) -> str:
    return f"{figure.value:.4g}"


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"


def _items(section: Any) -> list[tuple[str, Any]]:
    return sorted(section.items()) if isinstance(section, dict) else []


def _size(files: Mapping[str, Any]) -> str:
    return f"{sum(each.size for each in files.values()) / 2**20:.1f} MiB"
