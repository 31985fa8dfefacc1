"""The embedded corpus: a seeded generator of movie and book reviews, and an oracle that reads its language."""

from __future__ import annotations

from mixdpo.data.embedded.generator import VERSION, generate_reviews, stream_reviews
from mixdpo.data.embedded.oracle import Truth, truth

__all__ = ["VERSION", "Truth", "generate_reviews", "stream_reviews", "truth"]
