"""Stages run through Prefect in DVC's order: skipped, stopped, retried and ended as they should be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from dvc.repo import Repo
from prefect import flow, task
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from flows.process import Children
from flows.tasks import RETRIES, CommandError, StageResult, is_transient, run_stages, transfer
from mixdpo.errors import TransientError
from mixdpo.registry import Registry
from mixdpo.registry.location import registry_location

from .test_process import alive, until, written_pid

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # pygtrie, which DVC uses, warns of its own future
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),
]

# each stage notes that it ran in a file that DVC does not know
CHAIN = """
    first: {cmd: echo first >> ran && echo 1 > first.txt, outs: [first.txt]}
    left: {cmd: echo left >> ran && cat first.txt > left.txt, deps: [first.txt], outs: [left.txt]}
    right: {cmd: echo right >> ran && cat first.txt > right.txt, deps: [first.txt], outs: [right.txt]}
    last: {cmd: echo last >> ran && cat left.txt right.txt > last.txt, deps: [left.txt, right.txt], outs: [last.txt]}
"""
PAIR = """
    first: {cmd: echo first >> ran && echo 1 > first.txt, outs: [first.txt]}
    second: {cmd: echo second >> ran && cat first.txt > second.txt, deps: [first.txt], outs: [second.txt]}
"""


def run(root: Path, workers: int = 2) -> list[StageResult]:
    bounded = run_stages.with_options(task_runner=ThreadPoolTaskRunner(max_workers=workers))
    return bounded(root, backoff_seconds=0.1)


def ran(root: Path) -> list[str]:
    return (root / "ran").read_text().split() if (root / "ran").is_file() else []


def test_order_is_obeyed_and_a_second_run_runs_nothing(make_project: Callable[[str], Path]) -> None:
    root = make_project(CHAIN)
    first = run(root)
    assert {result.outcome for result in first} == {"ran"}
    assert ran(root)[0] == "first"
    assert ran(root)[-1] == "last"
    assert sorted(ran(root)) == ["first", "last", "left", "right"]

    second = run(root)
    assert [result.name for result in second] == [result.name for result in first]
    assert {(result.outcome, result.seconds) for result in second} == {("unchanged", 0.0)}
    assert len(ran(root)) == 4


def test_what_the_cache_has_is_restored(make_project: Callable[[str], Path]) -> None:
    root = make_project(PAIR)
    run(root)
    (root / "dvc.lock").unlink()
    outcomes = {result.name: result.outcome for result in run(root)}
    # DVC keeps no runs of stages that read nothing
    assert outcomes == {"first": "ran", "second": "restored"}
    assert ran(root) == ["first", "second", "first"]


def test_stages_that_can_run_side_by_side_do(make_project: Callable[[str], Path]) -> None:
    # each waits for the other: one after the other, neither would end
    meeting = """
        {0}:
          cmd: touch {0}.here; timeout 30 sh -c 'until [ -e {1}.here ]; do sleep 0.05; done' && echo > {0}.txt
          outs: [{0}.txt]
    """
    root = make_project(meeting.format("a", "b") + meeting.format("b", "a"))
    assert {result.outcome for result in run(root)} == {"ran"}


def test_a_failure_stops_what_depends_on_it_and_shows_its_last_lines(make_project: Callable[[str], Path]) -> None:
    apart = "apart: {cmd: echo apart >> ran && echo 1 > apart.txt, outs: [apart.txt]}"
    root = make_project(PAIR.replace("echo 1 > first.txt", "echo no such column >&2; exit 1") + "    " + apart)
    with pytest.raises(CommandError) as caught:
        run(root)
    message = str(caught.value)
    assert message.startswith("stage first failed with exit code 1. Its last lines:\n")
    assert "    no such column\n" in message
    assert message.endswith("Mend the cause and run again: what was finished is kept.")
    assert sorted(ran(root)) == ["apart", "first"]


@pytest.mark.parametrize(("code", "attempts"), [(75, 3), (1, 1)])
def test_only_transient_failures_are_tried_again(make_project: Callable[[str], Path], code: int, attempts: int) -> None:
    # fails twice, then would succeed
    root = make_project(
        f"hub: {{cmd: 'echo hub >> ran; [ $(wc -l < ran) -ge 3 ] || exit {code}; echo 1 > hub.txt', outs: [hub.txt]}}"
    )
    if code == 75:
        assert [result.outcome for result in run(root)] == ["ran"]
    else:
        with pytest.raises(CommandError, match=f"^stage hub failed with exit code {code}"):
            run(root)
    assert len(ran(root)) == attempts


def test_a_store_that_does_not_answer_is_asked_again_with_more_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    with socket.socket() as probe:  # a port where nobody listens
        probe.bind(("127.0.0.1", 0))
        registry = Registry(registry_location(f"s3://shared/x?endpoint=http://127.0.0.1:{probe.getsockname()[1]}"))
        asked: list[float] = []

        @task(retries=RETRIES, retry_delay_seconds=exponential_backoff(0.2), retry_condition_fn=is_transient)
        def ask() -> None:
            asked.append(time.monotonic())
            registry.names()

        @flow(name="ask-a-store")
        def ask_a_store() -> None:
            ask()

        with pytest.raises(TransientError, match=r"Could not connect to the endpoint URL"):
            ask_a_store()
    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert len(asked) == 1 + RETRIES
    assert waits[0] >= 0.2
    assert waits[2] >= 0.8


def test_lines_are_logged_while_the_stage_runs(
    make_project: Callable[[str], Path], task_log: list[tuple[float, str]]
) -> None:
    run(make_project("slow: {cmd: echo early; sleep 0.5; echo late; echo > out.txt, outs: [out.txt]}"))
    at = {message: seconds for seconds, message in task_log}
    assert at["late"] - at["early"] > 0.4
    assert not [message for message in at if "git add" in message]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_flow_leaves_no_stage_alive(make_project: Callable[[str], Path], how: signal.Signals) -> None:
    root = make_project("endless: {cmd: echo $$ > pid; sleep 300, outs: [out.txt]}")
    code = "import sys; from pathlib import Path; from flows.tasks import run_stages; run_stages(Path(sys.argv[1]))"
    process = subprocess.Popen(
        (sys.executable, "-c", code, str(root)),
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        stderr=subprocess.DEVNULL,
        # where the tests run in the background, Ctrl-C is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = written_pid(root / "pid")
    process.send_signal(how)
    assert process.wait(30) != 0
    assert until(lambda: not alive(pid))


@flow(name="move")
def move(direction: Literal["pull", "push"], root: Path) -> None:
    with Children() as children:
        transfer(direction, root, children)


def test_what_one_machine_pushed_another_restores(make_project: Callable[[str], Path], tmp_path: Path) -> None:
    root = make_project("only: {cmd: echo only >> ran && cat data.txt > out.txt, deps: [data.txt], outs: [out.txt]}")
    with (root / ".dvc" / "config").open("a") as config:
        config.write(f"[core]\n    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n")
    (root / "data.txt").write_text("rows")
    with Repo(str(root)) as repo:
        repo.add(str(root / "data.txt"))
    run(root)
    move("push", root)

    # another machine: the same sources, nothing computed
    for path in (root / "data.txt", root / "out.txt", root / "dvc.lock", root / "ran"):
        path.unlink()
    shutil.rmtree(root / ".dvc" / "cache")
    move("pull", root)
    assert [result.outcome for result in run(root)] == ["restored"]
    assert (root / "out.txt").read_text() == "rows"
    assert ran(root) == []


def test_a_transfer_without_remote_says_so(make_project: Callable[[str], Path]) -> None:
    root = make_project("only: {cmd: echo > out.txt, outs: [out.txt]}")
    with pytest.raises(CommandError, match=r"^dvc push failed with exit code 1(.|\n)*no remote specified"):
        move("push", root)
