from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from mixdpo.errors import ConfigError, DataError, ModelError
from mixdpo.objective import responsibilities
from mixdpo.objective.continuous import gaussian_kl
from mixdpo.policy import MixturePolicy
from mixdpo.policy.continuous import ContinuousPolicy
from mixdpo.policy.heads import LowRankHeads
from mixdpo.policy.latent import Compared, LatentHeads, fit_posteriors
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.tokens import encode_rows

Make = Callable[..., Any]
PROMPTS = ["the cat", "the dog", "a mat", "the cat"]
CHOSEN = [" sat on the mat", " did not", " is a mat", " liked it"]
REJECTED = [" liked it", " sat on the mat and liked it at all", " did not like", " is a mat"]
COMPARISONS = list(zip(PROMPTS, CHOSEN, REJECTED, strict=True))


@pytest.fixture
def policy(make_model: Make, tokenizer: Any) -> ContinuousPolicy:
    """Two tastes and a common change that are all away from where they start."""
    made = ContinuousPolicy.new(make_model(), tokenizer, 2, 3, Likelihood(0.5), generator(), scale=1.0)
    with torch.no_grad():
        made.heads.up[0] = 0.2 * torch.randn(made.heads.up[0].shape, generator=generator(7))
        made.heads.up[1:] *= 3
    return made


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def from_experts(mixture: MixturePolicy) -> ContinuousPolicy:
    """Basis factors equal to K low-rank experts, and no common change."""
    heads = next(mixture.expert_models.models())[0].heads
    assert isinstance(heads, LowRankHeads)
    nothing = (torch.zeros_like(heads.down[:1]), torch.zeros_like(heads.up[:1]))
    down, up = torch.cat([nothing[0], heads.down.detach()]), torch.cat([nothing[1], heads.up.detach()])
    basis = LatentHeads(heads.base, heads.base_bias, down, up)
    return ContinuousPolicy(mixture.reference, basis, mixture.likelihood, mixture.tokenizer)


def test_one_hot_tastes_over_the_factors_of_k_experts_are_the_discrete_mixture(make_policy: Make) -> None:
    mixture = make_policy("lowrank", experts=3)
    policy = from_experts(mixture)
    basis = torch.eye(3)
    torch.testing.assert_close(policy.logps(PROMPTS, CHOSEN, basis), mixture.logps(PROMPTS, CHOSEN))
    margins = mixture.margins(PROMPTS, CHOSEN, REJECTED)
    torch.testing.assert_close(policy.margins(PROMPTS, CHOSEN, REJECTED, basis), margins)
    log_weights, one_user = mixture.log_weights(PROMPTS), torch.zeros(4, dtype=torch.long)
    discrete = responsibilities(policy.margins(PROMPTS, CHOSEN, REJECTED, basis), log_weights, one_user)
    torch.testing.assert_close(discrete[0], mixture.personalise(COMPARISONS))
    weighted = policy.at(basis, mixture.weights(PROMPTS[:1])[0])
    torch.testing.assert_close(weighted.mixture_logps(PROMPTS, CHOSEN), mixture.mixture_logps(PROMPTS, CHOSEN))


def test_no_taste_and_no_common_change_is_the_reference(make_model: Make, tokenizer: Any) -> None:
    new = ContinuousPolicy.new(make_model(), tokenizer, 3, 2, Likelihood(0.5), generator())
    reference = new.at(torch.zeros(3)).reference_logps(PROMPTS, CHOSEN)
    torch.testing.assert_close(new.logps(PROMPTS, CHOSEN, torch.zeros(3))[:, 0], reference, atol=1e-5, rtol=1e-5)
    # and a taste changes it, or the latent could never be learned
    assert not torch.allclose(new.logps(PROMPTS, CHOSEN, torch.ones(3))[:, 0], reference, atol=1e-3)


@pytest.mark.parametrize("tile_tokens", [3, 4096])
def test_heads_in_training_are_the_mixture_at_the_same_points(policy: ContinuousPolicy, tile_tokens: int) -> None:
    """The path that trains and the path that serves agree, in values and in what padding and tiles do to them."""
    z = torch.randn(5, 2, generator=generator())
    sides = [encode_rows(policy.tokenizer, PROMPTS, side) for side in (CHOSEN, REJECTED)]
    compared = Compared.under(policy.reference, *sides)
    logps = compared.logps(policy.heads, z.expand(4, -1, -1), tile_tokens)
    torch.testing.assert_close(logps[0], policy.logps(PROMPTS, CHOSEN, z), atol=1e-4, rtol=1e-5)
    margins = compared.margins(policy.likelihood, *logps)
    torch.testing.assert_close(margins, policy.margins(PROMPTS, CHOSEN, REJECTED, z), atol=1e-4, rtol=1e-5)
    grads = torch.autograd.grad(margins.sum(), [policy.heads.down, policy.heads.up])
    whole = compared.margins(policy.likelihood, *compared.logps(policy.heads, z.expand(4, -1, -1))).sum()
    for grad, wanted in zip(grads, torch.autograd.grad(whole, [policy.heads.down, policy.heads.up]), strict=True):
        assert (grad != 0).any(dim=(1, 2)).all()
        torch.testing.assert_close(grad, wanted, atol=1e-4, rtol=1e-4)


def test_no_comparisons_leave_the_prior_and_more_move_away_from_it(policy: ContinuousPolicy) -> None:
    prior = policy.personalise([])
    assert prior.mean.tolist() == [0, 0]
    assert prior.scale.tolist() == [1, 1]
    distances = []
    for times in (1, 4):
        q = policy.personalise(COMPARISONS * times, steps=20, points=9)
        distances.append(gaussian_kl(q.mean, q.scale.log()).item())
    assert 0 < distances[0] < distances[1]


