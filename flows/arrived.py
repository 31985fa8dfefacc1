"""Tells Prefect's server that new data has arrived: retrain/weekly then runs at once.

python -m flows.arrived [WHAT]
"""

from __future__ import annotations

import click
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL

from flows.command import told
from mixdpo.errors import ConfigError

EVENT = "mixdpo.data.arrived"  # as in prefect.yaml


@click.command(help=(__doc__ or "").split("\n")[0])
@click.argument("what", default="new data")
def main(what: str) -> None:
    with told():
        if not PREFECT_API_URL.value():
            raise ConfigError("no server is named; set PREFECT_API_URL, as in http://127.0.0.1:4200/api")
    emit_event(event=EVENT, resource={"prefect.resource.id": "mixdpo.data", "prefect.resource.name": what})
    EventsWorker.drain_all(timeout=30)  # it is sent by a thread that would end with this process
    click.echo(f"told the server: {EVENT} ({what})")


if __name__ == "__main__":
    main()
