"""A whole project at toy size, with real models that were never trained, as far as `evaluate` and `report` read it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mixdpo.config import Params, parse_params
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import PREFERENCES, read_table, scores_schema, text_id, write_table
from mixdpo.files import write_json
from mixdpo.layout import TABLES, Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, load_causal_lm, new_experts
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer
from mixdpo.stages import reference
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"
ANNOTATORS, PAIRS, PROMPTS = 6, 4, 8


@pytest.fixture(scope="session")
def toy_params() -> Params:
    """The demo's parameters at toy size: two rows a prompt, six new tokens."""
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    values["sft"]["base"] |= {"vocabulary": 300, "layers": 1, "width": 16, "heads": 2}
    values["rewards"]["training"] |= {"vocabulary": 300, "width": 16}
    values["candidates"] |= {"max_new_tokens": 6, "batch": 8}
    values["candidates"]["prompts"] = {"train": 1, "validation": 1, "test": PROMPTS}
    values["evaluation"] = {"samples_per_prompt": 2, "bootstrap": 100, "examples": 2}
    return parse_params(values)


@pytest.fixture(scope="session")
def toy_project(toy_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Everything that lies there before `evaluate` runs. Tests that change it work on a copy."""
    layout = Layout(tmp_path_factory.mktemp("project"))
    texts = [review["text"] for review in generate_reviews(60, 10, seed=0)]
    _policies(toy_params, layout, texts)
    _reward_models(toy_params, layout, texts)
    _tables(toy_params, layout, texts)
    _metrics(toy_params, layout)
    return layout


def _policies(params: Params, layout: Layout, texts: list[str]) -> None:
    base = params.sft.base
    assert base.kind == "config"
    tokenizer = train_bpe(texts, base.vocabulary, base.context)
    new_causal_lm(base, tokenizer, seed=0).save_pretrained(layout.sft)
    tokenizer.save_pretrained(layout.sft)
    for name, policy in params.policies.items():
        model, tokenizer = load_causal_lm(layout.sft)
        generator = torch.Generator().manual_seed(1)
        reference = frozen_reference(copy.deepcopy(model))
        experts = new_experts(model, policy.experts, policy.architecture.model_dump(), generator)
        for each in {id(each): each for each, _ in experts.models()}.values():
            each.heads.perturb(0.5, generator)
        weighting: Weighting = PriorWeights.uniform(policy.experts)
        if policy.weights.kind == "gate":
            weighting = Gate(GateInputs(2 * base.width), policy.experts, 0, generator)
        description = policy.model_dump(mode="json")
        mixture = MixturePolicy(experts, weighting, reference, tokenizer, Likelihood(0.1), policy.latent, description)
        mixture.save_pretrained(layout.policy(name))


def _reward_models(params: Params, layout: Layout, texts: list[str]) -> None:
    settings = params.rewards.training
    tokenizer = train_phrase_tokenizer(texts, settings.vocabulary, settings.max_tokens)
    for dimension in params.rewards.dimensions:
        for seed, role in enumerate(("annotator", "judge")):
            directory = layout.reward_model(dimension, role)
            directory.mkdir(parents=True)
            model = new_classifier(settings, tokenizer, dimension, seed)
            RewardModel(model, tokenizer, label=1, temperature=1.0).save(directory, {"schema": 1})


def _tables(params: Params, layout: Layout, texts: list[str]) -> None:
    prompts = [" ".join(text.split()[:4]) for text in texts[:PROMPTS]]
    endings = [" " + " ".join(text.split()[4:9]) for text in texts]
    common = [
        {"prompt_id": text_id(prompt), "prompt": prompt, "domain": ("movie", "book")[place % 2], "split": "test"}
        for place, prompt in enumerate(prompts)
    ]
    dimensions = list(params.rewards.dimensions)
    scores = [
        {**row, "candidate_id": f"{place}-{n}", "completion": endings[2 * place + n], "finished": False}
        | dict.fromkeys(dimensions, 0.5)
        for place, row in enumerate(common)
        for n in range(2)
    ]
    write_table(layout.validated("scores"), scores, scores_schema(dimensions))
    styles = list(params.preferences.styles)
    pairs = [
        {
            **common[(u + i) % PROMPTS],
            "pair_id": f"{u}-{i}",
            "chosen": endings[(3 * u + i) % 60],
            "rejected": endings[(3 * u + i + 30) % 60],
            "chosen_finished": False,
            "rejected_finished": False,
            "annotator": f"test-{u}",
            "style": styles[u % len(styles)],
            "metadata": "{}",
        }
        for u in range(ANNOTATORS)
        for i in range(PAIRS)
    ]
    write_table(layout.validated("preferences"), pairs, PREFERENCES)


def _metrics(params: Params, layout: Layout) -> None:
    """What the stages before leave for the report, in their form."""
    quality: dict[str, Any] = {"test_texts": 100, "accuracy": 0.9, "auc": None}
    agreement = {"test_texts": 100, "spearman": 0.8}
    models = {
        name: {"annotator": quality, "judge": quality, "agreement": agreement} for name in params.rewards.dimensions
    }
    write_json(layout.metrics("rewards"), {"schema": 1, "dimensions": models})
    for table in TABLES:
        verdict = {"schema": 1, "table": table, "rows": 24, "accepted": 24, "quarantined": 0, "passed": True}
        write_json(layout.metrics(f"validation-{table}"), verdict)
    layout.training_curve("dpo").parent.mkdir(parents=True)
    for name, policy in params.policies.items():
        summary = {
            "schema": 1,
            **{"policy": name, "experts": policy.experts, "weights": policy.weights.kind, "latent": policy.latent},
            **{"steps": 3, "pairs": 24, "annotators": ANNOTATORS, "validation_marginal": -0.7, "findings": []},
        }
        write_json(layout.metrics(f"train-{name}"), summary)
        curve = (
            "step,train_marginal,elbo,entropy_q,validation_marginal",
            "1,-0.7,-0.7,1.0,",
            "2,-0.6,-0.6,1.0,-0.7",
            "",
        )
        layout.training_curve(name).write_text("\n".join(curve), encoding="utf-8")


@pytest.fixture(scope="session")
def with_reference(toy_params: Params, toy_project: Layout) -> Callable[[Path, Callable[[str], str]], Layout]:
    """Makes the toy project anew in a directory, as far as `reference`, its pairs in the split of their annotator."""

    def make(root: Path, split_of: Callable[[str], str]) -> Layout:
        layout = Layout(root)
        shutil.copytree(toy_project.sft, layout.sft)
        rows = read_table(toy_project.validated("preferences"), PREFERENCES).to_pylist()
        rows = [row | {"split": split_of(row["annotator"])} for row in rows]
        write_table(layout.validated("preferences"), rows, PREFERENCES)
        reference.run(toy_params, layout)
        return layout

    return make
