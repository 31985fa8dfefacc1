from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ConfigError, ModelError
from mixdpo.policy import MixturePolicy
from mixdpo.policy.experts import IndependentExperts
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import experts_of, frozen_reference
from mixdpo.policy.tokens import TokenRow, encode_prompts, encode_rows, pad
from mixdpo.policy.weighting import Gate

MakePolicy = Callable[..., MixturePolicy]
MakeModel = Callable[..., PreTrainedModel]
PROMPTS, COMPLETIONS = ["the cat", "a mat", "the dog"], [" sat on it", "", " did not like the cat"]
close = torch.testing.assert_close


def everything(policy: MixturePolicy) -> tuple[torch.Tensor, ...]:
    return (
        policy.logps(PROMPTS, COMPLETIONS),
        policy.reference_logps(PROMPTS, COMPLETIONS),
        policy.weights(PROMPTS),
        policy.mixture_logps(PROMPTS, COMPLETIONS),
    )


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["linear", "lowrank", "lowrank-trainable", "lora", "independent", "independent-lora"])
@pytest.mark.parametrize("gated", [False, True])
def test_what_is_saved_loads_to_the_same_log_probs(
    kind: str, architecture: str, gated: bool, make_policy: MakePolicy, tmp_path: Path
) -> None:
    policy = make_policy(kind, architecture, gated=gated)
    loaded = MixturePolicy.from_pretrained(policy.save_pretrained(tmp_path / "mixture"))
    for found, wanted in zip(everything(loaded), everything(policy), strict=True):
        close(found, wanted, rtol=0, atol=0)
    assert loaded.likelihood.describe() == policy.likelihood.describe()
    assert (loaded.latent, loaded.description) == (policy.latent, policy.description)
    frozen = [name for name, part in policy.expert_models.named_parameters() if not part.requires_grad]
    assert [name for name, part in loaded.expert_models.named_parameters() if not part.requires_grad] == frozen


