"""Child processes that cannot outlive the flow which started them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

# Large temporaries of a training step otherwise go back to the system and are faulted in again at every step;
# stages that train measured a third of their time there.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}


def child_environment() -> dict[str, str]:
    """This process's environment, with the commands of its virtual environment found first and no bars in logs."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join((here, os.environ.get("PATH", os.defpath)))
    return {**MALLOC, "TQDM_DISABLE": "1", **os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def start_guarded(
    command: Sequence[str], cwd: Path, output: int, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    """Start `command` below flows/guard.py, which ends it when the `stdin` of what is returned is closed.

    It has a session of its own: Ctrl-C reaches the flow alone, which then ends its children in order.

    Args:
        output: where its lines go, subprocess.PIPE or subprocess.DEVNULL.
        variables: added to its environment.
    """
    # the guard needs the standard library alone, and starts in 20 ms without the rest
    guarded = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), *command]
    return subprocess.Popen(
        guarded,
        cwd=cwd,
        env={**child_environment(), **variables},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


class StoppedError(Exception):
    """The flow is ending, so no further command is started."""


class Children:
    """The commands that one flow run has under way; leaving the context ends those that still run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, command: Sequence[str], cwd: Path, on_line: Callable[[str], None]) -> int:
        """Run `command` in `cwd`, hand over each line it prints as it appears, and return its exit code.

        Raises:
            StoppedError: the context was left before the command could be started.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError
            guard = start_guarded(command, cwd, output=subprocess.PIPE)
            self._guards.add(guard)
        assert guard.stdin is not None
        assert guard.stdout is not None
        try:
            for line in guard.stdout:
                if line.strip():
                    on_line(line.rstrip())
        finally:
            guard.stdin.close()
            code = guard.wait()
            guard.stdout.close()
            with self._lock:
                self._guards.discard(guard)
        return code

    def stop(self) -> None:
        """End every command under way; none can be started afterwards."""
        with self._lock:
            self._stopped = True
            for guard in self._guards:
                if guard.stdin is not None:
                    guard.stdin.close()

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
