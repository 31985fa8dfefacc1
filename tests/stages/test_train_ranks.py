"""`mixdpo train` on several processes: it starts them itself, and what it writes is what one process writes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mixdpo.config import Params, parse_params
from mixdpo.layout import Layout
from mixdpo.stages import train

# the ranks import `lost_rank` by name
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def params(toy_params: Params) -> Params:
    values = toy_params.model_dump(mode="json", by_alias=True)
    values["training"] |= {"batch_pairs": 4, "epochs": 3, "evaluate_every": 4, "checkpoint_every": 2}
    return parse_params(values)


@pytest.fixture(scope="module")
def layout(with_reference: Callable[..., Layout], tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return with_reference(tmp_path_factory.mktemp("ranks"), lambda name: "validation" if name == "test-4" else "train")


def on(params: Params, **parallel: Any) -> Params:
    values = params.model_dump(mode="json", by_alias=True)
    values["training"]["parallel"] = parallel
    return parse_params(values)


class Written:
    def __init__(self, layout: Layout, name: str) -> None:
        self.tensors = {
            f"{file.name}/{tensor}": values
            for file in sorted(layout.policy(name).glob("*.safetensors"))
            for tensor, values in load_file(file).items()
        }
        with layout.training_curve(name).open() as file:
            self.rows = list(csv.DictReader(file))


def test_the_stage_starts_ranks_and_writes_what_one_process_writes(params: Params, layout: Layout) -> None:
    written = train.run(params, layout, "mix")
    alone = Written(layout, "mix")
    assert train.run(on(params, data=1, experts=2), layout, "mix") == written
    together = Written(layout, "mix")
    assert together.tensors.keys() == alone.tensors.keys()
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name], tensor, atol=1e-4, rtol=0, msg=name)
    assert [row["step"] for row in together.rows] == [row["step"] for row in alone.rows]
    for mine, theirs in zip(together.rows, alone.rows, strict=True):
        assert float(mine["loss"]) == pytest.approx(float(theirs["loss"]), abs=1e-5)


def test_a_lost_rank_is_started_again_and_training_goes_on_to_the_same_bytes(
    params: Params, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lost_rank

    parallel = on(params, data=2, experts=1, restarts=1)
    train.run(parallel, layout, "mix")
    never_lost = Written(layout, "mix")
    with monkeypatch.context() as patch:
        patch.setattr(train, "run_rank", lost_rank.run_rank)
        train.run(parallel, layout, "mix")
    again = Written(layout, "mix")
    assert again.rows == never_lost.rows
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in never_lost.tensors.items())
