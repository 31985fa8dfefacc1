from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.config import Params, parse_params
from mixdpo.engine import open_engine, worker_device
from mixdpo.engine.local import InProcess
from mixdpo.errors import ConfigError
from mixdpo.layout import Layout

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"
NEVER: Any = None  # a task that nobody is given


def params(**changes: Any) -> Params:
    return parse_params(yaml.safe_load(DEMO.read_text(encoding="utf-8")) | changes)


def test_the_engine_is_this_process_unless_another_is_named(tmp_path: Path) -> None:
    with open_engine(params(), Layout(tmp_path)) as engine:
        assert isinstance(engine, InProcess)
    assert not list(tmp_path.iterdir())


def test_a_crew_is_hired_with_the_first_shard(ray_cluster: str, tmp_path: Path) -> None:
    from mixdpo.engine.crew import Crew

    assert ray_cluster
    with open_engine(params(engine={"kind": "ray", "cpus": 1}), Layout(tmp_path)) as engine:
        assert isinstance(engine, Crew)
        assert not list(engine.map(NEVER, []))
    assert not list(tmp_path.iterdir())


def test_workers_use_a_gpu_where_they_hold_one() -> None:
    held = {gpus: worker_device(params(engine={"kind": "ray", "cpus": 1, "gpus": gpus})).device for gpus in (0, 0.5, 2)}
    assert held == {0: "cpu", 0.5: "cuda", 2: "cuda"}
    assert worker_device(params(compute={"device": "cpu", "dtype": "float32", "threads": 1})).device == "cpu"


def test_without_the_package_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(ConfigError, match=r"the package ray is not installed; install mixdpo\[ray\], or set engine"),
        open_engine(params(engine={"kind": "ray", "cpus": 1}), Layout(tmp_path)),
    ):
        pass
