"""A mixture of others' experts, from the command line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.config.models import FromConfig
from mixdpo.files import read_json
from mixdpo.policy import MixturePolicy
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.weighting import PriorWeights
from mixdpo.registry import Registry
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

PROMPTS, COMPLETIONS = ["the cat", "a mat"], [" sat on it", " is a mat"]
SHAPE = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=1, width=8, heads=1, context=32)
ARCHITECTURE = {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"}
Cli = Callable[..., Result]


def mixture(experts: int, seed: int, base: int = 0) -> MixturePolicy:
    """Equal bases have equal reference and vocabulary."""
    tokenizer = train_bpe(["the cat sat on the mat and liked it", "a mat is a mat"], 280, 32)
    model = new_causal_lm(SHAPE, tokenizer, base).eval()
    reference = frozen_reference(copy.deepcopy(model))
    models = new_experts(model, experts, ARCHITECTURE, torch.Generator().manual_seed(seed))
    models.perturb(1.0, torch.Generator().manual_seed(seed))
    weights = PriorWeights.uniform(experts)
    return MixturePolicy(
        models, weights, reference, tokenizer, Likelihood(0.1), "annotator", {"architecture": ARCHITECTURE}
    )


@pytest.fixture
def mixdpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command beside the registry, which has reviews@v1 and books@v1 of one base, and films@v1 of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry = Registry(tmp_path / "registry")
    for name, policy in {"reviews": mixture(3, 1), "books": mixture(2, 2), "films": mixture(2, 1, base=1)}.items():
        registry.register(name, policy.save_pretrained(tmp_path / name), {"schema": 1}, "staging", "for the test")
    monkeypatch.setenv("MIXDPO_REGISTRY", str(tmp_path / "registry"))
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def logps(directory: str) -> torch.Tensor:
    return MixturePolicy.from_pretrained(directory).logps(PROMPTS, COMPLETIONS)


def test_experts_of_versions_and_directories_become_one_mixture(mixdpo: Cli) -> None:
    done = mixdpo("compose", "out", "reviews@v1/expert-2", "books@staging", "./reviews/expert-0")
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "expert 0  reviews@v1/expert-2\n"
        "expert 1  books@v1/expert-0\n"
        "expert 2  books@v1/expert-1\n"
        "expert 3  ./reviews/expert-0\n"
        "wrote out: 4 experts, uniform weights\n"
    )
    reviews, books = logps("reviews"), logps("books")
    wanted = torch.stack([reviews[:, 2], books[:, 0], books[:, 1], reviews[:, 0]], dim=-1)
    assert torch.equal(logps("out"), wanted)
    composed = read_json(Path("out/mixture.json"))["description"]["composed"]
    assert composed == ["reviews@v1/expert-2", "books@v1/expert-0", "books@v1/expert-1", "./reviews/expert-0"]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("reviews@v1/expert-3",), "reviews@v1/expert-3 does not exist: that mixture has expert-0 to expert-2"),
        (
            ("reviews@v1", "films@v1/expert-0"),
            "films@v1/expert-0 does not fit reviews@v1/expert-0: it has another refer",
        ),
        (("nothing@v1/expert-0",), "no policy 'nothing@v1': there is no directory"),
    ],
)
def test_what_does_not_go_together_writes_nothing(mixdpo: Cli, parts: tuple[str, ...], told: str) -> None:
    refused = mixdpo("compose", "out", *parts)
    assert refused.exit_code == 1
    assert told in " ".join(refused.stderr.split())
    assert not Path("out").exists()


def test_nothing_is_overwritten_and_parts_must_be_named(mixdpo: Cli) -> None:
    assert mixdpo("compose", "out").exit_code == 2
    refused = mixdpo("compose", "books", "reviews@v1")
    assert refused.exit_code == 2
    assert "books exists; name a directory that does not, or remove it" in refused.stderr
