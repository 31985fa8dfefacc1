from __future__ import annotations

import pytest
import torch

from mixdpo.config.training import Parallel
from mixdpo.errors import ConfigError
from mixdpo.training.parallel import ALONE, joined

CPU = torch.device("cpu")


def test_a_process_by_itself_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for settings in (None, Parallel(data=1, experts=1)):
        with joined(settings, 4, CPU) as ranks:
            assert ranks is ALONE


def test_processes_that_nobody_asked_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    expected = r"4 processes were started but training.parallel is not set.*\{data: 4, experts: 1\}"
    with pytest.raises(ConfigError, match=expected), joined(None, 4, CPU):
        pass


def test_another_number_than_asked_for_is_refused_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "6")
    expected = (
        r"data 2 x experts 2 processes but 6 were started; start 4, or set it to \{data: 6, experts: 1\} or "
        r"\{data: 3, experts: 2\} or \{data: 2, experts: 3\} or \{data: 1, experts: 6\}"
    )
    with pytest.raises(ConfigError, match=expected), joined(Parallel(data=2, experts=2), 4, CPU):
        pass
