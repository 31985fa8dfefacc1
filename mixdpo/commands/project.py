"""`mixdpo profile`: the values that the project directory holds."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import click

from mixdpo.errors import ConfigError


def _profiles(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((root / "profiles").glob("*.yaml"))}


@click.group(epilog="\b\nExamples:\n  mixdpo profile show\n  mixdpo profile use reviews\n")
def profile() -> None:
    """Choose a ready-made params.yaml."""


@profile.command("use", epilog="\b\nExamples:\n  mixdpo profile use demo\n  mixdpo profile use imdb --force\n")
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace a params.yaml that was edited by hand.")
@click.pass_obj
def use(root: Path, name: str, force: bool) -> None:
    """Copy profiles/NAME.yaml to params.yaml."""
    from mixdpo.config import load_params

    known = _profiles(root)
    if name not in known:
        raise ConfigError(f"there is no profile {name!r} in {root / 'profiles'}; choose one of {', '.join(known)}")
    load_params(known[name])
    target = root / "params.yaml"
    edited = target.is_file() and not any(filecmp.cmp(target, path, shallow=False) for path in known.values())
    if edited and not force:
        raise ConfigError(
            f"{target} differs from every profile, so it holds edits of yours; keep them with "
            f"`cp params.yaml profiles/mine.yaml` (and set its `profile: mine`), or give --force"
        )
    shutil.copyfile(known[name], target)
    click.echo(f"params.yaml is now profile {name}; `make run` or `dvc repro` runs it")


@profile.command("show", epilog="\b\nExample:\n  mixdpo profile show\n")
@click.pass_obj
def show(root: Path) -> None:
    """List the profiles and say which one params.yaml is."""
    from mixdpo.config import load_params

    target = root / "params.yaml"
    current = load_params(target).profile if target.is_file() else None
    for name, path in _profiles(root).items():
        same = target.is_file() and filecmp.cmp(target, path, shallow=False)
        mark = "in use" if same else "in use, edited" if name == current else ""
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        click.echo(f"{name:<12} {mark:<15} {first}")


COMMANDS = [profile]
