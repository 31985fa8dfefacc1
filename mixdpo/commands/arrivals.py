"""`mixdpo arrivals`: what landed since the last run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(epilog="\b\nExamples:\n  mixdpo arrivals\n  mixdpo arrivals --take\n")
@click.option("--take", "taking", is_flag=True, help="Take what is new into `inputs`, as a scheduled run does.")
@click.pass_obj
def arrivals(root: Path, taking: bool) -> None:
    """Look at the landing place of params.yaml: what is new, and what cannot be taken, and why."""
    from mixdpo.config import load_params
    from mixdpo.data.arrivals import look, take
    from mixdpo.data.expectations.verdict import counted
    from mixdpo.layout import Layout

    found = (take if taking else look)(load_params(root / "params.yaml"), Layout(root))
    click.echo(f"{found.location}: {found}")
    for arrival in found.batch.files if found.batch else ():
        click.echo(f"  {arrival.source}  {counted(arrival.rows, 'row')}")
    for left in found.left:
        click.echo(f"  {left.source}  {'bad' if left.bad else 'left'}: {left.reason}")


COMMANDS = [arrivals]
