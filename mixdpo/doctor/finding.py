"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    what: str  # was looked at
    state: Literal["ok", "warn", "fail"]  # fail: a run would end with an error
    found: str
    remedy: str = ""
