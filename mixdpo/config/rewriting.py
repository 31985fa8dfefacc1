"""Changes of a params.yaml that people also edit: keys are set, all else stays as it was written."""

from __future__ import annotations

import io
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from yaml import safe_load

from mixdpo.config import parse_params
from mixdpo.files import write_text


def rewrite(path: Path, changes: dict[tuple[str, ...], object]) -> list[str]:
    """Set keys in a params.yaml; comments and order stay. The file changes as a whole, and only to what is valid.

    Returns:
        What changed, a line each.

    Raises:
        ConfigError: the file is not valid with the change, and then stays.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda each, _: each.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    values = yaml.load(path.read_text(encoding="utf-8"))
    told = []
    for keys, value in changes.items():
        section = values
        for key in keys[:-1]:
            section = section[key]
        if section.get(keys[-1]) != value:
            section[keys[-1]] = _inline(value)
            told.append(f"{'.'.join(keys)}: {_said(value)}")
    if told:
        text = io.StringIO()
        yaml.dump(values, text)
        parse_params(safe_load(text.getvalue()), f"{path}, with " + ", ".join(told))
        write_text(path, text.getvalue())
    return told


def _inline(value: object) -> object:
    """Mappings and lists in braces and brackets, as the profiles write short ones."""
    if isinstance(value, dict):
        mapping = CommentedMap(value)
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq(value)
        sequence.fa.set_flow_style()
        return sequence
    return value


def _said(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_said(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_said, value)) + "]"
    return "null" if value is None else str(value)
