from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mixdpo.registry.diff import packages_of
from mixdpo.registry.sbom import bill_of_materials, locked_hashes

SCRIPT = """
import sys
from mixdpo.registry.sbom import Path, bill_of_materials
sys.stdout.buffer.write(bill_of_materials(Path(sys.argv[1])))
"""
LOCK = Path(__file__).parents[2] / "requirements.lock"


@pytest.fixture(scope="module")
def bill() -> bytes:
    return bill_of_materials(LOCK)


@pytest.fixture(scope="module")
def components(bill: bytes) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(bill)["components"]}


def test_it_is_what_the_schema_says(bill: bytes) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None


def test_the_same_environment_gives_the_same_bytes(bill: bytes) -> None:
    alone = subprocess.run([sys.executable, "-c", SCRIPT, LOCK], capture_output=True, check=True)
    assert alone.stdout == bill
    told = json.loads(bill)
    assert "serialNumber" not in told
    assert "timestamp" not in told["metadata"]


def test_every_installed_package_is_there_with_version_and_licence(components: dict[str, Any], bill: bytes) -> None:
    assert len(components) >= len({each.name.lower().replace("_", "-") for each in distributions()}) * 0.9
    for name in ("torch", "pydantic", "pyarrow"):
        assert components[name]["version"] == version(name)
        assert components[name]["purl"].startswith(f"pkg:pypi/{name}@")
        assert components[name]["licenses"]
    assert packages_of(bill).items() >= {"torch": version("torch"), "pydantic": version("pydantic")}.items()


def test_hashes_are_those_of_the_lock(components: dict[str, Any]) -> None:
    [allowed] = components["pydantic"]["externalReferences"]
    expected = locked_hashes(LOCK.read_text(encoding="utf-8"))["pydantic", version("pydantic")]
    assert sorted(each["content"] for each in allowed["hashes"]) == sorted(expected)
    assert {each["alg"] for each in allowed["hashes"]} == {"SHA-256"}


def test_what_needs_what_is_told(bill: bytes) -> None:
    graph = {each["ref"]: each.get("dependsOn", []) for each in json.loads(bill)["dependencies"]}
    assert f"numpy=={version('numpy')}" in graph[f"transformers=={version('transformers')}"]


def test_a_lock_is_read_line_by_line() -> None:
    text = f"# a comment\nA_b.c==1.0 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{'2' * 64}\nd==2 ; x\n"
    assert locked_hashes(text) == {("a-b-c", "1.0"): ["1" * 64, "2" * 64], ("d", "2"): []}


def test_without_a_lock_there_are_no_hashes(tmp_path: Path) -> None:
    components = json.loads(bill_of_materials(tmp_path / "none"))["components"]
    assert not any("externalReferences" in each for each in components)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"components": [1]}', b"[" * 100_000])
def test_what_is_no_bill_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        packages_of(body)
