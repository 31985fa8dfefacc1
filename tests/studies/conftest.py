"""A project as the pipeline leaves it before studies, at toy size: untrained models, scores by the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.config import Params, load_params
from mixdpo.data.embedded import generate_reviews, truth
from mixdpo.data.schema import scores_schema, text_id, write_table
from mixdpo.layout import Layout
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer
from mixdpo.studies.world import World
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

ROOT = Path(__file__).parents[2]
PROMPTS = {"train": 24, "validation": 8, "test": 12}
PER_PROMPT = 4
PROPERTIES = {"sentiment": "sentiment", "grammar": "grammar", "informativeness": "detail"}


def tiny_params() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    values["compute"] |= {"device": "cpu"}
    values["sft"]["base"] |= {"vocabulary": 300, "layers": 1, "width": 16, "heads": 2}
    values["rewards"]["training"] |= {"vocabulary": 300, "width": 16}
    values["candidates"] |= {"max_new_tokens": 6, "batch": 64}
    return values


def tiny_studies() -> dict[str, Any]:
    """studies/params.yaml with few people, short trainings, and two points on each axis."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "studies" / "params.yaml").read_text(encoding="utf-8"))
    values["base"]["labelling"]["annotators"] |= {"train": 12, "validation": 3, "test": 9, "pairs": 4, "min_gap": 0.1}
    values["base"]["training"] |= {"batch_pairs": 24}
    for name, section in values.items():
        if name != "base":
            section["seeds"] = 1
    values["collapse"] |= {"beta": [0.1, 0.3], "entropy": [0.0], "temperature": [1.0], "steps": 1}
    values["collapse"]["gate"] |= {"rest_steps": 1}
    for name in ("gates", "crossed"):
        values[name]["population"]["gate"] |= {"rest_steps": 1}
    values["crossed"] |= {"prompts": 4}
    values["reward-noise"] |= {"score_noise": [0.0, 1.0], "annotators": [12, 6]}
    values["evidence"] |= {"comparisons": [1, 4], "train_pairs": 24, "test_pairs": 12}
    values["experts"] |= {"experts": [1, 2]}
    return values


def lay_out(root: Path) -> Layout:
    """The files of such a project."""
    layout = Layout(root)
    layout.study_params.parent.mkdir(parents=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params()), encoding="utf-8")
    layout.study_params.write_text(yaml.safe_dump(tiny_studies()), encoding="utf-8")
    params = load_params(root / "params.yaml")
    texts = [review["text"] for review in generate_reviews(sum(PROMPTS.values()) * PER_PROMPT, 10, seed=0)]
    _models(params, layout, texts)
    write_table(layout.validated("scores"), _candidates(texts), scores_schema(list(params.rewards.dimensions)))
    return layout


def _models(params: Params, layout: Layout, texts: list[str]) -> None:
    base, settings = params.sft.base, params.rewards.training
    assert base.kind == "config"
    tokenizer = train_bpe(texts, base.vocabulary, base.context)
    new_causal_lm(base, tokenizer, seed=0).save_pretrained(layout.sft)
    tokenizer.save_pretrained(layout.sft)
    phrases = train_phrase_tokenizer(texts, settings.vocabulary, settings.max_tokens)
    for dimension in params.rewards.dimensions:
        for seed, role in enumerate(("annotator", "judge")):
            directory = layout.reward_model(dimension, role)
            directory.mkdir(parents=True)
            model = new_classifier(settings, phrases, dimension, seed)
            RewardModel(model, phrases, label=1, temperature=1.0).save(directory, {"schema": 1})


def _candidates(texts: list[str]) -> list[dict[str, Any]]:
    splits = [split for split, count in PROMPTS.items() for _ in range(count)]
    rows = []
    for place, split in enumerate(splits):
        prompt = " ".join(texts[place * PER_PROMPT].split()[:4])
        for number in range(PER_PROMPT):
            completion = " " + " ".join(texts[place * PER_PROMPT + number].split()[4:14])
            told = truth(prompt + completion)
            rows.append(
                {
                    "candidate_id": f"{place}-{number}",
                    "prompt_id": text_id(prompt),
                    "prompt": prompt,
                    "completion": completion,
                    "finished": False,
                    "domain": ("movie", "book")[place % 2],
                    "split": split,
                }
                | {name: getattr(told, source) for name, source in PROPERTIES.items()}
            )
    return rows


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return lay_out(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def world(project: Layout) -> World:
    return World.load(load_params(project.root / "params.yaml"), project)
