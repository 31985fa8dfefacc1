"""Talking to a policy: whose comparisons are refused, and where a policy is looked for."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.commands.policies import read_comparisons
from mixdpo.config.models import FromConfig
from mixdpo.errors import DataError
from mixdpo.policy import MixturePolicy
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting
from mixdpo.training.tokenizer import new_causal_lm, train_bpe


def test_comparisons_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    row = {"prompt": "This film", "chosen": " is good.", "rejected": " is bad."}
    path.write_text('{"prompt": "This film", "chosen": " is good.", "rejected": " is bad."}\n\n', encoding="utf-8")
    assert read_comparisons(path) == [row]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no comparison; give at least one line with prompt, chosen and rejected"),
        ("{", r"line 1 is not JSON \(.*\); correct or remove it"),
        ("\n[1]", r"line 2 needs text in prompt, chosen and rejected; got \[1\]"),
        ('{"prompt": "a", "chosen": 1, "rejected": "b"}', "line 1 needs text in prompt, chosen and rejected"),
    ],
)
def test_other_lines_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_comparisons(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine.jsonl does not exist; give a file of JSON lines"):
        read_comparisons(tmp_path / "mine.jsonl")


def test_a_policy_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    result = CliRunner().invoke(main, ["generate", "films@staging", "This film", "--registry", str(registry)])
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert message.startswith(
        f"mixdpo: no policy 'films@staging': there is no directory {Path.cwd()}/films@staging, and"
    )
    assert str(registry) in message


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gated` knows ann, who always gets expert 0, and bob, who gets expert 1; `plain` knows nobody."""
    root = tmp_path_factory.mktemp("mixtures")
    tokenizer = train_bpe(["a film is good", "a film is bad"], 270, 32)
    shape = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=1, width=16, heads=2, context=32)
    architecture = {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"}
    gate = Gate(GateInputs(0, annotators=("ann", "bob")), 2, 0, embedding=1)
    assert gate.embedding is not None
    with torch.no_grad():
        gate.embedding.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0]]))
        gate.layers[-1].weight.copy_(torch.tensor([[20.0], [-20.0]]))
    weightings: dict[str, Weighting] = {"gated": gate, "plain": PriorWeights.uniform(2)}
    for name, weighting in weightings.items():
        model = new_causal_lm(shape, tokenizer, seed=0)
        reference = frozen_reference(copy.deepcopy(model))
        experts = new_experts(model, 2, architecture, torch.Generator().manual_seed(0))
        about = {"architecture": architecture}
        MixturePolicy(experts, weighting, reference, tokenizer, Likelihood(0.1), "annotator", about).save_pretrained(
            root / name
        )
    comparison = {"prompt": "a film is", "chosen": " good", "rejected": " bad"}
    (root / "mine.jsonl").write_text(json.dumps(comparison), encoding="utf-8")
    return root


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("who", "expert"), [("ann", 0), ("bob", 1)])
def test_an_annotator_is_written_for_by_their_expert(mixtures: Path, who: str, expert: int) -> None:
    asked = (mixtures / "gated", "a film is", "--samples", 4, "--max-new-tokens", 1, "--annotator", who)
    result = ask("generate", *asked)
    assert result.exit_code == 0, result.output
    assert result.stdout.count(f"[expert {expert}]") == 4
    assert "stranger" not in result.stderr
    # their comparisons add to what is known of them, and both experts still say the same of each pair
    assert ask("generate", *asked, "--comparisons", mixtures / "mine.jsonl").stdout.count(f"[expert {expert}]") == 4
    assert f"expert {expert}  100.0%" in ask("personalise", *asked[:1], mixtures / "mine.jsonl", *asked[-2:]).stdout


def test_a_stranger_is_told_that_nobody_knows_them(mixtures: Path) -> None:
    result = ask("personalise", mixtures / "gated", mixtures / "mine.jsonl", "--annotator", "Ann")
    assert result.exit_code == 0, result.output
    assert (
        "Ann is none of the 2 annotators whom this policy has met (such as ann, bob); it is treated as" in result.stderr
    )
    assert "expert 0   50.0%" in result.stdout


def test_an_annotator_means_nothing_to_weights_that_know_nobody(mixtures: Path) -> None:
    for asked in (
        ("generate", mixtures / "plain", "a film is"),
        ("personalise", mixtures / "plain", mixtures / "mine.jsonl"),
    ):
        result = ask(*asked, "--annotator", "ann")
        assert result.exit_code == 2
        assert "weights do not depend on the annotator" in " ".join(result.stderr.split())