def test_a_saved_policy_can_be_saved_again_over_itself(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy("lowrank")
    directory = policy.save_pretrained(tmp_path / "mixture")
    MixturePolicy.from_pretrained(directory).save_pretrained(directory)
    close(everything(MixturePolicy.from_pretrained(directory)), everything(policy), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mixture"]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["linear", "lowrank", "independent"])
@torch.no_grad()
def test_an_exported_expert_is_a_plain_model_with_the_same_log_probs(
    kind: str, architecture: str, make_policy: MakePolicy, tmp_path: Path
) -> None:
    policy = make_policy(kind, architecture)
    for expert in range(policy.experts):
        directory = policy.export_expert(expert, tmp_path / str(expert))
        model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
        start = [tokenizer.bos_token_id]
        for prompt, completion, wanted in zip(
            PROMPTS, COMPLETIONS, policy.logps(PROMPTS, COMPLETIONS)[:, expert], strict=True
        ):
            before = start + tokenizer(prompt)["input_ids"]
            after = [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
            log_probs = model(input_ids=torch.tensor([before + after])).logits[0].log_softmax(dim=-1)
            said = log_probs[len(before) - 1 : -1].gather(-1, torch.tensor(after, dtype=torch.long)[:, None])
            close(said.sum(), wanted, rtol=1e-5, atol=1e-5)


def test_an_expert_that_does_not_exist_is_not_exported(make_policy: MakePolicy, tmp_path: Path) -> None:
    for expert in (3, -1):
        with pytest.raises(ConfigError) as error:
            make_policy().export_expert(expert, tmp_path / "x")
        assert str(error.value) == f"expert {expert} does not exist: this mixture has experts 0 to 2"
    assert not (tmp_path / "x").exists()


def test_a_directory_without_a_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        MixturePolicy.from_pretrained(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not a mixture: it has no mixture.json; name a directory that `mixdpo train` or `mixdpo pull` "
        f"wrote"
    )


@pytest.fixture
def saved(make_policy: MakePolicy, tmp_path: Path) -> Path:
    return make_policy("linear").save_pretrained(tmp_path / "mixture")


def change_description(directory: Path, change: Callable[[dict], object]) -> None:
    about = json.loads((directory / "mixture.json").read_text())
    change(about)
    (directory / "mixture.json").write_text(json.dumps(about))


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as error:
        MixturePolicy.from_pretrained(directory)
    return str(error.value)


def test_a_description_that_cannot_be_read_is_refused(saved: Path) -> None:
    change_description(saved, lambda about: about.pop("likelihood"))
    assert refusal(saved) == f"{saved}/mixture.json lacks likelihood; pull, copy or train it again"
    change_description(saved, lambda about: about.update(schema=99))
    assert "has schema 99, this mixdpo reads 2; use a matching mixdpo" in refusal(saved)
    (saved / "mixture.json").write_text("{")
    assert "mixture.json is not JSON" in refusal(saved)


def test_heads_that_do_not_fit_are_refused(saved: Path) -> None:
    tensors = load_file(saved / "expert-1.safetensors")
    save_file({"weight": tensors["weight"][:-1]}, saved / "expert-1.safetensors")
    assert "its files do not fit its mixture.json (expert 1: weight is (" in refusal(saved)
    save_file({"up": tensors["weight"]}, saved / "expert-1.safetensors")
    assert "expert 1 has ['up'] where ['weight'] were expected" in refusal(saved)


def test_fewer_files_than_experts_are_refused(saved: Path) -> None:
    (saved / "expert-2.safetensors").unlink()
    assert "its files do not fit its mixture.json" in refusal(saved)


def test_more_experts_than_weights_are_refused(saved: Path) -> None:
    save_file({"log_weights": torch.zeros(2)}, saved / "weights.safetensors")
    assert "its files do not fit its mixture.json" in refusal(saved)
    assert refusal(saved).endswith("pull or train it again")


def test_a_damaged_file_is_refused(saved: Path) -> None:
    file = saved / "expert-0.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert "its files do not fit its mixture.json" in refusal(saved)


@pytest.fixture
def of_own_references(make_model: MakeModel, tokenizer: PreTrainedTokenizerBase) -> MixturePolicy:
    """Two experts, each started from a reference of its own and then moved; the two are of different families."""
    references = IndependentExperts(
        [frozen_reference(make_model("gpt2", seed=1)), frozen_reference(make_model("llama", seed=2))]
    )
    experts = experts_of(references)
    with torch.no_grad():
        for part in experts.parameters():
            part.mul_(1.1)
    description = {"architecture": {"kind": "independent", "lora": None}}
    weighting = Gate(GateInputs(2 * 16), 2, 0)
    return MixturePolicy(experts, weighting, references, tokenizer, Likelihood([0.5, 0.25]), "annotator", description)


def test_references_of_each_experts_own_are_saved_and_loaded(of_own_references: MixturePolicy, tmp_path: Path) -> None:
    policy = of_own_references
    directory = policy.save_pretrained(tmp_path / "mixture")
    assert (directory / "reference" / "model.safetensors").is_file()
    assert (directory / "reference-1" / "model.safetensors").is_file()
    loaded = MixturePolicy.from_pretrained(directory)
    for found, wanted in zip(everything(loaded), everything(policy), strict=True):
        close(found, wanted, rtol=0, atol=0)
    assert not any(part.requires_grad for part in loaded.reference.parameters())
    assert all(part.requires_grad for part in loaded.expert_models.parameters())
    plain = AutoModelForCausalLM.from_pretrained(policy.export_expert(1, tmp_path / "expert"))
    assert plain.config.model_type == "llama"


@torch.no_grad()
def test_each_expert_is_measured_against_its_own_reference(of_own_references: MixturePolicy) -> None:
    policy = of_own_references
    chosen, rejected = COMPLETIONS, COMPLETIONS[::-1]
    change = [policy.logps(PROMPTS, side) - policy.reference_logps(PROMPTS, side) for side in (chosen, rejected)]
    close(policy.margins(PROMPTS, chosen, rejected), torch.tensor([0.5, 0.25]) * (change[0] - change[1]))
    alone = [
        policy.reference.select([expert])(pad(encode_rows(policy.tokenizer, PROMPTS, chosen)))[:, 0]
        for expert in range(2)
    ]
    close(policy.reference_logps(PROMPTS, chosen), torch.stack(alone, dim=-1))
    first = next(policy.reference.models())[0]
    rows = [TokenRow(ids, []) for ids in encode_prompts(policy.tokenizer, PROMPTS)]
    close(policy.prompt_features(PROMPTS), first.prompt_features(pad(rows)))


def test_a_reference_that_is_missing_is_refused(of_own_references: MixturePolicy, tmp_path: Path) -> None:
    directory = of_own_references.save_pretrained(tmp_path / "mixture")
    shutil.rmtree(directory / "reference-1")
    assert "mixture/reference-1' (revision None)" in refusal(directory)
