"""kill -9 of a publisher and of a promotion anywhere: nothing half-published, and the re-run completes.

One process imports everything once and forks a victim for each point. The victim's opens, links, removals and requests
are audit events; at one of them it is killed, or a moment later, when a request is on its way.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixdpo.registry import Registry, State
from mixdpo.registry.collect import collect
from mixdpo.registry.location import registry_location

from .servers import CLIENT

POINTS = {"directory": 30, "bucket": 15}

NURSERY = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
from mixdpo.registry import Registry, registry_location
from mixdpo.registry.decision import Decision, Rules, Ruling
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_client import connect

connect(S3Location("bucket"))  # its victims need not read botocore's description of S3 then

RULES = Rules(delta=0.05, confidence=0.95, must_beat=1, comparisons=8, refuse="any", validation="clean")

def allow(champion):
    evidence = json.dumps({"champion": champion and champion.digest}).encode() * 100
    decision = Decision(passed=True, forced=False, reasons=(), rules=RULES, champion=champion and champion.digest,
        styles={}, findings=(), validation=(), prompts=None, judges=None, evidence=hashlib.sha256(evidence).hexdigest())
    return Ruling(decision, evidence)

def act(task, moment):
    registry, events = Registry(registry_location(task["location"])), 0
    challenger = registry.resolve(task["promote"]) if "promote" in task else None

    def count(event, arguments):
        nonlocal events
        if event == "open" or event.startswith("os.") or event == "http.client.send":
            events += 1
            committing = event == "os.link" and "/log/" in str(arguments[1])
            if events == task["last"] or (committing and task["commit"] == "before"):
                if task["pause"]:
                    os.write(moment, b"!")
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            if committing and task["commit"] == "after":
                task["last"] = events + 1

    sys.addaudithook(count)
    if challenger is not None:
        registry.promote(challenger, "production", "killed now and then", allow)
    else:
        registry.register(task["name"], Path(task["policy"]), {"task": task["policy"]}, "staging", "killed at times")
    return events

for line in sys.stdin:
    task = json.loads(line)
    (reading, moment), (result, answer) = os.pipe(), os.pipe()
    if (victim := os.fork()) == 0:
        os.write(answer, str(act(task, moment)).encode())
        os._exit(0)
    os.close(moment), os.close(answer)
    if os.read(reading, 1):
        time.sleep(task["pause"])
        os.kill(victim, signal.SIGKILL)
    _, status = os.waitpid(victim, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), os.read(result, 100).decode()]), flush=True)
    os.close(reading), os.close(result)
"""


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", NURSERY]
    root = Path(__file__).parents[2]
    environment, pipe = {**os.environ, **CLIENT}, subprocess.PIPE
    with subprocess.Popen(command, cwd=root, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def run(nursery: subprocess.Popen[str]) -> Callable[..., tuple[int, int]]:
    """run(…, last, pause): a victim's exit status, and how many events it had where it lived to the end."""

    def run(last: int = 0, pause: float = 0.0, commit: str = "", **task: Any) -> tuple[int, int]:
        task |= {"last": last, "pause": pause, "commit": commit}
        nursery.stdin.write(json.dumps(task) + "\n")  # type: ignore[union-attr]
        nursery.stdin.flush()  # type: ignore[union-attr]
        status, events = json.loads(nursery.stdout.readline())  # type: ignore[union-attr]
        return status, int(events or 0)

    return run


@pytest.fixture(params=["directory", "bucket"])
def url(request: pytest.FixtureRequest, location: Path) -> str:
    if request.param == "directory":
        return str(location)
    bucket = request.getfixturevalue("bucket")
    return f"{bucket}?endpoint={bucket.endpoint}"


def test_a_killed_writer_leaves_nothing_half_and_the_rerun_completes(
    url: str,
    run: Callable[..., tuple[int, int]],
    new_policy: Callable[..., Path],
    contents_of: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    chance, registry = random.Random(url.startswith("s3")), Registry(registry_location(url))
    steps: dict[str, int] = {}
    done: dict[str, tuple[int, int]] = {}  # name → registrations and promotions that are through
    points = POINTS["bucket" if url.startswith("s3") else "directory"]
    for point in range(-2, points):  # the first two are not killed, so that their steps are counted
        name = f"reviews-{max(point, 0) // 10}"  # short logs are soon read
        registered, promoted = done.get(name, (0, 0))
        challengers = versions_but(registry.history(name), "production") if registered else []
        kind = "promote" if challengers and point % 3 != 0 else "register"
        if kind == "register":
            policy = new_policy(tmp_path / f"policy-{point}", seed=point + 2)
            task: dict[str, Any] = {"location": url, "name": name, "policy": str(policy)}
        else:
            task = {"location": url, "promote": f"{name}@v{chance.choice(challengers)}"}
        if point < 0:
            status, steps[kind] = run(**task)
            assert status == 0
        else:
            status, _ = run(chance.randint(1, steps[kind]), chance.choice([0.0, chance.uniform(0, 0.02)]), **task)
            assert status in (-signal.SIGKILL, 0)  # it may have been through before the pause was over
            if name in registry.names():
                assert done.get(name, (0, 0)) <= counts(registry.history(name)) <= (registered + 1, promoted + 1)
            assert run(**task)[0] == 0
        done[name] = (registered + (kind == "register"), promoted + (kind == "promote"))
        assert counts(registry.history(name)) == done[name]
    assert steps.keys() == {"register", "promote"}
    whole = [registry.verify(name) for name in done]
    collect(registry.store, delete=True, grace=0)  # what the killed ones left is garbage, and nothing else is
    assert [registry.verify(name) for name in done] == whole
    assert contents_of(registry.pull(f"{name}@staging", tmp_path / "target")) == contents_of(policy)


def counts(state: State) -> tuple[int, int]:
    operations = [entry.op for entry in state.entries]
    return operations.count("register"), operations.count("promote")


def versions_but(state: State, alias: str) -> list[int]:
    return [state.number(digest) for digest in state.versions if digest != state.target(alias)]


@pytest.mark.parametrize(("when", "versions"), [("before", 0), ("after", 1)])
def test_around_the_commit_itself_the_version_is_there_or_not(
    when: str, versions: int, location: Path, policy: Path, run: Callable[..., tuple[int, int]]
) -> None:
    killed, _ = run(commit=when, location=str(location), name="reviews", policy=str(policy))
    assert (killed, len(Registry(location).list())) == (-signal.SIGKILL, versions)
    for _ in Registry(location).names():
        Registry(location).verify("reviews")
