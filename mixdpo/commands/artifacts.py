"""`mixdpo list | pull | verify`: the shared registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mixdpo.config.outcome import Registry as Settings
    from mixdpo.registry import Registry

registry_option = click.option(
    "--registry",
    "location",
    help="Directory or s3://BUCKET/PREFIX.  [default: params.yaml here, else $MIXDPO_REGISTRY, else the user's own]",
)


def open_registry(root: Path, location: str | None) -> Registry:
    """The registry that a command means: the option, this project's, the environment's, the user's own.

    A relative location is taken from the project's directory, as the `register` stage takes it.
    """
    from mixdpo import registry

    return registry.open_registry(settings(root), root, location)


def settings(root: Path) -> Settings | None:
    """`registry` of params.yaml; None outside a project."""
    from mixdpo.config import load_params

    path = root / "params.yaml"
    return load_params(path).registry if path.is_file() else None


@click.command("list", epilog="\b\nExamples:\n  mixdpo list\n  mixdpo list reviews\n")
@click.argument("name", required=False)
@registry_option
@click.pass_obj
def list_(root: Path, name: str | None, location: str | None) -> None:
    """List the versions that are registered, all or those of NAME."""
    from mixdpo.registry.display import list_table

    click.echo(list_table(open_registry(root, location), name))


@click.command(epilog="\b\nExamples:\n  mixdpo pull reviews@staging\n  mixdpo pull reviews@v3 ./there\n")
@click.argument("reference")
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@registry_option
@click.pass_obj
def pull(root: Path, reference: str, directory: Path | None, location: str | None) -> None:
    """Fetch a version, every byte verified, into DIRECTORY (default: ./NAME)."""
    registry = open_registry(root, location)
    target = directory or Path(reference.split("@")[0])
    click.echo(f"wrote {registry.pull(reference, target)}")


@click.command(epilog="\b\nExample:\n  mixdpo verify reviews\n")
@click.argument("name")
@registry_option
@click.pass_obj
def verify(root: Path, name: str, location: str | None) -> None:
    """Read everything that is registered as NAME again and compare it with its digests."""
    found = open_registry(root, location).verify(name)
    click.echo(
        f"{name} is whole: {found.entries} log entries, {found.versions} versions, "
        f"{found.blobs} files, {found.size / 2**20:.1f} MiB"
    )


COMMANDS = [list_, pull, verify]
