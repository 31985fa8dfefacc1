"""A policy's opinion of held-out pairs takes into account all that its weights depend on."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from mixdpo.config.models import Candidates, FromConfig
from mixdpo.data.schema import PREFERENCES
from mixdpo.evaluation.heldout import HeldOut, judge_pairs
from mixdpo.evaluation.samples import Prompts, draw
from mixdpo.policy import MixturePolicy
from mixdpo.policy.gate_inputs import Categories, GateInputs, Numbers
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.weighting import DomainWeights, Gate, PriorWeights, Weighting
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

INPUTS = GateInputs(0, (Categories("domain", ("book", "film")), Numbers("age", 40.0, 10.0)), ("ann", "bob"))


@pytest.fixture(scope="module")
def policy() -> MixturePolicy:
    tokenizer = train_bpe(["a film is a film", "a book is a book"], 270, 32)
    shape = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=1, width=16, heads=2, context=32)
    model = new_causal_lm(shape, tokenizer, seed=0)
    architecture = {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"}
    reference = frozen_reference(copy.deepcopy(model))
    experts = new_experts(model, 3, architecture, torch.Generator().manual_seed(0))
    return MixturePolicy(
        experts, PriorWeights.uniform(3), reference, tokenizer, Likelihood(0.1), "pair", {"architecture": architecture}
    )


def gate() -> Weighting:
    weighting = Gate(INPUTS, 3, 0, torch.Generator().manual_seed(0), embedding=2)
    with torch.no_grad():
        weighting.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    return weighting


@pytest.fixture(scope="module")
def pairs() -> HeldOut:
    rows = [
        {
            "pair_id": f"{place}",
            "prompt_id": f"{place}",
            "prompt": "a film is",
            "chosen": " a film",
            "rejected": " a book",
            "chosen_finished": True,
            "rejected_finished": True,
            "annotator": ("ann", "bob", "zoe")[place % 3],
            "style": None,
            "domain": ("film", "book")[place % 2],
            "split": "test",
            "metadata": json.dumps({"age": 30 + place, "mood": "good"} if place % 4 else {}),
        }
        for place in range(12)
    ]
    return HeldOut.of(pa.Table.from_pylist(rows, schema=PREFERENCES))


def test_each_pair_is_weighed_as_its_annotators(policy: MixturePolicy, pairs: HeldOut) -> None:
    policy.weighting = gate()
    found = judge_pairs(policy, pairs.columns).log_weights
    columns = pairs.columns
    for place in range(len(pairs)):
        age = json.loads(columns["metadata"][place]).get("age")
        known = {"domain": [columns["domain"][place]], "age": [age]}
        wanted = policy.log_weights([columns["prompt"][place]], [columns["annotator"][place]], known)
        np.testing.assert_allclose(found[place], wanted[0], rtol=1e-5, atol=1e-6)
    assert len({tuple(row.round(6)) for row in found}) > 6


def test_weights_of_one_kind_for_all_ask_for_nothing(policy: MixturePolicy, pairs: HeldOut) -> None:
    policy.weighting = PriorWeights(torch.tensor([0.0, 0.25, 0.75]).log())
    found = judge_pairs(policy, pairs.columns).log_weights
    assert np.isfinite(found).all()  # though one expert has no weight at all
    np.testing.assert_allclose(np.exp(found), np.tile([0.0, 0.25, 0.75], (12, 1)), atol=1e-7)


def test_samples_are_weighed_by_their_domain(policy: MixturePolicy) -> None:
    policy.weighting = DomainWeights(3, 0.8, {"film": 1, "book": 2})
    rows = [{"prompt_id": name, "prompt": "a film is", "domain": name} for name in ("film", "book", "song")]
    settings = Candidates.model_construct(max_new_tokens=2, temperature=1.0, top_p=1.0, batch=8)
    weights = draw("moe", policy, Prompts.repeated(rows, samples=1), settings, seed=0).weights
    np.testing.assert_allclose(weights, [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [1 / 3] * 3], rtol=1e-6)
