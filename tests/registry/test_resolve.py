from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.registry import Version, resolve_policy


def test_a_policy_is_found_by_path_first_and_then_by_reference(
    location: Path,
    publish: Callable[..., Version],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contents_of: Callable[[Path], dict[str, bytes]],
) -> None:
    publish(1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("MIXDPO_REGISTRY", str(location))
    for reference in ("reviews@staging", "reviews@v1", "reviews"):
        assert contents_of(resolve_policy(reference)) == contents_of(tmp_path / "policy-1")
    Path("reviews").mkdir()
    assert resolve_policy("reviews") == Path("reviews")


def test_an_unknown_policy_says_that_both_were_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError) as error:
        resolve_policy("reviews@staging")
    assert str(error.value) == (
        f"no policy 'reviews@staging': there is no directory {tmp_path}/reviews@staging, and as a reference: "
        f"nothing is registered as reviews in {tmp_path}/share/mixdpo/registry, which has no versions at all; "
        "register it, or name another registry ($MIXDPO_REGISTRY, registry.url)"
    )
    with pytest.raises(RegistryError, match=r"^no policy '\./dir': there is no directory .*: '\./dir' is not a refer"):
        resolve_policy("./dir")


def test_a_registry_in_a_directory_needs_neither_torch_nor_transformers_nor_botocore() -> None:
    heavy = "{'torch', 'transformers', 'botocore'}"
    code = f"import sys, mixdpo.registry, mixdpo.registry.display; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root) == "set()\n"
