"""Where a version came from, as a tree: its data and models, and the versions that its training went on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixdpo.errors import RegistryError
from mixdpo.registry.figures import at, policy_name
from mixdpo.registry.reference import split_expert
from mixdpo.registry.registry import Version

SHOWN = 12  # hex digits of a digest


@dataclass(frozen=True)
class Node:
    """What something is, and what it was made of."""

    what: str
    parts: tuple[Node, ...] = ()

    def record(self) -> dict[str, Any]:
        return {"what": self.what, "made_of": [part.record() for part in self.parts]}


def ancestry(version: Version, resolve: Callable[[str], Version]) -> Node:
    """The tree of a version, back to those that started from nothing registered.

    Args:
        resolve: `Registry.resolve`. Versions that it does not find are told as such.
    """
    return _version(version, resolve, frozenset())


def tree(node: Node) -> str:
    """A node a line, with lines to what it was made of."""
    return "\n".join(_lines(node, "", ""))


def _version(version: Version, resolve: Callable[[str], Version], above: frozenset[str]) -> Node:
    lineage = version.manifest.lineage
    what = f"{version.reference}  sha256:{version.digest[:SHOWN]}  {version.entry.at[:10]}  {version.entry.reason}"
    parts = [
        Node(_policy(version), tuple(_starts(version, resolve, above | {version.digest}))),
        Node(_sft(lineage)),
        *_digests("data", {name: found for name, found in _items(lineage, "data") if isinstance(found, str)}),
        *_digests("reward models", {name: str(at(found, "sha256")) for name, found in _items(lineage, "rewards")}),
        Node(_code(lineage)),
    ]
    return Node(what, tuple(parts))


def _starts(version: Version, resolve: Callable[[str], Version], above: frozenset[str]) -> list[Node]:
    started = version.manifest.lineage.get("start")
    nodes = []
    for each in started if isinstance(started, list) else ():
        text, digest = str(at(each, "from")), str(at(each, "sha256"))
        whole, expert = split_expert(text)
        told = f"started from {text}" + (f" (expert {expert})" if expert is not None else "")
        if "@" not in whole or digest in above:
            nodes.append(Node(f"{told}  sha256:{digest[:SHOWN]}"))
            continue
        try:
            # by its digest: what the number means here may be another version of that name
            found = _version(resolve(f"{whole.split('@')[0]}@sha256:{digest}"), resolve, above)
            nodes.append(Node(told, (found,)))
        except RegistryError:
            nodes.append(Node(f"{told}  sha256:{digest[:SHOWN]}, which is not in this registry"))
    return nodes


def _policy(version: Version) -> str:
    name = policy_name(version.manifest)
    policy = at(version.manifest.lineage, "params", "policies", str(name))
    experts, weights = at(policy, "experts"), at(policy, "weights", "kind")
    return f"policy {name}: {experts} experts, weights {weights}, latent {at(policy, 'latent')}"


def _sft(lineage: dict[str, Any]) -> str:
    base = at(lineage, "params", "sft", "base")
    made = at(lineage, "dvc_lock", "outputs", "data/sft")
    named = at(base, "model") or f"a new {at(base, 'architecture')}"
    revision = at(base, "revision")
    return f"sft: from {named}" + (f" at {revision}" if revision else "") + (f"  {made}" if made else "")


def _code(lineage: dict[str, Any]) -> str:
    commit, dirty = at(lineage, "git", "commit"), at(lineage, "git", "dirty")
    if commit is None:
        return "code: no commit is known"
    return f"code: commit {str(commit)[:SHOWN]}{', with changes that were not committed' if dirty else ''}"


def _digests(what: str, found: dict[str, str]) -> list[Node]:
    return [Node(what, tuple(Node(f"{name}  sha256:{digest[:SHOWN]}") for name, digest in found.items()))] * bool(found)


def _items(lineage: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    section = lineage.get(key)
    return sorted(section.items()) if isinstance(section, dict) else []


def _lines(node: Node, first: str, rest: str) -> list[str]:
    lines = [first + "".join(letter if letter.isprintable() else " " for letter in node.what)]
    for place, part in enumerate(node.parts):
        last = place == len(node.parts) - 1
        lines += _lines(part, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    return lines
