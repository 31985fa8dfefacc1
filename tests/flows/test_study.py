"""A study through Prefect: trained by child processes, put together from the cache they share."""

from __future__ import annotations

import asyncio

import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.study import run_variants, study
from flows.tasks import CommandError
from mixdpo.layout import Layout
from mixdpo.studies.plan import plan

from ..studies.conftest import lay_out  # noqa: TID252 (tests are no package that could be named)

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = lay_out(tmp_path_factory.mktemp("flow"))
    text = layout.study_params.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values["experts"]["experts"] = [2]  # one variant, one child process
    layout.study_params.write_text(yaml.safe_dump(values), encoding="utf-8")
    return layout


async def artifact(key: str) -> str:
    async with get_client() as client:
        found = await client.read_latest_artifacts()
    return next(str(each.data) for each in found if each.key == key)


def test_variants_that_are_missing_are_trained_and_published(project: Layout) -> None:
    done = study("experts", root=project.root)
    assert plan(project, "experts").finished() == plan(project, "experts").trainings
    assert "log-likelihood" in done.summary
    assert [path.name for path in done.paths] == ["table.md", "rows.csv", "summary.json", "figure.png"]
    assert asyncio.run(artifact("study-experts")).startswith("What do fewer experts than tastes")
    assert project.study("experts").as_uri() in asyncio.run(artifact("study-experts-picture"))


def test_a_variant_that_fails_is_named_with_the_reason(project: Layout) -> None:
    with pytest.raises(CommandError, match="variant experts=9 of study experts failed with exit code 2") as caught:
        run_variants("experts", ["experts=9"], 1, project.root)
    assert "no variant of experts matches experts=9; it has" in str(caught.value)
