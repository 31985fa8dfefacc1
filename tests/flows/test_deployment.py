"""prefect.yaml deploys to a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_deployments_are_accepted_with_schedule_and_limit() -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="mixdpo", type="process"))
    subprocess.run(
        (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PWD": str(ROOT)},
        check=True,
        capture_output=True,
    )
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/weekly")
    assert deployment.work_pool_name == "mixdpo"
    assert [schedule.schedule.cron for schedule in deployment.schedules] == ["0 3 * * 1"]
    assert deployment.parameters == {"workers": 2, "registration": True, "pull": False, "push": False}
    assert deployment.global_concurrency_limit.limit == 1
    assert deployment.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    # what the server offers people who start a run by hand
    assert set(deployment.parameter_openapi_schema["properties"]) == {
        *("workers", "registration", "pull", "push", "warm_start", "root")
    }
