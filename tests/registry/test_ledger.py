from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.registry import Registry, Version
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.ledger import Ledger
from mixdpo.registry.log import change

WRITERS, MOVES = 8, 5

MOVER = """
import sys
from pathlib import Path
from mixdpo.registry import Registry

registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for move in range(int(sys.argv[3])):
    registry.set_alias("reviews", f"alias-{sys.argv[2]}", f"v{1 + move % 2}", f"move {move} of {sys.argv[2]}")
"""


class LostReply(FileStore):
    """A store that puts, and then says that somebody had been before: as after a repeated request."""

    def put_once(self, key: str, content: bytes | Path, sha256: str) -> bool:
        super().put_once(key, content, sha256)
        return False


def test_eight_processes_move_aliases_at_once_and_nothing_is_lost(
    location: Path, publish: Callable[..., Version]
) -> None:
    publish(1, alias=None)
    publish(2, alias=None)
    root = Path(__file__).parents[2]
    movers = [
        subprocess.Popen(
            [sys.executable, "-c", MOVER, str(location), str(i), str(MOVES)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(WRITERS)
    ]
    assert [mover.stdout.readline() for mover in movers] == ["ready\n"] * WRITERS  # type: ignore[union-attr]
    for mover in movers:
        mover.stdin.write("go\n")  # type: ignore[union-attr]
        mover.stdin.flush()  # type: ignore[union-attr]
    for mover in movers:
        mover.communicate(timeout=60)
    assert [mover.returncode for mover in movers] == [0] * WRITERS
    history = Registry(location).history("reviews")  # folds, and so checks the chain
    assert [entry.seq for entry in history.entries] == list(range(1, 2 + WRITERS * MOVES + 1))
    for writer in range(WRITERS):
        mine = [entry.reason for entry in history.entries if entry.alias == f"alias-{writer}"]
        assert mine == [f"move {move} of {writer}" for move in range(MOVES)]


def test_a_decision_is_made_again_on_what_the_winner_wrote(
    registry: Registry, location: Path, publish: Callable[..., Version]
) -> None:
    one, two = publish(1, alias=None), publish(2, alias=None)
    ledger, seen = Ledger(registry.store), []

    def decide(state):  # type: ignore[no-untyped-def]
        seen.append(state.target("production"))
        if len(seen) == 1:
            Registry(location).set_alias("reviews", "production", "v1", "quicker")
        return change("alias", two.digest, "production", "slower")

    state, written = ledger.commit("reviews", decide)
    assert seen == [None, one.digest]
    assert written is not None
    assert written.seq == 4
    assert state == Registry(location).history("reviews")
    assert [entry.reason for entry in state.entries[2:]] == ["quicker", "slower"]


def test_a_lost_reply_to_ones_own_entry_is_not_a_loss(
    registry: Registry, location: Path, publish: Callable[..., Version]
) -> None:
    digest = publish(1, alias=None).digest
    _, written = Ledger(LostReply(location)).commit("reviews", lambda _: change("alias", digest, "staging", "once"))
    assert written is not None
    assert [entry.reason for entry in registry.history("reviews").entries] == ["seed 1", "once"]


def test_an_absent_entry_is_named(location: Path, publish: Callable[..., Version]) -> None:
    for seed in (1, 2, 3):
        publish(seed)
    (location / "log/reviews/0000000002.json").unlink()
    with pytest.raises(RegistryError) as error:
        Registry(location).list()
    assert str(error.value) == (
        f"the log of reviews is broken: log/reviews/0000000002.json is absent from {location} though later entries "
        "are there; restore log/reviews/ from a copy"
    )


def test_an_edited_entry_is_named_by_all_who_read(
    location: Path, publish: Callable[..., Version], overwrite: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    publish(1)
    publish(2)
    first = location / "log/reviews/0000000001.json"
    overwrite(first, first.read_bytes().replace(b"seed 1", b"seed 9"))
    fresh = Registry(location)
    for use in (
        lambda: fresh.resolve("reviews@v1"),
        lambda: fresh.pull("reviews", tmp_path / "t"),
        lambda: fresh.set_alias("reviews", "production", "v1", "x"),
        lambda: fresh.rollback("reviews", "staging", "x"),
        lambda: fresh.verify("reviews"),
    ):
        with pytest.raises(RegistryError, match=r"the log of reviews is broken at log/reviews/0000000002\.json"):
            use()


def test_a_log_that_shrank_is_noticed(registry: Registry, location: Path, publish: Callable[..., Version]) -> None:
    publish(1)
    publish(2)
    (location / "log/reviews/0000000002.json").unlink()
    with pytest.raises(RegistryError, match="has lost entry 2, which was read before"):
        registry.resolve("reviews")


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", "x\n"])
def test_a_name_cannot_lead_elsewhere(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match=f"^{re.escape(repr(name))} is no name for versions; expected small"):
        registry.history(name)
