"""What the manifests promise: locked versions, one project, tokens and secrets by reference, nothing as root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.config.engine import RayEngine

DIRECTORY = Path(__file__).parents[1] / "docs" / "kubernetes"
ROOT = DIRECTORY.parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
RAY = re.search(r"^ray==(\S+)", LOCK, re.MULTILINE)
PREFECT = re.search(r"^prefect==([\d.]+)", LOCK, re.MULTILINE)


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


def pods(path: Path) -> list[dict[str, Any]]:
    """What Deployments and Jobs of a file start."""
    found = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return [each["spec"]["template"]["spec"] for each in found if each["kind"] in ("Deployment", "Job")]


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")), ids=lambda path: path.stem)
def test_servers_and_trainings_run_without_rights_and_hold_no_secret(path: Path) -> None:
    for pod in pods(path):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert not [
                each
                for each in container["env"]
                if re.search("KEY|SECRET|PASSWORD|CONNECTION", each["name"]) and "value" in each
            ]
            assert container["resources"]["limits"]["memory"]
            if container["image"].startswith("prefecthq/"):
                assert PREFECT is not None
                assert container["image"].startswith(f"prefecthq/prefect:{PREFECT[1]}-")
