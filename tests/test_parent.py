"""A stage does not outlive the DVC that started it, whatever stands between; what a person starts may outlive them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STAGE = """
import os, signal, sys, time
from pathlib import Path
from mixdpo import parent
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent.GRACE_SECONDS = 0.5
parent.end_with_dvc()
Path("pid").write_text(str(os.getpid()))
time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def written_pid(root: Path) -> int:
    assert until(lambda: (root / "pid").is_file() and (root / "pid").read_text() != "", seconds=120)
    return int((root / "pid").read_text())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["", "stubborn"])
def test_it_ends_with_dvc(new_repository: Callable[[], Path], stage: str, how: signal.Signals) -> None:
    root = new_repository()
    (root / "stage.py").write_text(STAGE)
    # a shell that has more to do stays between, and a second one below it
    command = f"sh -c '{sys.executable} stage.py {stage}; true'; echo done"
    (root / "dvc.yaml").write_text(f"stages:\n  one:\n    cmd: {command}\n    outs: [out]\n")
    environment = {**os.environ, "SHELL": "/bin/sh"}
    dvc = subprocess.Popen(
        (sys.executable, "-m", "dvc", "repro"),
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stage_pid = written_pid(root)
    dvc.send_signal(how)
    dvc.wait(30)
    assert until(lambda: not alive(stage_pid), seconds=15)


def test_what_a_person_starts_outlives_their_shell(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    shell = subprocess.Popen(("sh", "-c", f"{sys.executable} stage.py; true"), cwd=tmp_path, env=environment)
    pid = written_pid(tmp_path)
    shell.kill()
    shell.wait()
    assert not until(lambda: not alive(pid), seconds=0.5)
    os.kill(pid, signal.SIGKILL)
