"""What the manifests of docs/kubernetes/ promise: the locked Ray, one project, a token, work for every group."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.config.engine import RayEngine

DIRECTORY = Path(__file__).parents[1] / "docs" / "kubernetes"
RAY = re.search(r"^ray==(\S+)", (DIRECTORY.parents[1] / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)


def cluster(path: Path) -> dict[str, Any]:
    kinds = {each["kind"]: each["spec"] for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))}
    found: dict[str, Any] = kinds["RayCluster"] if "RayCluster" in kinds else kinds["RayJob"]["rayClusterSpec"]
    return found


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("ray-*.yaml")), ids=lambda path: path.stem)
def test_a_cluster_has_the_locked_ray_a_token_and_one_project(path: Path) -> None:
    spec = cluster(path)
    assert RAY is not None
    assert spec["rayVersion"] == RAY[1]
    assert spec["authOptions"] == {"mode": "token"}
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    mounts = [pod["containers"][0]["volumeMounts"] + pod["volumes"] for pod in pods]
    assert all(mount == mounts[0] for mount in mounts)


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("ray-*.yaml")), ids=lambda path: path.stem)
def test_the_engine_that_is_named_fits_a_group(path: Path) -> None:
    limits = [
        each["template"]["spec"]["containers"][0]["resources"]["limits"] for each in cluster(path)["workerGroupSpecs"]
    ]
    named = re.findall(r"engine: (\{.*?\})", path.read_text(encoding="utf-8"))
    assert named
    for text in named:
        engine = RayEngine.model_validate(yaml.safe_load(text))
        assert any(
            int(each["cpu"]) >= engine.cpus and int(each.get("nvidia.com/gpu", 0)) >= engine.gpus for each in limits
        )
