from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.registry import Version, registry_location, resolve_policy
from mixdpo.registry.location import cache_directory


def test_the_registry_is_where_the_nearest_setting_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert registry_location() == tmp_path / "share/mixdpo/registry"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/ignored")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert registry_location(None) == tmp_path / "home/.local/share/mixdpo/registry"
    assert cache_directory() == tmp_path / "home/.cache/mixdpo"
    monkeypatch.setenv("MIXDPO_REGISTRY", "/srv/registry")
    assert registry_location() == Path("/srv/registry")
    assert registry_location("~/models") == tmp_path / "home/models"
    assert registry_location("file:///srv/other") == Path("/srv/other")
    assert registry_location("shared") == tmp_path / "shared"
    assert registry_location("shared", Path("/project")) == Path("/project/shared")


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "https://host/registry"])
def test_other_places_than_directories_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "is {0}, but this version of mixdpo keeps registries in directories only, not at {1}; give a path"
    scheme = url.split("/")[0]
    with pytest.raises(RegistryError, match=r"^registry\.url " + message.format(url, scheme)):
        registry_location(url)
    monkeypatch.setenv("MIXDPO_REGISTRY", url)
    with pytest.raises(RegistryError, match=r"^\$MIXDPO_REGISTRY " + message.format(url, scheme)):
        registry_location()


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


def test_the_registry_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, mixdpo.registry, mixdpo.registry.display; print({'torch', 'transformers'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root) == "set()\n"
