"""A content-addressed registry of mixtures that many may write at once and nobody can corrupt (docs/registry.md).

reference.py    how people name versions            log.py       entries and the fold over them
manifest.py     what a version is                   ledger.py    reading and adding to the log: the commit
safety.py       what may be in one                  registry.py  register, resolve, pull, promote, roll back
store.py        what a registry needs of a disk     fetch.py     files out of it, verified
file_store.py   a directory                         resolve.py   a policy by path or reference
location.py     where registry and cache are        lineage.py   where a version came from
"""

from __future__ import annotations

from mixdpo.registry.audit import Verified
from mixdpo.registry.location import registry_location
from mixdpo.registry.log import Entry, State
from mixdpo.registry.manifest import Manifest
from mixdpo.registry.opening import open_registry, signing_key
from mixdpo.registry.registry import Registry, Version
from mixdpo.registry.resolve import resolve_policy

__all__ = [
    "Entry",
    "Manifest",
    "Registry",
    "State",
    "Verified",
    "Version",
    "open_registry",
    "registry_location",
    "resolve_policy",
    "signing_key",
]
