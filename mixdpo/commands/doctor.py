"""`mixdpo doctor`: what on this machine or in this project would stop a run, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mixdpo.doctor import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(epilog="\b\nExample:\n  mixdpo doctor\n")
@click.pass_obj
@click.pass_context
def doctor(ctx: click.Context, root: Path) -> None:
    """Check machine and project, and say what to mend; exit code 1 where a run would fail."""
    from mixdpo.doctor import examine

    states = []
    for finding in examine(root):
        states.append(finding.state)
        show(finding)
    failed, warned = states.count("fail"), states.count("warn")
    click.echo(f"\n{len(states)} checks: {failed} failed, {warned} with a warning")
    ctx.exit(1 if failed else 0)


def show(finding: Finding) -> None:
    state = click.style(f"{finding.state:<4}", fg=COLOURS[finding.state])
    first, *others = finding.found.splitlines() or [""]
    click.echo(f"{state}  {finding.what:<10}  {first}")
    for line in others:
        click.echo(f"{'':18}{line}")
    if finding.remedy:
        click.echo(f"{'':18}→ {finding.remedy}")


COMMANDS = [doctor]
