"""The JSON beside saved weights that says what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixdpo.errors import ModelError


def read_description(
    directory: Path, file: str, schema: int, keys: Sequence[str], what: str, writers: str
) -> dict[str, Any]:
    """The content of `directory/file`.

    Args:
        keys: what it must hold beside its schema.
        what, writers: for messages, what was expected there and who writes such a thing.

    Raises:
        ModelError: it is not there, no JSON, of another schema, or lacks a key.
    """
    path = directory / file
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{directory} is not {what}: it has no {file}; name a directory that {writers} wrote"
        ) from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON ({error}); pull, copy or train it again") from error
    if about.get("schema") != schema:
        raise ModelError(f"{path} has schema {about.get('schema')}, this mixdpo reads {schema}; use a matching mixdpo")
    if missing := [key for key in keys if key not in about]:
        raise ModelError(f"{path} lacks {', '.join(missing)}; pull, copy or train it again")
    return about
