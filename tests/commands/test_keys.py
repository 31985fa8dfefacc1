"""Keys and signatures from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.registry import Registry
from mixdpo.registry.variables import SIGNER, TRUSTED

ROOT = Path(__file__).parents[2]
Cli = Callable[..., Result]


@pytest.fixture
def mixdpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in a project whose registry, beside it, has an unsigned reviews@v1."""
    for name in (SIGNER, TRUSTED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "mixture.json").write_text("{}", encoding="utf-8")
    Registry(tmp_path / "shared").register("reviews", tmp_path / "policy", {"schema": 1}, "staging", "for the test")
    ask(None)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def ask(signing: dict[str, object] | None) -> None:
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    values["registry"] |= {"url": "shared", "signing": signing}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def test_a_version_is_signed_and_then_used(mixdpo: Cli) -> None:
    made = mixdpo("keygen", "secret/key.pem")
    assert made.exit_code == 0, made.output
    public = made.stdout.strip()
    ask({"key": "secret/key.pem", "required": True, "trusted": [public]})
    refused = mixdpo("pull", "reviews@staging", "there")
    assert refused.exit_code == 1
    assert "is not signed by a trusted key, nor by anyone else" in refused.stderr
    assert not Path("there").exists()
    assert mixdpo("sign", "reviews@staging").stdout == f"signed reviews@v1 as {public}\n"
    assert mixdpo("sign", "reviews@v1").stdout == f"reviews@v1 is signed by {public} already\n"
    assert mixdpo("pull", "reviews@staging", "there").exit_code == 0


def test_a_key_comes_from_the_option_or_the_environment(mixdpo: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = mixdpo("sign", "reviews")
    assert refused.exit_code == 2
    assert "there is no key to sign with; give --key" in refused.stderr
    keys = {name: mixdpo("keygen", name).stdout.strip() for name in ("ann.pem", "bob.pem")}
    monkeypatch.setenv(SIGNER, Path("ann.pem").read_text(encoding="ascii"))
    signed = mixdpo("sign", "reviews")
    assert signed.stdout == f"signed reviews@v1 as {keys['ann.pem']}\n"
    assert mixdpo("sign", "reviews", "--key", "bob.pem").stdout == f"signed reviews@v1 as {keys['bob.pem']}\n"
    assert "PRIVATE KEY" not in signed.output


def test_a_key_that_others_may_read_signs_nothing(mixdpo: Cli) -> None:
    mixdpo("keygen", "key.pem")
    Path("key.pem").chmod(0o644)
    refused = mixdpo("sign", "reviews", "--key", "key.pem")
    assert refused.exit_code == 1
    assert "chmod 600" in refused.stderr
    assert mixdpo("keygen", "key.pem").exit_code == 1
