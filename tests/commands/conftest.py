"""What tests of several verbs stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Its params.yaml names a registry beside it."""
    root = tmp_path / "project"
    root.mkdir()
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    values["registry"]["url"] = "../shared"
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return root
