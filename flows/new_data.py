"""Tasks around new data: files that landed are taken, and what came of them is compared with an earlier version."""

from __future__ import annotations

from collections.abc import Callable

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows.tasks import RETRIES, StageResult, is_transient
from mixdpo.config import Params
from mixdpo.data.arrivals import Arrived, take
from mixdpo.layout import PROFILES, Layout
from mixdpo.stages.drift import HEADER, Compared, compare_with_version


@task(
    name="arrivals",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=is_transient,
)
def take_new(params: Params, layout: Layout) -> Arrived:
    """Take what landed since the last run into `inputs`.

    Raises:
        ValidationStop: a file is bad, and params.yaml says to refuse.
    """
    arrived = take(params, layout)
    tell_arrivals(arrived)
    return arrived


@task(
    name="drift",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=is_transient,
)
def check_drift(params: Params, layout: Layout, part: str) -> Compared:
    """Compare one part of the data with that of the version in use.

    Raises:
        ValidationStop: a column moved farther than params.yaml allows.
    """
    compared = compare_with_version(params, layout, part)
    tell_drift(compared)
    compared.refuse()
    return compared


def run_gated(
    run: Callable[[str | None], list[StageResult]], params: Params, layout: Layout
) -> tuple[StageResult, ...]:
    """All stages; where drift is watched, those below a part of the data only once that part was compared.

    Args:
        run: all stages that the one named is made from, and itself; all where none is.
    """
    done: dict[str, StageResult] = {}
    for part in PROFILES if params.drift is not None else ():
        done = {stage.name: stage for stage in run(f"describe-{part}")} | done
        check_drift(params, layout, part)
    return tuple(done.get(stage.name, stage) for stage in run(None))


def tell_arrivals(arrived: Arrived) -> None:
    """To the log, and as an artifact where there is anything to tell."""
    logger = get_run_logger()
    logger.info("%s: %s", arrived.location, arrived)
    files = arrived.batch.files if arrived.batch is not None else ()
    table = [{"file": each.source, "rows": each.rows, "state": "new", "why": ""} for each in files]
    for left in arrived.left:
        logger.warning("%s was not taken: %s", left.source, left.reason)
        state = "bad" if left.bad else "left"
        table.append({"file": left.source, "rows": None, "state": state, "why": left.reason})
    if table:
        create_table_artifact(table, key="arrivals", description=f"{arrived.location}: {arrived}")


def tell_drift(compared: Compared) -> None:
    """To the log, and as an artifact where two profiles were compared."""
    logger = get_run_logger()
    (logger.warning if compared.moved else logger.info)("%s", compared)
    if compared.shifts:
        table = [dict(zip(HEADER, row, strict=True)) for row in compared.rows]
        create_table_artifact(table, key=f"drift-{compared.part}", description=str(compared))
