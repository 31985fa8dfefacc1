"""`mixdpo drift`: how far the data here moved from those of the version in use."""

from __future__ import annotations

from pathlib import Path

import click

from mixdpo.errors import ValidationStop
from mixdpo.layout import PROFILES


@click.command(epilog="\b\nExamples:\n  mixdpo drift\n  mixdpo drift preferences\n")
@click.argument("part", type=click.Choice(PROFILES), default="reviews")
@click.pass_obj
@click.pass_context
def drift(ctx: click.Context, root: Path, part: str) -> None:
    """Compare PART of the data with that of the version that drift.against of params.yaml points to.

    Exit code 3: a column moved beyond drift.refuse.
    """
    from mixdpo.config import load_params
    from mixdpo.layout import Layout
    from mixdpo.registry.display import table
    from mixdpo.stages.drift import HEADER, compare_with_version

    compared = compare_with_version(load_params(root / "params.yaml"), Layout(root), part)
    click.echo(str(compared))
    if compared.shifts:
        click.echo(table(HEADER, compared.rows))
    ctx.exit(ValidationStop.exit_code if compared.of("refuse") else 0)


COMMANDS = [drift]
