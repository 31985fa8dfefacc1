"""`mixdpo show | diff | lineage | log`: what versions are, and what happened to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixdpo.commands.artifacts import open_registry, registry_option
from mixdpo.errors import RegistryError

if TYPE_CHECKING:
    from mixdpo.registry import Registry, Version

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command(epilog="\b\nExamples:\n  mixdpo show reviews@staging\n  mixdpo show reviews@v3 --json\n")
@click.argument("reference")
@json_option
@registry_option
@click.pass_obj
def show(root: Path, reference: str, as_json: bool, location: str | None) -> None:
    """Tell all about the version that REFERENCE names now."""
    from mixdpo.registry import show as told

    registry = open_registry(root, location)
    version = registry.resolve(reference)
    packages = _packages(registry, version)
    arguments = (version, registry.signers(version), len(packages) if packages is not None else None)
    click.echo(_json(told.version_record(*arguments)) if as_json else told.version_text(*arguments))


@click.command(epilog="\b\nExamples:\n  mixdpo diff reviews@v3 reviews@v4\n  mixdpo diff reviews@production reviews\n")
@click.argument("before")
@click.argument("after")
@json_option
@registry_option
@click.pass_obj
def diff(root: Path, before: str, after: str, as_json: bool, location: str | None) -> None:
    """Tell what two versions differ in: parameters, data, code, figures, packages, files."""
    from mixdpo.registry.diff import difference, lineage_packages
    from mixdpo.registry.show import difference_text

    registry = open_registry(root, location)
    one, two = registry.resolve(before), registry.resolve(after)
    listed = [_packages(registry, each) for each in (one, two)]
    if None in listed:  # a full list against a short one would tell of the list alone
        listed = [lineage_packages(each.manifest) for each in (one, two)]
    found = difference(
        one.manifest, two.manifest, (listed[0] or {}, listed[1] or {}), (_terms(registry, one), _terms(registry, two))
    )
    click.echo(_json(found.record()) if as_json else difference_text(found, one.reference, two.reference))


@click.command(epilog="\b\nExample:\n  mixdpo lineage reviews@production\n")
@click.argument("reference")
@json_option
@registry_option
@click.pass_obj
def lineage(root: Path, reference: str, as_json: bool, location: str | None) -> None:
    """Tell where a version came from: data, reference, and the versions that its training went on from."""
    from mixdpo.registry.ancestry import ancestry, tree

    registry = open_registry(root, location)
    found = ancestry(registry.resolve(reference), registry.resolve)
    click.echo(_json(found.record()) if as_json else tree(found))


@click.command(epilog="\b\nExamples:\n  mixdpo log reviews\n  mixdpo log reviews 7\n")
@click.argument("name")
@click.argument("entry", type=click.IntRange(1), required=False)
@json_option
@registry_option
@click.pass_obj
def log(root: Path, name: str, entry: int | None, as_json: bool, location: str | None) -> None:
    """Tell all that happened to NAME, or ENTRY of it with what it was decided on."""
    from mixdpo.promotion.display import entry_text
    from mixdpo.registry import display

    history = open_registry(root, location).history(name)
    if entry is not None and entry > len(history.entries):
        raise RegistryError(f"the log of {name} ends at entry {len(history.entries)}; `mixdpo log {name}` shows it")
    chosen = history.entries if entry is None else history.entries[entry - 1 : entry]
    if as_json:
        click.echo(_json([each.model_dump(by_alias=True) for each in chosen]))
        return
    click.echo(display.history_table(history, chosen))
    if entry is not None and (text := entry_text(history, chosen[0])):
        click.echo(text)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _packages(registry: Registry, version: Version) -> dict[str, str] | None:
    """What was installed where the version was registered; None where it has no list, or not one."""
    from mixdpo.registry.diff import packages_of
    from mixdpo.registry.manifest import PACKAGES

    try:
        return packages_of(registry.read(version, PACKAGES))
    except (FileNotFoundError, ValueError):
        return None


def _terms(registry: Registry, version: Version) -> str | None:
    """Digest of the prompts and judges that the version was evaluated on."""
    from mixdpo.files import digest
    from mixdpo.registry.manifest import STANDING

    try:
        return digest(json.loads(registry.read(version, f"{STANDING}.json"))["terms"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


COMMANDS = [show, diff, lineage, log]
