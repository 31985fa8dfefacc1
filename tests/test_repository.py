"""What the repository promises about itself: its top level, its lock, and where which imports are allowed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "mixdpo").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
CORE = [path for path in SOURCES if path.relative_to(ROOT).parts[1] in ("objective", "policy", "training")]
# what a bare GPU image has, and peft for LoRA experts where they are used
CORE_MAY_IMPORT = {"torch", "transformers", "safetensors", "tokenizers", "numpy", "peft", "mixdpo"} | set(
    sys.stdlib_module_names
)
MAX_LINES = 400

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# package → (version, its block of hashes)
LOCKED = {
    match["name"]: (match["version"], match["hashes"])
    for match in re.finditer(r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^ ]+)(?P<hashes>.*(?:\n .*)*)", LOCK, re.MULTILINE)
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_top_level_is_what_the_architecture_names() -> None:
    for name in ("flows", "mixdpo", "data", "tests", "profiles", "docs/decisions"):
        assert (ROOT / name).is_dir(), name
    files = ("dvc.yaml", "params.yaml", "prefect.yaml", "pyproject.toml", "requirements.lock", "Dockerfile", "Makefile")
    for name in (*files, "README.md", "CHANGELOG.md", ".ci/run"):
        assert (ROOT / name).is_file(), name


def test_every_locked_package_has_hashes_and_torch_stands_beside() -> None:
    assert len(LOCKED) == len(re.findall(r"^[^ #\n]", LOCK, re.MULTILINE))
    assert "torch" not in LOCKED
    assert re.search(r"^# torch: torch==2\.13\.0$", LOCK, re.MULTILINE)
    assert [name for name, (_, hashes) in LOCKED.items() if "--hash=sha256:" not in hashes] == []


def test_lock_holds_fastapi_where_prefect_starts() -> None:
    assert LOCKED["prefect"][0] == "3.8.8"
    major, minor, *_ = LOCKED["fastapi"][0].split(".")
    assert (int(major), int(minor)) < (0, 151)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_pickled_and_no_code_comes_with_a_model(path: Path) -> None:
    assert not imports(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    for call in calls(path):
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        if ast.unparse(call.func) in ("torch.load", "torch.save"):
            assert ast.unparse(call.func) == "torch.load", "torch.save pickles; write safetensors"
            assert ast.unparse(named.get("weights_only", ast.Constant(False))) == "True"
        assert ast.unparse(named.get("trust_remote_code", ast.Constant(False))) == "False"


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_needs_only_what_a_bare_image_has(path: Path) -> None:
    assert imports(path) <= CORE_MAY_IMPORT


@pytest.mark.parametrize("statement", ["import mixdpo", "import mixdpo.cli", "import flows.graph"])
def test_start_up_is_quick(statement: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'evaluate', 'great_expectations', 'pandas', 'prefect', 'dvc', 'ray'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_image_runs_as_a_user_without_rights_on_a_base_that_is_named_exactly() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = dockerfile.split("\nFROM ")[1:]
    assert re.search(r"^ARG BASE=python:3\.11\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    targets = {stage.split("\n")[0].split(" AS ")[1]: stage for stage in stages}
    for name in ("cpu", "cuda"):
        assert targets[name].strip().endswith("USER 1000"), name
    assert list(targets)[-1] == "cpu"  # what `docker build` makes when no target is named


def test_composed_servers_are_open_to_this_machine_alone_and_have_no_password_of_ours() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    secrets = re.findall(r"(?:PASSWORD|SECRET|ACCESS)\w*: \"?(.*)", text)
    assert secrets
    assert all(secret.startswith("${") and ":?" in secret for secret in secrets)
    assert not re.search(r"image: \S+:latest|image: postgres$", text)
    wanted = set(re.findall(r"\$\{(\w+):[?-]", text)) - {"POSTGRES_IMAGE"}
    offered = (ROOT / "compose.env.example").read_text(encoding="utf-8")
    assert wanted == set(re.findall(r"^(\w+)=", offered, re.MULTILINE))
    assert ".env" in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
