"""Every night: what would the next run meet? Files that landed, the gate on reviews, drift. Nothing is trained.

    python -m flows.check [--root DIRECTORY]

What would stop the next run stops this one, with the same words; what would only be told ends it in a state Warned,
and an event mixdpo.data.warned that an automation can act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.tasks import exponential_backoff

from flows.command import told
from flows.ending import told_by_state
from flows.new_data import tell_arrivals, tell_drift
from flows.server import server
from flows.tasks import RETRIES, is_transient
from mixdpo.config import Params, load_params
from mixdpo.data.arrivals import Arrived
from mixdpo.data.rehearsal import rehearsed
from mixdpo.errors import ValidationStop
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.stages import describe, prepare, validate
from mixdpo.stages.drift import Compared, compare_with_version

WARNED = "mixdpo.data.warned"


@dataclass(frozen=True)
class Checked:
    """What the next run would meet."""

    arrived: Arrived | None  # None where no place is named
    compared: Compared | None  # None where drift is not watched
    warnings: tuple[str, ...]

    @property
    def outcome(self) -> Literal["Clean", "Warned"]:
        return "Warned" if self.warnings else "Clean"

    @property
    def reason(self) -> str:
        parts = [str(each) for each in (self.arrived, self.compared) if each is not None]
        return "; ".join([*parts, *self.warnings]) or "the reviews pass their gate"


@flow(name="check-data", persist_result=False)
@told_by_state
def check_data(root: Path = Path()) -> Checked:
    """What the next run would meet: files that landed, the gate on reviews, and drift.

    Args:
        root: the project's directory.

    Raises:
        ValidationStop: the next run would be refused. MixDPOError: the project does not fit, or no store answers.
    """
    layout = Layout(root.resolve())
    checked = rehearse(load_params(layout.root / "params.yaml"), layout)
    if checked.warnings:
        emit_event(
            event=WARNED,
            resource={"prefect.resource.id": f"mixdpo.project.{layout.root.name}"},
            payload={"warnings": list(checked.warnings)},
        )
    return checked


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=is_transient,
)
def rehearse(params: Params, layout: Layout) -> Checked:
    """Run the data stages as far as the gate on reviews, beside the project, on what a run would read now.

    Raises:
        ValidationStop: a file is bad and is to be refused, the gate stops, or the data drifted too far.
    """
    with rehearsed(params, layout) as (values, place, arrived):
        if arrived is not None:
            tell_arrivals(arrived)
            if arrived.bad and params.arrivals is not None and params.arrivals.bad == "refuse":
                raise ValidationStop(arrived.refusal)
        prepare.run(values, place)
        validate.run(values, place, "reviews")
        compared = None
        if params.drift is not None:
            [profile] = describe.run(values, place, "reviews")
            compared = compare_with_version(params, layout, "reviews", profile)
            tell_drift(compared)
            compared.refuse()
    return Checked(arrived, compared, tuple(_warnings(arrived, compared, place)))


def _warnings(arrived: Arrived | None, compared: Compared | None, place: Layout) -> list[str]:
    bad = [f"{each.source} is bad: {each.reason}" for each in arrived.bad] if arrived is not None else []
    rules = [
        f"{rule['name']}: expected that {rule['expects']}"
        for rule in read_json(place.metrics("validation-reviews"))["expectations"]
        if rule["severity"] == "warning" and rule["success"] is False
    ]
    moved = [f"{each.name} moved: {each.told}" for each in compared.moved] if compared is not None else []
    return bad + rules + moved


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--root", default=".", type=click.Path(file_okay=False, path_type=Path), help="The project's directory.")
def main(root: Path) -> None:
    with told(), server():
        done = check_data(root=root)
    click.echo(f"\n{done.outcome}: {done.reason}")


if __name__ == "__main__":
    main()
