"""Runs one command and ends it, with everything it started, as soon as whoever asked for it is gone.

A killed flow cannot clean up after itself, and `dvc repro` started again would run a stage a second time beside the
first one, on the same outputs. So each command runs below this small process, whose standard input is a pipe that the
flow holds open: when the flow lets go of it, on purpose or by dying, the pipe ends and so does the command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5.0  # between asking and killing


def main() -> None:
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_pipe, args=(command.pid,), daemon=True).start()
    code = command.wait()
    end_group(command.pid)  # nothing that it left in the background survives it
    # not sys.exit: at interpreter shutdown the thread still reads the pipe, and its lock would be waited for
    os._exit(code if code >= 0 else 128 - code)


def _end_with_pipe(group: int) -> None:
    sys.stdin.buffer.read()
    end_group(group)


def end_group(group: int) -> None:
    """Ask all processes of a group to end; kill what is left after GRACE_SECONDS."""
    try:
        for request in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(group, request)
            deadline = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.02)
                os.killpg(group, 0)  # sends nothing, only looks whether anyone is left
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
