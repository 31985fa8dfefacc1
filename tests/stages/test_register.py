from __future__ import annotations

import ast
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from mixdpo import training
from mixdpo.config import Params, parse_params
from mixdpo.config.outcome import Finding
from mixdpo.errors import ConfigError, DataError, RegistryError
from mixdpo.files import directory_digest, file_digest, write_json
from mixdpo.layout import Layout
from mixdpo.registry import Registry
from mixdpo.stages.register import register, registered

PROFILE = Path(__file__).parents[2] / "profiles" / "demo.yaml"
REGISTRY = {"url": "registry", "name": "reviews", "policy": "moe", "alias": "staging"}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return parse_params({**yaml.safe_load(PROFILE.read_text(encoding="utf-8")), "registry": REGISTRY})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project after its run, as far as registration looks at it."""
    layout = Layout(tmp_path / "project")
    policy = layout.policy("moe")
    write_json(policy / "mixture.json", {"schema": 1})
    (policy / "expert-0.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    shutil.copy(PROFILE, layout.root / "params.yaml")
    (layout.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n", encoding="utf-8")
    write_json(layout.metrics("evaluation"), {"schema": 1, "reward": 0.7})
    write_json(layout.metrics("train-moe"), {"schema": 1, "steps": 3})
    layout.reports.mkdir()
    (layout.reports / "report.md").write_text("# Report\n![rewards](figures/rewards.png)\n", encoding="utf-8")
    (layout.reports / "figures").mkdir()
    (layout.reports / "figures" / "rewards.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_json(layout.reward_model("grammar", "judge") / "config.json", {"layers": 1})
    write_json(layout.reward_model("grammar", "judge") / "card.json", {"auc": 0.9})
    write_json(layout.validated("reviews"), [])  # only its bytes matter here
    return layout


def test_the_version_holds_the_policy_and_what_the_run_left(params: Params, layout: Layout, tmp_path: Path) -> None:
    version = register(params, layout, reason="weekly")
    assert (version.entry.seq, version.entry.reason) == (1, "weekly")
    target = Registry(layout.root / "registry").pull("reviews@staging", tmp_path / "target")
    found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert found.keys() == {
        "mixture.json",
        "expert-0.safetensors",
        "run/params.yaml",
        "run/packages.cdx.json",
        "run/dvc.lock",
        "run/metrics/evaluation.json",
        "run/metrics/train-moe.json",
        "run/reports/report.md",
        "run/reports/figures/rewards.png",
    }
    assert found["run/dvc.lock"].read_bytes() == (layout.root / "dvc.lock").read_bytes()


def test_lineage_says_where_it_came_from(params: Params, layout: Layout) -> None:
    lineage: dict[str, Any] = register(params, layout).manifest.lineage
    assert lineage["profile"] == "demo"
    assert parse_params(lineage["params"]) == params
    assert lineage["metrics"] == {"schema": 1, "reward": 0.7}
    assert lineage["data"] == {"reviews": file_digest(layout.validated("reviews"))}
    judge = layout.reward_model("grammar", "judge")
    assert lineage["rewards"] == {"grammar/judge": {"sha256": directory_digest(judge), "card": {"auc": 0.9}}}
    assert lineage["dvc_lock"] == {"sha256": file_digest(layout.root / "dvc.lock"), "outputs": {}}
    assert lineage["git"] is None
    assert "pydantic" in lineage["packages"]
    text = json.dumps(lineage)
    assert str(layout.root) not in text


def test_registering_the_same_again_writes_nothing(params: Params, layout: Layout) -> None:
    assert register(params, layout).created
    before = {path: path.stat().st_mtime_ns for path in (layout.root / "registry").rglob("*")}
    assert register(params, layout, reason="again").written is None
    assert {path: path.stat().st_mtime_ns for path in (layout.root / "registry").rglob("*")} == before
    write_json(layout.metrics("evaluation"), {"schema": 1, "reward": 0.8})
    assert register(params, layout).number == 2


def test_it_works_without_dvc_and_without_a_report(params: Params, layout: Layout) -> None:
    (layout.root / "dvc.lock").unlink()
    shutil.rmtree(layout.reports)
    version = register(params, layout)
    assert version.manifest.lineage["dvc_lock"] is None
    assert not any(path.startswith("run/reports") for path in version.manifest.files)


def test_without_policy_or_evaluation_nothing_is_registered(params: Params, layout: Layout) -> None:
    layout.metrics("evaluation").unlink()
    with pytest.raises(DataError, match=r"metrics/evaluation\.json does not exist; run the stage that writes it"):
        register(params, layout)
    (layout.policy("moe") / "mixture.json").unlink()
    with pytest.raises(RegistryError) as error:
        register(params, layout)
    assert str(error.value) == (
        f"{layout.policy('moe')} holds no policy (mixture.json); run `mixdpo train moe` or `dvc repro` first"
    )
    assert not (layout.root / "registry").exists()


FINDING = {"name": "identical-experts", "message": "the experts have not parted; set symmetry to noise"}


def refusing(params: Params, *names: str) -> Params:
    values = params.model_dump(mode="json", by_alias=True)
    return parse_params(values | {"registry": {**REGISTRY, "refuse": names}})


def test_a_finding_that_is_refused_keeps_the_policy_out(params: Params, layout: Layout) -> None:
    write_json(layout.metrics("train-moe"), {"schema": 1, "findings": [FINDING]})
    with pytest.raises(RegistryError) as error:
        register(refusing(params, "dead-expert", "identical-experts"), layout)
    assert str(error.value) == (
        "moe is not registered, because training found what registry.refuse names. identical-experts: the experts have "
        "not parted; set symmetry to noise. Mend that and train again, or take the finding out of registry.refuse"
    )
    assert not (layout.root / "registry").exists()


def test_other_findings_and_good_health_are_registered(params: Params, layout: Layout) -> None:
    write_json(layout.metrics("train-moe"), {"schema": 1, "findings": [FINDING]})
    assert register(refusing(params, "dead-expert"), layout).number == 1
    write_json(layout.metrics("train-moe"), {"schema": 1, "findings": []})
    assert register(refusing(params, "identical-experts"), layout).number == 2


def test_training_that_tells_nothing_of_findings_is_not_taken_for_healthy(params: Params, layout: Layout) -> None:
    with pytest.raises(DataError, match="says nothing of findings; run `mixdpo train moe` again"):
        register(refusing(params, "identical-experts"), layout)
    layout.metrics("train-moe").unlink()
    with pytest.raises(DataError, match=r"metrics/train-moe\.json does not exist"):
        register(refusing(params, "identical-experts"), layout)


def test_what_can_be_refused_is_what_training_can_find(params: Params) -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(training.__file__).parent.glob("*.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {
        node.args[0].value
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
        if isinstance(node.args[0], ast.Constant)
    }
    assert names == set(get_args(Finding))
    with pytest.raises(ConfigError, match=r"registry\.refuse.*got 'identical'"):
        refusing(params, "identical")


def test_the_commit_is_recorded_in_a_repository(params: Params, layout: Layout) -> None:
    git = ["git", "-C", str(layout.root), "-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "params.yaml"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "first"], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert register(params, layout).manifest.lineage["git"] == {"commit": commit, "dirty": False}


def test_lineage_names_the_batches_that_arrived(params: Params, layout: Layout) -> None:
    first = register(params, layout)
    assert first.manifest.lineage["arrivals"] == {}
    manifest = layout.root / params.inputs / "arrivals" / "0001" / "manifest.json"
    write_json(manifest, {"schema": 1})
    # of which nothing was kept: the same tables gave the same policy
    assert register(params, layout).digest == first.digest
    write_json(layout.validated("reviews"), [1])
    assert register(params, layout).manifest.lineage["arrivals"] == {"0001": file_digest(manifest)}


def test_what_is_registered_is_known_without_reading_it_until_anything_about_it_changes(
    params: Params, layout: Layout
) -> None:
    assert registered(params, layout) is None
    version = register(params, layout)
    assert registered(params, layout) == version
    other = params.model_copy(update={"registry": params.registry.model_copy(update={"alias": "next"})})
    assert registered(other, layout) is None
    lock = layout.root / "dvc.lock"
    lock.write_text(lock.read_text(encoding="utf-8") + "# another run\n", encoding="utf-8")
    assert registered(params, layout) is None
    lock.unlink()
    assert registered(params, layout) is None
