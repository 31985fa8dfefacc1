"""kill -9 anywhere in registering a signed version and promoting it: all that can be seen is whole and signed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.registry import Registry, Version
from mixdpo.registry.keys import new_key, public_text, read_key
from mixdpo.registry.trust import Trust

POINTS = 12

# One process forks a child for each point, which is killed at that of its steps on the file system (audit events).
KILLED = """
import hashlib, os, signal, sys
from pathlib import Path
from mixdpo.registry import Registry
from mixdpo.registry.decision import Decision, Rules, Ruling
from mixdpo.registry.keys import public_text, read_key
from mixdpo.registry.trust import Trust

RULES = Rules(delta=0.05, confidence=0.95, must_beat=1, comparisons=8, refuse="any", validation="clean")
EVIDENCE = b'{"schema":1}'

def judge(champion):
    return Ruling(Decision(
        passed=True, forced=False, reasons=(), rules=RULES, champion=champion and champion.digest, styles={},
        findings=(), validation=(), prompts=None, judges=None, evidence=hashlib.sha256(EVIDENCE).hexdigest(),
    ), EVIDENCE)

def work(location, policy, key, last):
    events = 0
    def count(event, arguments):
        nonlocal events
        if event == "open" or event.startswith("os."):
            events += 1
            if events == last:
                os.kill(os.getpid(), signal.SIGKILL)
    registry = Registry(location, Trust((public_text(key.public_key()),), required=True))
    sys.addaudithook(count)
    version = registry.register("reviews", policy, {"profile": "demo"}, "staging", "signed", key=key)
    registry.promote(version, "production", "better", judge)
    return events

policy, key = Path(sys.argv[1]), read_key(sys.argv[2])
for argument in sys.argv[3:]:
    location, last = argument.rsplit(":", 1)
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, str(work(Path(location), policy, key, int(last))).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    print(os.read(read, 20).decode() or "killed")
"""


@pytest.fixture
def run(tmp_path: Path, policy: Path) -> Callable[..., list[str]]:
    new_key(tmp_path / "key.pem")

    def run(*where: tuple[Path, int]) -> list[str]:
        """For each (registry, step to be killed at; 0: none) how many steps there were, or `killed`."""
        command = [sys.executable, "-c", KILLED, str(policy), str(tmp_path / "key.pem")]
        command += [f"{location}:{last}" for location, last in where]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def test_killed_anywhere_nothing_is_seen_that_is_not_whole_signed_and_decided(
    location: Path, publish: Callable[..., Version], run: Callable[..., list[str]], tmp_path: Path
) -> None:
    champion = publish(7, alias=None)
    key = read_key(str(tmp_path / "key.pem"))
    Registry(location).sign("reviews@v1", key)
    strict = Trust((public_text(key.public_key()),), required=True)
    copies = [tmp_path / f"copy-{number}" for number in range(POINTS + 1)]
    for copy in copies:
        shutil.copytree(location, copy)
    [steps] = map(int, run((copies[-1], 0)))
    points = sorted(random.Random(5).sample(range(1, steps + 1), POINTS))
    assert set(run(*zip(copies, points, strict=False))) == {"killed"}
    seen: set[tuple[int, str | None]] = set()
    for copy in copies[:-1]:
        registry = Registry(copy, strict)
        assert registry.verify("reviews").versions in (1, 2)
        history = registry.history("reviews")
        for version in registry.list():
            strict.check(registry.store, version.name, version.digest)
        target = history.target("production")
        assert target in (None, *history.versions[1:])
        seen.add((len(history.versions), target))
    assert len(seen) >= 2  # of killed before it was registered, before it was promoted, and after
    assert "killed" not in run(*((copy, 0) for copy in copies[:-1]))
    for copy in copies:
        registry = Registry(copy, strict)
        assert registry.verify("reviews").versions == 2
        assert registry.resolve("reviews@production").number == 2
        assert registry.resolve("reviews@v1").digest == champion.digest
        entry = registry.history("reviews").entries[-1]
        assert entry.decision is not None
        assert registry.evidence(entry.decision) == b'{"schema":1}'
