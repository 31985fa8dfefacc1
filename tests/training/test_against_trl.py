"""With one expert this is DPO as TRL computes it: the same loss and the same gradients, on the same batch.

So it is with label smoothing (cDPO; here `noise` of kind `smoothed`). TRL leaves it out of its sigmoid loss, but its
loss "aot", which sorts a batch before it compares, is cDPO on a batch of one pair, where nothing can be sorted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.config.estep import Tempering
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import new_experts
from mixdpo.policy.tokens import pad
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training.estep import EStep
from mixdpo.training.mixture import Mixture, weigh
from mixdpo.training.mstep import m_step_loss

# TRL asks transformers by an old name
pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing` is deprecated:FutureWarning")

BETA = 0.3
SHARED = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}


@pytest.fixture(params=[0.0, 0.2], ids=["dpo", "cdpo"])
def label_smoothing(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture
def dpo_trainer(label_smoothing: float, new_model: Callable[[], Any], tokenizer: Any, tmp_path: Path) -> Any:
    pytest.importorskip("trl", reason="TRL comes with the dev extra")
    datasets = pytest.importorskip("datasets", reason="datasets comes with the pipeline extra")
    from trl import DPOConfig, DPOTrainer

    model = untied(new_model())
    shake(model)
    row = {"prompt": ["the wall is"], "chosen": [" red"], "rejected": [" green"]}
    return DPOTrainer(
        model=model,
        ref_model=untied(new_model()),
        args=DPOConfig(
            output_dir=str(tmp_path),
            beta=BETA,
            loss_type="aot" if label_smoothing else "sigmoid",
            label_smoothing=label_smoothing,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_dropout=True,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict(row),
        processing_class=tokenizer,
    )


def untied(model: Any) -> Any:
    """Head and embedding as parameters of their own, as expert heads are."""
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


@torch.no_grad()
def shake(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_loss_and_gradients_are_trls(
    dpo_trainer: Any, label_smoothing: float, make_task: Callable[..., Any], make_policy: Callable[..., Any]
) -> None:
    pairs = make_task([6, 6]).pairs
    model = copy.deepcopy(dpo_trainer.model)
    rows = [
        {"prompt_ids": chosen.prompt, "chosen_ids": chosen.completion, "rejected_ids": rejected.completion}
        for chosen, rejected in zip(pairs.chosen, pairs.rejected, strict=True)
    ]
    batches = [[row] for row in rows] if label_smoothing else [rows]
    losses = [
        dpo_trainer.compute_loss(dpo_trainer.model, dpo_trainer.data_collator(batch)) / len(batches)
        for batch in batches
    ]
    theirs = torch.stack(losses).sum()
    theirs.backward()

    experts = new_experts(model, 1, SHARED, torch.Generator())
    assert isinstance(experts, SharedTrunk)
    mixture = Mixture(experts, PriorWeights.uniform(1), Likelihood(BETA, epsilon=label_smoothing))
    smoothed = {"kind": "smoothed", "epsilon": label_smoothing}
    policy = make_policy(1, noise=smoothed if label_smoothing else None)
    places = list(range(len(pairs)))
    result = weigh(mixture, pairs, places, experts(pad(pairs.rows(places))))
    assert result.margins.abs().max() > 0.05  # away from the reference, where all losses are ln 2
    logits = mixture.likelihood.logits(result.margins)
    estep = EStep(policy, Tempering(start=1.0, steps=0), pairs, 1, len(pairs), seed=0)
    assigned = estep(0, places, logits.detach(), result.log_weights)
    ours, _ = m_step_loss(result, logits, assigned, mixture, policy, step=0)
    ours.backward()

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    wanted = {name: parameter.grad for name, parameter in dpo_trainer.model.named_parameters()}
    found = {f"transformer.{name}": parameter.grad for name, parameter in experts.trunk.named_parameters()}
    assert experts.heads.weight.grad is not None
    found["lm_head.weight"] = experts.heads.weight.grad[0]
    assert found.keys() == wanted.keys()
    assert max(gradient.abs().max() for gradient in wanted.values()) > 1e-3
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=0, atol=1e-5, msg=name)
