"""A rank of a stage that is killed once. A module of its own: other processes import it by name."""

from __future__ import annotations

import os
import signal
from typing import Any

from mixdpo.stages import train
from mixdpo.training.run import Run


def run_rank(values: str, root: str, name: str) -> list[str]:
    """As `train.run_rank`, but the second rank does not outlive its eighth step, unless it was started again."""
    usual = Run.step

    def fatal(run: Run, number: int) -> Any:
        if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], number) == ("1", "0", 7):
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(run, number)

    Run.step = fatal  # type: ignore[method-assign]
    return train.run_rank(values, root, name)
