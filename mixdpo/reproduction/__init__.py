"""A registered version made again from what it says of itself: code, parameters, inputs (docs/operations.md)."""

from __future__ import annotations

from mixdpo.reproduction.comparison import Comparison
from mixdpo.reproduction.reproduce import Origin, origin_of, prepare, run

__all__ = ["Comparison", "Origin", "origin_of", "prepare", "run"]
