"""What a person is told of a version that was made again."""

from __future__ import annotations

import math

from mixdpo.commands.reproduction import told
from mixdpo.reproduction.comparison import Apart, Comparison

SAME = Comparison({"reviews": True}, {"mixture.json": True}, {"run/metrics/evaluation.json": True}, None)


def test_the_outcome_is_the_last_line_and_what_differs_is_named() -> None:
    assert told(SAME, 0.0).splitlines() == [
        "data      1 of 1 files the same to the byte",
        "policy    1 of 1 files the same to the byte",
        "results   1 of 1 files the same to the byte",
        "reproduced: the same to the byte",
    ]
    off = Comparison(
        {"reviews": True}, {"model.safetensors": False}, {"run/metrics/evaluation.json": False}, Apart("a", 1.0, 1.5)
    )
    assert told(off, 0.5).splitlines()[1:3] == [
        "policy    0 of 1 files the same to the byte",
        "          other: model.safetensors",
    ]
    assert "figures   furthest apart: a, registered 1.0, now 1.5" in told(off, 0.5)
    assert told(off, 0.5).endswith("reproduced: the same data, and all figures within the tolerance")
    assert told(off, 0.4).endswith("not reproduced")
    assert told(Comparison({"reviews": False}, {}, {}, None), math.inf).endswith("not reproduced")
