from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ModelError
from mixdpo.policy import MixturePolicy
from mixdpo.policy.experts import split_causal_lm
from mixdpo.policy.loading import frozen_reference
from mixdpo.policy.tokens import TokenRow, pad

ROWS = [
    TokenRow([0, 40, 41], [50, 51, 0]),
    TokenRow([0], [60]),
    TokenRow([0, 40], [70, 71, 72, 73, 74]),
    TokenRow([0, 43, 44, 45, 46, 47, 48, 49], [52]),
]
KINDS = ["linear", "lowrank", "lora", "independent", "independent-lora"]
MakePolicy = Callable[..., MixturePolicy]
close = torch.testing.assert_close


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", KINDS)
def test_experts_start_at_the_model_they_come_from(
    kind: str, architecture: str, make_policy: MakePolicy, make_model: Callable[..., PreTrainedModel]
) -> None:
    model = make_model(architecture)
    policy = make_policy(kind, architecture, apart=False)
    with torch.no_grad():
        for row, found, reference in zip(
            ROWS, policy.expert_models(pad(ROWS)), policy.reference(pad(ROWS)), strict=True
        ):
            log_probs = model(input_ids=torch.tensor([row.prompt + row.completion])).logits[0].log_softmax(dim=-1)
            places = range(len(row.prompt) - 1, len(row) - 1)
            wanted = sum(log_probs[place, token] for place, token in zip(places, row.completion, strict=True))
            close(found, wanted.expand(3))
            close(reference, wanted.expand(1))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_and_batch_order_change_nothing(kind: str, architecture: str, make_policy: MakePolicy) -> None:
    policy = make_policy(kind, architecture)
    together = policy.expert_models(pad(ROWS))
    assert together.std(dim=-1).min() > 0.01  # the experts do differ
    close(torch.cat([policy.expert_models(pad([row])) for row in ROWS]), together)
    close(policy.expert_models(pad(ROWS[::-1])).flip(0), together)
    longer = [*ROWS, TokenRow([0] * 20, [1] * 20)]
    close(policy.expert_models(pad(longer))[:-1], together)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [1, 3, 1000])
def test_the_tile_size_changes_neither_value_nor_gradient(kind: str, tile: int, make_policy: MakePolicy) -> None:
    models = make_policy(kind).expert_models
    parameters = [part for part in models.parameters() if part.requires_grad]

    def run(tile_tokens: int) -> tuple[Any, ...]:
        logps = models(pad(ROWS), tile_tokens)
        return logps.detach(), *torch.autograd.grad(logps.square().mean(), parameters)

    close(run(tile), run(4096), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_independent_experts_do_not_touch_each_other(make_policy: MakePolicy) -> None:
    models = make_policy("independent").expert_models
    before = models(pad(ROWS))
    next(models.members[1].parameters()).mul_(1.5)
    after = models(pad(ROWS))
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1] - after[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_a_frozen_trunk_is_frozen_and_a_trainable_one_is_not(make_policy: MakePolicy) -> None:
    frozen, trainable = make_policy("lowrank").expert_models, make_policy("lowrank-trainable").expert_models
    assert not any(part.requires_grad for part in frozen.trunk.parameters())
    assert all(part.requires_grad for part in trainable.trunk.parameters())
    assert not any(part.requires_grad for part in make_policy("linear").reference.parameters())


@torch.no_grad()
def test_prompt_features_are_the_mean_embedding_and_state_of_the_prompt_alone(make_policy: MakePolicy) -> None:
    reference = make_policy().reference
    prompts = [TokenRow(row.prompt, []) for row in ROWS]
    together = reference.prompt_features(pad(prompts))
    for row, found in zip(prompts, together, strict=True):
        ids = torch.tensor([row.prompt])
        states = reference.trunk(input_ids=ids).last_hidden_state
        words = reference.trunk.get_input_embeddings()(ids)
        close(found, torch.cat([words[0].mean(dim=0), states[0].mean(dim=0)]))


def test_a_model_that_scales_its_logits_is_refused() -> None:
    config = CohereConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        logit_scale=0.0625,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with pytest.raises(ModelError, match=r"CohereForCausalLM changes its logits after the head \(scaling or soft-"):
        frozen_reference(AutoModelForCausalLM.from_config(config))


def test_a_body_without_a_head_is_refused(make_model: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(ModelError, match="GPT2Model has no body with a linear output head; use a decoder such as"):
        split_causal_lm(make_model().base_model)


def test_making_experts_leaves_the_vocabulary_of_the_reference_alone(
    make_policy: MakePolicy, tokenizer: PreTrainedTokenizerBase
) -> None:
    # GPT-2 ties its head to its embedding: training one must not move the reference's copy of the other
    policy = make_policy("linear", apart=False)
    before = copy.deepcopy(policy.reference.state_dict())
    with torch.no_grad():
        for part in policy.expert_models.parameters():
            part.add_(1.0)
    for name, tensor in policy.reference.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert len(tokenizer) == policy.reference.heads.weight.shape[1]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_selected_experts_are_those_named_and_move_alone(kind: str, make_policy: MakePolicy) -> None:
    models = make_policy(kind).expert_models
    before = models(pad(ROWS))
    chosen = models.select([2, 0, 0])
    close(chosen(pad(ROWS)), before[:, [2, 0, 0]])
    for parameter, row in chosen.expert_parameters(2):
        (parameter if row is None else parameter[row]).mul_(1.5)
    after = chosen(pad(ROWS))
    close(after[:, :2], before[:, [2, 0]])
    assert (after[:, 2] - after[:, 1]).abs().max() > 1e-3
    close(models(pad(ROWS)), before)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_copied_expert_is_equal_to_its_source(kind: str, make_policy: MakePolicy) -> None:
    models = make_policy(kind).expert_models
    before = models(pad(ROWS))
    models.copy_expert(0, 2)
    close(models(pad(ROWS)), before[:, [0, 1, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_an_experts_own_parameters_are_all_that_it_alone_has_gradient_in(kind: str, make_policy: MakePolicy) -> None:
    models = make_policy(kind).expert_models
    models(pad(ROWS))[:, 1].sum().backward()
    own = {id(parameter): row for parameter, row in models.expert_parameters(1)}
    others = {id(p) for k in (0, 2) for p, row in models.expert_parameters(k) if row is None}
    assert own
    for parameter in models.parameters():
        if id(parameter) in own:
            assert parameter.grad is not None
            row = own[id(parameter)]
            rest = [k for k in range(3) if k != row]
            assert row is None or not parameter.grad[rest].any()
            assert (parameter.grad if row is None else parameter.grad[row]).any()
        assert id(parameter) not in others or parameter.grad is None or not parameter.grad.any()
