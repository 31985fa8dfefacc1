"""What became of a run, and why, is told by its state on the server."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType

from flows.ending import told_by_state
from flows.retrain import Retrained, retrain
from flows.tasks import CommandError, StageResult
from mixdpo.errors import DataError, PromotionRefused, ValidationStop
from mixdpo.registry import Registry

pytestmark = pytest.mark.usefixtures("prefect_server")


@dataclass(frozen=True)
class Done:
    outcome: str = "Registered"
    reason: str = "reviews@v3; 2 ran"


@flow(name="ending")
@told_by_state
def ending(error: Exception | None = None) -> Done:
    if error is not None:
        raise error
    return Done()


def last_state() -> State:
    with get_client(sync_client=True) as client:
        [run] = client.read_flow_runs(limit=1, sort="START_TIME_DESC")  # type: ignore[arg-type]
    assert run.state is not None
    return run.state


def test_what_was_done_is_the_state_and_comes_back() -> None:
    assert ending() == Done()
    state = last_state()
    assert (state.type, state.name, state.message) == (StateType.COMPLETED, "Registered", "reviews@v3; 2 ran")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (PromotionRefused("worse on grammar"), "Refused"),
        (CommandError("stage validate-reviews", ValidationStop.exit_code, ["too many bad rows"]), "Refused"),
        (CommandError("stage sft", 1, ["no such column"]), "Failed"),
        (DataError("no such file"), "Failed"),
    ],
    ids=lambda value: str(value).split("\n")[0],
)
def test_an_error_is_the_state_and_is_raised(error: Exception, name: str) -> None:
    with pytest.raises(type(error)) as caught:
        ending(error)
    assert caught.value is error
    state = last_state()
    assert (state.type, state.name, state.message) == (StateType.FAILED, name, str(error))


def test_a_fault_of_the_code_stays_prefects() -> None:
    with pytest.raises(ZeroDivisionError):
        ending(ZeroDivisionError())
    assert last_state().name == "Failed"


def test_parameters_of_a_flow_are_still_seen() -> None:
    assert set(retrain.parameters.properties) == set(inspect.signature(retrain.fn).parameters)
    assert "stages run side by side" in str(retrain.parameters.properties["workers"])


def test_a_retraining_says_which_version_and_what_ran(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "mixture.json").write_text("{}", encoding="utf-8")
    stages = (StageResult("sft", "ran", 1.0), StageResult("report", "unchanged", 0.0))
    registry = Registry(tmp_path / "registry")
    first, again = (
        Retrained(stages, registry.register("reviews", tmp_path / "policy", {"seed": 0}, "staging", "test"), "")
        for _ in range(2)
    )
    assert (first.outcome, first.reason) == ("Registered", "reviews@v1 (staging); stages: 1 ran, 1 unchanged")
    assert again.outcome == "Nothing new"
    assert again.reason == "reviews@v1 (staging) has the same content already; stages: 1 ran, 1 unchanged"
    assert Retrained(stages, None, "").outcome == "Not registered"
