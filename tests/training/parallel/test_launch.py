"""Ranks do not outlive the process that started them: they would go on writing checkpoints beside the next run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

START = """
import sys
from mixdpo.training.parallel.launch import launch
import idle_rank
launch(idle_rank.idle, (sys.argv[1],), 2)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ranks_end_with_their_launcher_that_is_killed(tmp_path: Path) -> None:
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    launcher = subprocess.Popen(
        (sys.executable, "-c", START, str(tmp_path)), env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len([file for file in tmp_path.glob("[01]") if file.read_text()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks = [int(file.read_text()) for file in tmp_path.glob("[01]")]
    launcher.kill()
    assert launcher.wait(30) == -signal.SIGKILL
    deadline = time.monotonic() + 15
    while any(alive(rank) for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
