"""Commands started by a flow end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.process import Children, StoppedError, child_environment

# a command with a child of its own, which is what DVC is
PARENT = "sleep 300 & echo $! > pid; echo started; wait"


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def written_pid(path: Path) -> int:
    # where the machine is busy, importing Prefect alone takes longer than any of the waits for an end
    assert until(lambda: path.is_file() and path.read_text().strip() != "", seconds=120)
    return int(path.read_text())


def test_lines_and_exit_code_come_back(tmp_path: Path) -> None:
    lines: list[str] = []
    with Children() as children:
        code = children.run(("sh", "-c", "pwd; echo oops >&2; exit 7"), tmp_path, lines.append)
    assert code == 7
    assert lines == [str(tmp_path.resolve()), "oops"]


def test_lines_come_as_they_are_printed(tmp_path: Path) -> None:
    seen: list[float] = []
    with Children() as children:
        children.run(("sh", "-c", "echo a; sleep 0.5; echo b"), tmp_path, lambda _: seen.append(time.monotonic()))
    assert seen[1] - seen[0] > 0.4


def test_bytes_that_are_not_text_do_not_stop_it(tmp_path: Path) -> None:
    lines: list[str] = []
    with Children() as children:
        assert children.run(("sh", "-c", r"printf 'a\377b\n'"), tmp_path, lines.append) == 0
    assert lines == ["a\N{REPLACEMENT CHARACTER}b"]


def test_leaving_the_context_ends_a_running_command_and_its_children(tmp_path: Path) -> None:
    codes: list[int] = []
    with Children() as children:
        thread = threading.Thread(
            target=lambda: codes.append(children.run(("sh", "-c", PARENT), tmp_path, lambda _: None))
        )
        thread.start()
        pid = written_pid(tmp_path / "pid")
        assert alive(pid)
    thread.join(15)
    assert codes == [128 + signal.SIGTERM]
    assert until(lambda: not alive(pid))
    with pytest.raises(StoppedError):
        children.run(("true",), tmp_path, print)


def test_a_command_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo $$ > pid; while true; do sleep 0.1; done"
    with Children() as children:
        thread = threading.Thread(target=lambda: children.run(("sh", "-c", stubborn), tmp_path, lambda _: None))
        thread.start()
        pid = written_pid(tmp_path / "pid")
    thread.join(15)
    assert not thread.is_alive()
    assert until(lambda: not alive(pid))


def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    with Children() as children:
        assert children.run(("sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $! > pid"), tmp_path, print) == 0
    assert until(lambda: not alive(written_pid(tmp_path / "pid")))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_owner_leaves_nothing_alive(tmp_path: Path, how: signal.Signals) -> None:
    owner = (
        "import sys; from pathlib import Path; from flows.process import Children\n"
        f"Children().run(('sh', '-c', {PARENT!r}), Path(sys.argv[1]), print)"
    )
    process = subprocess.Popen((sys.executable, "-c", owner, str(tmp_path)), env=child_environment())
    pid = written_pid(tmp_path / "pid")
    process.send_signal(how)
    assert process.wait(15) == -how
    assert until(lambda: not alive(pid))


def test_commands_of_this_environment_are_found_first() -> None:
    path = child_environment()["PATH"].split(os.pathsep)
    assert path[0] == str(Path(sys.executable).parent)
