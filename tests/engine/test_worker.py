from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from mixdpo.engine import Function
from mixdpo.engine.worker import Worker, code_digest
from mixdpo.errors import ConfigError

LOADED: list[int] = []


@dataclass(frozen=True)
class Take:
    rows: int

    def load(self) -> Function:
        LOADED.append(self.rows)
        return lambda table: table.slice(0, self.rows)


def test_a_worker_keeps_what_it_loaded_until_the_task_is_another() -> None:
    LOADED.clear()
    worker, table = Worker(), pa.table({"a": [1, 2, 3]})
    assert [worker.work(task, table).num_rows for task in (Take(1), Take(1), Take(2), Take(1))] == [1, 1, 2, 1]
    assert LOADED == [1, 2, 1]


def test_a_worker_elsewhere_is_refused(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    with pytest.raises(ConfigError, match=r"does not see .*, where the stage works; mount the project directory"):
        Worker().greet(sign, code_digest())
    sign.touch()
    Worker().greet(sign, code_digest())
    with pytest.raises(ConfigError, match=r"has another mixdpo \(.*mixdpo\) than the stage; install the same one"):
        Worker().greet(sign, "another")
