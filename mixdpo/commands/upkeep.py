"""`mixdpo repair | gc`: what keeps a registry whole and small."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mixdpo.commands.artifacts import open_registry, registry_option


@click.command(epilog="\b\nExamples:\n  mixdpo repair reviews\n  mixdpo repair reviews --from data/policies/moe\n")
@click.argument("name")
@click.option(
    "--from",
    "places",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A directory with copies: a policy that was registered or pulled, or a copy of the registry. May be repeated.",
)
@registry_option
@click.pass_obj
def repair(root: Path, name: str, places: tuple[Path, ...], location: str | None) -> None:
    """Put back what is lost or damaged of NAME, from copies and from the cache; each is known by its digest."""
    done = open_registry(root, location).repair(name, places)
    for each in done.mended:
        click.echo(f"put back {each.key}")
    for each in done.left:
        click.echo(each.message, err=True)
    click.echo(f"{name}: {len(done.mended)} put back, {len(done.left)} left")
    if done.left:
        click.echo("No copy of the rest was found: name more directories with --from.", err=True)
        sys.exit(1)


@click.command(epilog="\b\nExamples:\n  mixdpo gc\n  mixdpo gc --grace-days 30 --delete\n")
@click.option(
    "--grace-days", type=click.FloatRange(min=0), default=7.0, show_default=True, help="How old garbage must be."
)
@click.option("--delete", is_flag=True, help="Remove it; without, it is only listed.")
@registry_option
@click.pass_obj
def gc(root: Path, grace_days: float, delete: bool, location: str | None) -> None:
    """List, or remove, what no version refers to and no running registration needs."""
    from mixdpo.registry.collect import collect

    found = collect(open_registry(root, location).store, delete, grace_days * 86400)
    for each in found.garbage:
        click.echo(f"{each.size:>14,}  {each.key}{' (never finished)' if each.upload else ''}")
    size = sum(each.size for each in found.garbage) / 2**20
    click.echo(f"{'removed' if delete else 'garbage:'} {len(found.garbage)} files, {size:.1f} MiB")
    if found.young or found.leased:
        young = f"{len(found.young)} younger than {grace_days:g} days"
        click.echo(f"kept: {young}, {len(found.leased)} that a running registration needs")
    if found.garbage and not delete:
        click.echo("nothing was removed; --delete does that")


COMMANDS = [repair, gc]