def test_personalising_explains_the_comparisons_and_is_the_same_each_time(policy: ContinuousPolicy) -> None:
    q = policy.personalise(COMPARISONS, seed=3)
    torch.manual_seed(99)
    again = policy.personalise(COMPARISONS, seed=3)
    assert torch.equal(q.mean, again.mean)
    assert torch.equal(q.scale, again.scale)
    before = policy.predict(COMPARISONS, policy.personalise([]))
    after = policy.predict(COMPARISONS, q)
    assert after.mean() > before.mean() + 0.05
    # the heads took no part
    assert policy.heads.up.grad is None


def test_posteriors_of_several_annotators_do_not_see_each_other(policy: ContinuousPolicy) -> None:
    sides = [encode_rows(policy.tokenizer, PROMPTS, side) for side in (CHOSEN, REJECTED)]
    compared = Compared.under(policy.reference, *sides)
    member = torch.tensor([0, 1, 1, 0])
    together = fit_posteriors(compared, member, 3, policy.heads, policy.likelihood, 60, 0.1, 16, 0)
    for annotator in range(2):
        alone = policy.personalise([COMPARISONS[place] for place in (member == annotator).nonzero()[:, 0].tolist()])
        torch.testing.assert_close(together.mean[annotator], alone.mean, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.scale[annotator], alone.scale, atol=1e-3, rtol=1e-3)
    # who has said nothing keeps the prior
    torch.testing.assert_close(together.mean[2], torch.zeros(2))
    torch.testing.assert_close(together.scale[2], torch.ones(2))


def test_generation_at_a_taste_is_that_of_its_mixture_row_by_row(policy: ContinuousPolicy) -> None:
    z = torch.tensor([[1.5, 0.0], [-1.0, 2.0], [1.5, 0.0], [0.0, 0.0]])
    each = policy.generate(PROMPTS, z, max_new_tokens=8, seed=4)
    for row in range(4):
        alone = policy.generate(PROMPTS, z[row], max_new_tokens=8, seed=4)
        assert alone.texts[row] == each.texts[row]
        assert alone.texts == policy.at(z[row]).generate(PROMPTS, max_new_tokens=8, seed=4).texts
    assert each.experts[0] == each.experts[2] != each.experts[1]


def test_a_saved_policy_comes_back_with_its_likelihood(policy: ContinuousPolicy, tmp_path: Path) -> None:
    policy.likelihood = Likelihood(0.3, per_token=True, epsilon=0.05)
    loaded = ContinuousPolicy.from_pretrained(policy.save_pretrained(tmp_path / "policy"))
    z = torch.randn(2, 2, generator=generator())
    assert torch.equal(loaded.logps(PROMPTS, CHOSEN, z), policy.logps(PROMPTS, CHOSEN, z))
    assert torch.equal(loaded.margins(PROMPTS, CHOSEN, REJECTED, z), policy.margins(PROMPTS, CHOSEN, REJECTED, z))
    assert loaded.likelihood.describe() == policy.likelihood.describe()
    assert loaded.dimensions == 2


def test_a_taste_is_a_plain_mixture_that_saves_and_exports(policy: ContinuousPolicy, tmp_path: Path) -> None:
    z = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    mixture = policy.at(z)
    loaded = MixturePolicy.from_pretrained(mixture.save_pretrained(tmp_path / "mixture"))
    torch.testing.assert_close(loaded.logps(PROMPTS, CHOSEN), policy.logps(PROMPTS, CHOSEN, z), atol=1e-5, rtol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(mixture.export_expert(1, tmp_path / "expert"))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        found: Tensor = model(input_ids=ids).logits[0]
        hidden = policy.reference.trunk(input_ids=ids).last_hidden_state[0]
        wanted = policy.heads(hidden, z[1].expand(3, 1, -1))[:, 0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_bad_input_says_what_to_give(policy: ContinuousPolicy, make_model: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"z has shape \(3,\).* latent has 2 dimensions: give \(2,\)"):
        policy.logps(PROMPTS, CHOSEN, torch.zeros(3))
    with pytest.raises(ConfigError, match="3 rows of z for 4 prompts; give one row a prompt"):
        policy.generate(PROMPTS, torch.zeros(3, 2))
    with pytest.raises(DataError, match="no comparisons; give at least one"):
        policy.predict([], policy.personalise([]))
    with pytest.raises(DataError, match="lacks rejected"):
        policy.personalise([{"prompt": "a", "chosen": "b"}])
    with pytest.raises(ConfigError, match="latent of 0 dimensions"):
        ContinuousPolicy.new(make_model(), policy.tokenizer, 0, 2, Likelihood(0.5), generator())
    with pytest.raises(ModelError, match=r"not a continuous policy: it has no continuous\.json"):
        ContinuousPolicy.from_pretrained(tmp_path)


def test_a_directory_that_does_not_fit_is_refused(policy: ContinuousPolicy, tmp_path: Path) -> None:
    path = policy.save_pretrained(tmp_path / "policy")
    about = json.loads((path / "continuous.json").read_text())
    (path / "continuous.json").write_text(json.dumps(about | {"dimensions": 3}))
    with pytest.raises(ModelError, match=r"its files do not fit its continuous\.json"):
        ContinuousPolicy.from_pretrained(path)
    (path / "continuous.json").write_text(json.dumps(about | {"schema": 99}))
    with pytest.raises(ModelError, match="has schema 99, this mixdpo reads 1"):
        ContinuousPolicy.from_pretrained(path)
    (path / "continuous.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        ContinuousPolicy.from_pretrained(path)
    del about["rank"]
    (path / "continuous.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="lacks rank"):
        ContinuousPolicy.from_pretrained(path)
