"""`mixdpo study`: questions to the method, each a grid of small trainings."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(
    epilog="""\b
Examples:
  mixdpo study list
  mixdpo study run experts
  mixdpo study run collapse --seeds 1 --only beta=0.3,temperature=1.0
"""
)
def study() -> None:
    """Run studies: a grid of small trainings each, with a table and a picture."""


@study.command("list", epilog="\b\nExample:\n  mixdpo study list\n")
@click.pass_obj
def list_studies(root: Path) -> None:
    """Say which studies there are, and how many of their trainings are finished."""
    from mixdpo.errors import DataError
    from mixdpo.layout import Layout
    from mixdpo.studies.catalogue import MODULES
    from mixdpo.studies.plan import plan

    for name in MODULES:
        planned = plan(Layout(root), name)
        try:
            done = len(planned.finished())
        except DataError:  # the pipeline has not run yet
            done = 0
        click.echo(f"{name:<15} {done:>3} of {len(planned.trainings):>3} trainings done   {planned.study.question}")


@study.command(
    "run",
    epilog="\b\nExamples:\n  mixdpo study run gates\n  mixdpo study run experts --only experts=3 --only experts=4\n",
)
@click.argument("name")
@click.option("--seeds", type=click.IntRange(1), help="Seeds 0 to N-1.  [default: as in studies/params.yaml]")
@click.option(
    "--only",
    multiple=True,
    metavar="AXIS=VALUE[,…]",
    help="Run a part of the grid; its table is shown, the study's results stay as they are.",
)
@click.pass_obj
def run(root: Path, name: str, seeds: int | None, only: tuple[str, ...]) -> None:
    """Run study NAME. Trainings that were finished before, with the same values, data and code, are not repeated."""
    from mixdpo.layout import Layout
    from mixdpo.studies.plan import plan
    from mixdpo.studies.report import plain_table, write_results

    layout = Layout(root)
    planned = plan(layout, name, seeds, only)
    results = planned.run(lambda line: click.echo(line, err=True))
    click.echo(f"{planned.study.question}\n\n{plain_table(planned.study, results)}\n")
    if only:
        click.echo("a part of the grid: the study's results were not written")
        return
    for path in write_results(planned.study, results, layout):
        click.echo(f"wrote {path}")


COMMANDS = [study]
