"""A content-addressed registry of mixtures that many may write at once and nobody can corrupt (docs/registry.md).

registry.py  register, resolve, pull, promote, roll back    reference.py  how people name versions
log.py       entries and the fold over them                 ledger.py     reading and adding to the log: the commit
manifest.py  what a version is                              lineage.py    where it came from
safety.py    what may be in one                             trust.py      who signed it
decision.py  what a promotion was decided on                resolve.py    a policy by path or reference

store.py     what a registry needs of its place             location.py   where that is
file_store.py  a directory                                  s3_*.py       a bucket
publish.py   files into it                                  fetch.py      files out of it (staging.py, cache.py)
lease.py     writers and collections kept apart             collect.py    garbage
audit.py     all of it read again                           repair.py     and put back
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
