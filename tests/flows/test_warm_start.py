"""params.yaml, rewritten to go on from a version; and what `mixdpo sft` then makes of it."""

from __future__ import annotations

import copy
import difflib
import shutil
from pathlib import Path

import pytest
import torch
from prefect import flow

from flows.retrain import go_on_from
from flows.warm_start import warm_start
from mixdpo.config import Params, load_params
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import REVIEWS, text_id, write_table
from mixdpo.errors import ConfigError, RegistryError
from mixdpo.files import directory_digest
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.base import Base, base_of, reference_difference
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, load_causal_lm, new_experts
from mixdpo.policy.weighting import PriorWeights
from mixdpo.registry import Registry
from mixdpo.stages import sft
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

ROOT = Path(__file__).parents[2]


def mixture(params: Params, experts: int, seed: int) -> MixturePolicy:
    """A mixture over one reference, the same for every seed."""
    base = params.sft.base
    assert base.kind == "config"
    tokenizer = train_bpe([review["text"] for review in generate_reviews(40, 10, seed=0)], 300, base.context)
    shape = base.model_copy(update={"vocabulary": 300, "layers": 1, "width": 16})
    model = new_causal_lm(shape, tokenizer, 0).eval()
    reference = frozen_reference(copy.deepcopy(model))
    architecture = params.policies["moe"].architecture.model_dump(mode="json")
    models = new_experts(model, experts, architecture, torch.Generator().manual_seed(seed))
    models.perturb(1.0, torch.Generator().manual_seed(seed))
    weights = PriorWeights.uniform(experts)
    return MixturePolicy(
        models, weights, reference, tokenizer, Likelihood(0.1), "annotator", {"architecture": architecture}
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a profile's params.yaml; films has v1 and v2 of one reference, v1 in production."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MIXDPO_REGISTRY", str(tmp_path / "registry"))
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / "profiles" / "demo.yaml", root / "params.yaml")
    registry = Registry(tmp_path / "registry")
    for number, alias in ((1, "production"), (2, "staging")):
        policy = mixture(load_params(root / "params.yaml"), 3, number)
        directory = policy.save_pretrained(tmp_path / f"policy-{number}")
        registry.register("films", directory, {"schema": 1}, alias, "for the test")
    return root


def changed_lines(root: Path, before: str) -> list[str]:
    after = (root / "params.yaml").read_text(encoding="utf-8")
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


def test_the_alias_becomes_a_version_and_all_else_stays_as_it_was(project: Path) -> None:
    before = (project / "params.yaml").read_text(encoding="utf-8")
    told = warm_start(project, "films@production")
    [base] = (project / "data" / "external" / "bases").iterdir()
    assert base.name == f"films-{directory_digest(base)[:12]}"
    assert told == [
        f"sft.base: {{kind: pretrained, model: bases/{base.name}, revision: null}}",
        "sft.epochs: 0",
        "policies.moe.start: [films@v1]",
        "policies.moe.symmetry: {kind: none}",
    ]
    changes = changed_lines(project, before)
    assert [line for line in changes if line[0] == "+"] == [
        f"+  base: {{kind: pretrained, model: bases/{base.name}, revision: null}}",
        "+  epochs: 0",
        "+    symmetry: {kind: none}",
        "+    start: [films@v1]",
    ]
    assert len([line for line in changes if line[0] == "-"]) == 3
    params = load_params(project / "params.yaml")
    assert params.policies["moe"].start == ("films@v1",)
    assert params.policies["mix"].start == ()


@flow(name="go-on")
def go_on(root: Path) -> None:
    go_on_from(root, "films@production")


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_tells_what_it_changed(project: Path, task_log: list[tuple[float, str]]) -> None:
    go_on(project)
    assert "params.yaml: policies.moe.start: [films@v1]" in [line for _, line in task_log]
    go_on(project)
    assert task_log[-2][1] == "params.yaml: it starts from films@production already"


def test_again_changes_nothing_and_the_next_version_only_the_start(project: Path) -> None:
    warm_start(project, "films@production")
    before = (project / "params.yaml").read_text(encoding="utf-8")
    inputs = directory_digest(project / "data" / "external")
    assert warm_start(project, "films@production") == []
    # a version that was trained on from the one before has its reference: nothing but the start is new
    assert warm_start(project, "films@staging") == ["policies.moe.start: [films@v2]"]
    assert changed_lines(project, before) == ["-    start: [films@v1]", "+    start: [films@v2]"]
    assert directory_digest(project / "data" / "external") == inputs


def test_sft_without_training_is_the_versions_reference(project: Path, tmp_path: Path) -> None:
    warm_start(project, "films@production")
    layout, params = Layout(project), load_params(project / "params.yaml")
    texts = [review["text"] for review in generate_reviews(20, 5, seed=0)]
    rows = [
        {"review_id": text_id(text), "text": text, "domain": "movie", "split": ("train", "validation")[place % 2]}
        for place, text in enumerate(texts)
    ]
    write_table(layout.validated("reviews"), rows, REVIEWS)
    sft.run(params, layout)
    model, tokenizer = load_causal_lm(layout.sft)
    architecture = params.policies["moe"].architecture.model_dump(mode="json")
    before = MixturePolicy.from_pretrained(tmp_path / "policy-1")
    assert reference_difference(Base(frozen_reference(model), tokenizer, architecture), base_of(before, 0)) is None


def test_what_cannot_be_gone_on_from_leaves_params_as_they_are(project: Path, tmp_path: Path) -> None:
    before = (project / "params.yaml").read_text(encoding="utf-8")
    registry = Registry(tmp_path / "registry")
    many = mixture(load_params(project / "params.yaml"), 4, 5).save_pretrained(tmp_path / "many")
    registry.register("many", many, {"schema": 1}, "production", "for the test")
    with pytest.raises(ConfigError, match=r"many@v1 has 4 experts but policies\.moe\.experts is 3; raise it to 4"):
        warm_start(project, "many@production")
    with pytest.raises(RegistryError, match="films@nowhere does not exist: films has versions v1 to v2"):
        warm_start(project, "films@nowhere")
    assert changed_lines(project, before) == []
    (project / "params.yaml").write_text(before.replace("    experts: 3\n", "    experts: 4\n"), encoding="utf-8")
    # with an expert more, symmetry still has to be broken: it stays
    assert "policies.moe.symmetry: {kind: none}" not in warm_start(project, "films@v1")


def test_a_changed_base_is_noticed(project: Path) -> None:
    warm_start(project, "films@v1")
    [base] = (project / "data" / "external" / "bases").iterdir()
    (base / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        RegistryError, match=r"is not the reference of films@v1: expected digest .*; remove that direct"
    ):
        warm_start(project, "films@v1")
