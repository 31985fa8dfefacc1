from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.registry import registry_location
from mixdpo.registry.location import cache_directory
from mixdpo.registry.s3_location import S3Location


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
    monkeypatch.setenv("MIXDPO_REGISTRY", "s3://team")
    assert registry_location() == S3Location("team")
    assert registry_location("/srv/registry") == Path("/srv/registry")


def test_a_bucket_is_named_with_its_prefix_and_options() -> None:
    assert registry_location("s3://team-models/a/b/", Path("/project")) == S3Location("team-models", "a/b")
    query = "endpoint=https%3A%2F%2Fs3.example.org:9000&region=eu-north-1&checksums=when_required"
    whole = registry_location(f"s3://team/models?{query}")
    assert whole == S3Location("team", "models", "https://s3.example.org:9000", "eu-north-1", "when_required")
    assert registry_location("s3://team?endpoint=http://127.0.0.1:8333") == S3Location(
        "team", "", "http://127.0.0.1:8333"
    )
    assert str(whole) == "s3://team/models"


def test_a_key_is_below_the_prefix() -> None:
    for where, full in ((S3Location("b"), "log/a"), (S3Location("b", "team/models"), "team/models/log/a")):
        assert where.full_key("log/a") == full
        assert where.own_key(full) == "log/a"
        assert where.object("log/a") == {"Bucket": "b", "Key": full}


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("s3://ab/x", "'ab' is no name of a bucket"),
        ("s3://Upper/x", "'Upper' is no name of a bucket"),
        ("s3:///x", "'' is no name of a bucket"),
        ("s3://team/../x", "'../x' is no prefix"),
        ("s3://team/a//b", "'a//b' is no prefix"),
        ("s3://team/a b", "'a b' is no prefix"),
        ("s3://team/x?endpont=https://h", "endpont is no option"),
        ("s3://team/x#y", "#y is no option"),
        ("s3://team/x?endpoint=host:80", "the endpoint is no http:// or https:// URL"),
        ("s3://team/x?endpoint=https://user:pass@host", "the endpoint is no http:// or https:// URL"),
        ("s3://team/x?checksums=never", "checksums is 'never', expected one of when_supported, when_required"),
    ],
)
def test_a_bucket_that_cannot_be_is_refused(url: str, fault: str) -> None:
    with pytest.raises(RegistryError) as error:
        registry_location(url)
    assert str(error.value).startswith(f"registry.url is not a place in S3: {fault}")
    assert "expected s3://BUCKET/PREFIX?endpoint=" in str(error.value)
    assert "pass" not in str(error.value)


def test_credentials_in_the_url_are_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXDPO_REGISTRY", "s3://AKIDEXAMPLE:wJalrXUtnFEMI@team/models")
    with pytest.raises(RegistryError, match=r"^\$MIXDPO_REGISTRY holds credentials; they come from the env") as error:
        registry_location()
    assert not re.search("AKID|wJalr", str(error.value))


def test_other_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "is a place of the kind https:, but only directories and buckets"
    with pytest.raises(RegistryError, match=rf"^registry\.url {message}"):
        registry_location("https://host/registry")
    monkeypatch.setenv("MIXDPO_REGISTRY", "https://host/registry")
    with pytest.raises(RegistryError, match=rf"^\$MIXDPO_REGISTRY {message}"):
        registry_location()
