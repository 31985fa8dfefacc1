"""What is known of preference pairs beyond their texts, by column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def metadata_columns(metadata: Sequence[str], domains: Sequence[str | None]) -> dict[str, list[Any]]:
    """Columns of the pairs' metadata, None where a pair lacks one, and `domain`, which is the pair's own.

    Args:
        metadata: one JSON object a pair.
        domains: one a pair.
    """
    objects = [json.loads(text) for text in metadata]
    names = sorted({name for fields in objects for name in fields})
    return {name: [fields.get(name) for fields in objects] for name in names} | {"domain": list(domains)}
