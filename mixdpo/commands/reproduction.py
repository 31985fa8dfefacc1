"""`mixdpo reproduce`: a registered version made again, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixdpo.commands.artifacts import open_registry, registry_option, settings

if TYPE_CHECKING:
    from mixdpo.registry import Registry
    from mixdpo.reproduction import Comparison


@click.command(
    epilog="\b\nExamples:\n  mixdpo reproduce reviews@v3\n  mixdpo reproduce reviews ../again --tolerance 1e-4\n"
)
@click.argument("reference")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--commit", help="Commit to take the code from.  [default: the one that the version names]")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="By how much a figure may be off; other processors round otherwise.",
)
@click.option("--prepare-only", is_flag=True, help="Lay the clone out and stop.")
@click.option("--json", "as_json", is_flag=True, help="The comparison as JSON.")
@registry_option
@click.pass_obj
@click.pass_context
def reproduce(
    ctx: click.Context,
    root: Path,
    reference: str,
    directory: Path | None,
    commit: str | None,
    tolerance: float,
    prepare_only: bool,
    as_json: bool,
    location: str | None,
) -> None:
    """Make the version that REFERENCE names again, in a clone of its commit, and compare.

    DIRECTORY (default: NAME-vN beside this checkout) gets the code, params.yaml and inputs of the version; `dvc repro`
    computes all of it. Exit code 0 where the data is the same and no figure is off by more than the tolerance, else 1.
    Run it again to go on after an interruption.
    """
    from mixdpo.reproduction import origin_of, prepare, run

    registry = open_registry(root, location)
    origin = origin_of(registry, reference, commit)
    version = origin.version
    target = directory or root.resolve().parent / f"{version.name}-v{version.number}"
    click.echo(
        f"{version.reference}: commit {origin.commit[:12]}, profile {origin.params.profile} → {target}", err=True
    )
    code = prepare(origin, root, target, registry, _url(root, registry, location))
    for note in (*origin.notes, *(f"code differs from what it was made with: {path}" for path in code)):
        click.secho(f"note: {note}", fg="yellow", err=True)
    if prepare_only:
        click.echo(f"ready: `dvc repro` in {target}, with PYTHONPATH={target}, or this command again")
        return
    found = run(origin, target)
    click.echo(json.dumps(found.record(), indent=2) if as_json else told(found, tolerance))
    ctx.exit(0 if found.reproduced(tolerance) else 1)


def told(found: Comparison, tolerance: float) -> str:
    """The comparison for people: a line for each kind of thing, then the outcome."""
    lines = []
    for what, each in (("data", found.data), ("policy", found.policy), ("results", found.results)):
        others = [name for name, same in each.items() if not same]
        lines.append(f"{what:<8}  {len(each) - len(others)} of {len(each)} files the same to the byte")
        lines += [f"{'':<8}  other: {name}" for name in others]
    if found.apart is not None:
        figure, registered, now = found.apart
        lines.append(f"{'figures':<8}  furthest apart: {figure}, registered {registered}, now {now}")
    if found.identical:
        lines.append("reproduced: the same to the byte")
    elif found.reproduced(tolerance):
        lines.append("reproduced: the same data, and all figures within the tolerance")
    else:
        lines.append("not reproduced")
    return "\n".join(lines)


def _url(root: Path, registry: Registry, location: str | None) -> str | None:
    """What params.yaml of the clone is to call the registry in use: a path that is relative means another one there."""
    place = registry.store.location
    if Path(place).is_absolute():
        return place
    given = settings(root)
    return location or (given.url if given else None)


COMMANDS = [reproduce]
