"""kill -9 of a publisher at any of its steps on the file system: nothing half-published, and the re-run completes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.registry import Registry

POINTS = 8

# Every open, mkdir, link, unlink and rename of the publisher is an audit event; at event number argv[3] it is killed.
PUBLISHER = """
import os, signal, sys
from pathlib import Path
from mixdpo.registry import Registry

location, policy, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
events = 0

def count(event, arguments):
    global events
    if event == "open" or event.startswith("os."):
        events += 1
        if events == last:
            os.kill(os.getpid(), signal.SIGKILL)

registry = Registry(location)
sys.addaudithook(count)
version = registry.register("reviews", policy, {"profile": "demo"}, "staging", "killed now and then")
print(events)
"""


def run(location: Path, policy: Path, last: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PUBLISHER, str(location), str(policy), str(last)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], int]:
    """How many steps a publisher that nobody kills takes."""
    counted: list[int] = []

    def steps(policy: Path) -> int:
        if not counted:
            done = run(tmp_path_factory.mktemp("whole") / "registry", policy, 0)
            counted.append(int(done.stdout))
        return counted[0]

    return steps


@pytest.mark.parametrize("turn", range(POINTS))
def test_a_killed_publisher_leaves_no_version_and_the_rerun_completes(
    turn: int,
    location: Path,
    policy: Path,
    tmp_path: Path,
    steps: Callable[[Path], int],
    contents_of: Callable[[Path], dict[str, bytes]],
) -> None:
    total = steps(policy)
    assert total > 50
    # one point in each eighth of the way, so that early, middle and last steps are all met
    last = random.Random(turn).randint(turn * total // POINTS + 1, (turn + 1) * total // POINTS)
    assert run(location, policy, last).returncode == -signal.SIGKILL
    registry = Registry(location)
    if registry.names():  # killed after its commit
        assert [version.number for version in registry.list("reviews")] == [1]
        registry.verify("reviews")
    again = run(location, policy, 0)
    assert (again.returncode, again.stderr) == (0, "")
    assert [entry.op for entry in Registry(location).history("reviews").entries] == ["register"]
    registry.verify("reviews")
    assert contents_of(registry.pull("reviews@staging", tmp_path / "target")) == contents_of(policy)


def test_killed_at_every_one_of_the_last_steps_the_version_is_there_or_not(
    location: Path, policy: Path, steps: Callable[[Path], int]
) -> None:
    """Around the commit itself: each state seen is one of the two."""
    seen = set()
    total = steps(policy)
    for last in range(total - 8, total + 1, 2):
        at = location / str(last)
        assert run(at, policy, last).returncode == -signal.SIGKILL
        listed = Registry(at).list()
        seen.add(len(listed))
        if listed:
            Registry(at).verify("reviews")
    assert seen == {0, 1}
    assert os.listdir(location)
