"""Shards on a real Ray cluster: the same results, whoever is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mixdpo.config.engine import RayEngine
from mixdpo.engine import Function, map_shards, read_shards, slices
from mixdpo.engine.local import InProcess
from mixdpo.errors import ConfigError, DataError, EngineError

if TYPE_CHECKING:
    from mixdpo.engine.crew import Crew

SETTINGS = RayEngine(kind="ray", cpus=1)
TABLE = pa.table({"number": list(range(10)), "name": ["a row of some length"] * 10})
SHARDS = slices(TABLE, 3)
SQUARES = [n * n for n in range(10)]


@dataclass(frozen=True)
class Square:
    """Notes process and first number of each shard; refuses `bad`, dies of `deadly` (once, or each time)."""

    log: Path
    bad: int | None = None
    deadly: int | None = None
    deaths: int = 1
    seconds: float = 0.0

    def load(self) -> Function:
        self._note("load")
        return self._square

    def _square(self, rows: pa.Table) -> pa.Table:
        numbers = rows["number"]
        self._note(str(numbers[0]))
        time.sleep(self.seconds)
        if self.bad in numbers.to_pylist():
            raise DataError(f"{self.bad} is not to be squared; leave it out")
        if self.deadly in numbers.to_pylist() and notes(self.log).count(str(numbers[0])) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return pa.table({"square": pc.multiply(numbers, numbers)})

    def _note(self, line: str) -> None:
        with self.log.open("a") as handle:
            handle.write(f"{os.getpid()} {line}\n")


def notes(log: Path) -> list[str]:
    return [line.split()[1] for line in log.read_text().splitlines()]


pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module", autouse=True)
def _workers_know_this_module() -> Iterator[None]:
    from ray import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    from mixdpo.engine.crew import Crew

    with closing(Crew(SETTINGS, tmp_path_factory.mktemp("project") / "sign")) as crew:
        yield crew


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def contents(paths: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def test_results_are_the_bytes_of_the_local_engine(crew: Crew, log: Path, tmp_path: Path) -> None:
    here = map_shards(InProcess(), Square(log), SHARDS, tmp_path / "here", "squaring")
    log.unlink()
    there = map_shards(crew, Square(log), SHARDS, tmp_path / "there", "squaring")
    assert contents(there) == contents(here)
    assert [path.name for path in there] == [path.name for path in here]
    workers = {line.split()[0] for line in log.read_text().splitlines()}
    assert str(os.getpid()) not in workers
    assert notes(log).count("load") == len(workers) <= 4
    assert sorted(notes(log)) == ["0", "3", "6", "9", *["load"] * len(workers)]


def test_an_error_comes_back_with_its_shard_and_is_not_tried_again(crew: Crew, log: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^squaring, shard 3 of 4: 7 is not to be squared; leave it out$"):
        map_shards(crew, Square(log, bad=7), SHARDS, tmp_path / "work", "squaring")
    assert notes(log).count("6") == 1
    # the workers live on, and what was finished is kept
    finished = len(list((tmp_path / "work").iterdir()))
    paths = map_shards(crew, Square(log), SHARDS, tmp_path / "work", "squaring")
    assert read_shards(paths)["square"].to_pylist() == SQUARES
    assert len(notes(log)) - notes(log).count("load") <= 4 + 4 - finished + 1


def test_a_fault_of_the_code_comes_back_with_its_traceback(crew: Crew, log: Path, tmp_path: Path) -> None:
    shards = [SHARDS[0], SHARDS[1].rename_columns(["other", "name"])]
    with pytest.raises(KeyError, match="in _square") as caught:
        map_shards(crew, Square(log), shards, tmp_path / "work", "squaring")
    assert caught.value.__notes__ == ["squaring, shard 2 of 2"]


def test_the_shard_of_a_killed_worker_is_given_to_another(
    crew: Crew, log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = map_shards(crew, Square(log, deadly=4), SHARDS, tmp_path / "work", "squaring")
    assert read_shards(paths)["square"].to_pylist() == SQUARES
    assert sorted(note for note in notes(log) if note != "load") == ["0", "3", "3", "6", "9"]
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("squaring, shard 2 of 4: the Ray worker was lost, another takes its place (")


def test_a_shard_that_kills_every_worker_is_named(crew: Crew, log: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^squaring, shard 1 of 1: 3 Ray workers were lost, .* raise engine.cpus"):
        map_shards(crew, Square(log, deadly=1, deaths=9), SHARDS[:1], tmp_path / "work", "squaring")
    assert notes(log).count("0") == 3


DRIVER = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from ray import cloudpickle
import test_crew as toy
from mixdpo.engine import map_shards
from mixdpo.engine.crew import Crew
cloudpickle.register_pickle_by_value(toy)
root = pathlib.Path({root!r})
crew = Crew(toy.SETTINGS, root / "sign")
map_shards(crew, toy.Square(root / "log", seconds=1.0), toy.SHARDS, root / "work", "squaring")
"""


def test_a_killed_run_goes_on_from_its_finished_shards(ray_cluster: str, log: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    code = DRIVER.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    environment = os.environ | {"RAY_ADDRESS": ray_cluster}
    with subprocess.Popen((sys.executable, "-c", code), env=environment, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 120
        while not list(work.glob("*.parquet")):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.kill()
    finished = len(list(work.glob("*.parquet")))
    assert 1 <= finished < 4
    log.unlink()
    paths = map_shards(InProcess(), Square(log), SHARDS, work, "squaring")
    assert read_shards(paths)["square"].to_pylist() == SQUARES
    assert len(notes(log)) == 1 + 4 - finished


def test_a_worker_that_fits_nowhere_is_said_at_once(log: Path, tmp_path: Path) -> None:
    from mixdpo.engine.crew import Crew

    settings = RayEngine(kind="ray", cpus=1, gpus=64)
    with (
        closing(Crew(settings, tmp_path / "sign")) as crew,
        pytest.raises(ConfigError, match=r"room for a worker with 1 CPUs and 64 GPUs \(the cluster has \d+ CPUs and"),
    ):
        map_shards(crew, Square(log), SHARDS, tmp_path / "work", "squaring")
