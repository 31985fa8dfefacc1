"""One process writes the outputs of a stage at a time; who has to stand back learns who it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mixdpo.cli import main
from mixdpo.errors import TransientError
from mixdpo.layout import Layout
from mixdpo.lock import held

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from mixdpo.lock import held
with held(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
COUNTER = """
import sys
from pathlib import Path
from mixdpo.lock import held
for _ in range(25):
    with held(Path(sys.argv[1]), "the counter", patience=60):
        count = Path(sys.argv[2])
        count.write_text(str(int(count.read_text()) + 1))
"""


@pytest.fixture
def start_holder() -> Iterator[Callable[[Path, float], subprocess.Popen[str]]]:
    """Starts another process that holds a lock for so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, seconds: float) -> subprocess.Popen[str]:
        command = (sys.executable, "-c", HOLDER, str(path), str(seconds))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_is_told_who_is_first(
    tmp_path: Path, start_holder: Callable[[Path, float], subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    holder = start_holder(tmp_path / "lock", 300)
    told = rf"^process {holder.pid} on .*\(`-c .*, since .*\) holds the outputs of train moe: .*then run again$"
    with pytest.raises(TransientError, match=told), held(tmp_path / "lock", "the outputs of train moe", patience=0.2):
        pass
    assert f"waiting for process {holder.pid} " in capsys.readouterr().err


def test_it_is_waited_for_and_dies_with_its_process(
    tmp_path: Path, start_holder: Callable[[Path, float], subprocess.Popen[str]]
) -> None:
    started = time.monotonic()
    start_holder(tmp_path / "lock", 1)
    with held(tmp_path / "lock", "it"):
        assert time.monotonic() - started > 0.9
    start_holder(tmp_path / "lock", 300).send_signal(signal.SIGKILL)
    with held(tmp_path / "lock", "it"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_no_two_hold_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = (sys.executable, "-c", COUNTER, str(tmp_path / "lock"), str(tmp_path / "count"))
    counting = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(120) for process in counting] == [0] * 4
    assert (tmp_path / "count").read_text() == "100"


def test_a_stage_holds_its_outputs_and_no_other_stages(
    tmp_path: Path, start_holder: Callable[[Path, float], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixdpo.lock.held.__wrapped__.__defaults__", (0.1,))
    (tmp_path / "params.yaml").write_bytes((ROOT / "profiles" / "demo.yaml").read_bytes())
    holder = start_holder(Layout(tmp_path).lock("validate-reviews"), 300)
    refused = CliRunner().invoke(main, ["--root", str(tmp_path), "validate", "reviews"])
    assert refused.exit_code == TransientError.exit_code
    assert f"process {holder.pid} " in refused.output
    assert "holds the outputs of validate reviews" in refused.output
    # another table's outputs are other outputs: it gets as far as its missing input
    assert "scores.parquet" in CliRunner().invoke(main, ["--root", str(tmp_path), "validate", "scores"]).output
