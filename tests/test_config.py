"""params.yaml is refused where it cannot work, and the message names the key and the remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.config import Params, load_params, parse_params
from mixdpo.errors import ConfigError

ROOT = Path(__file__).parents[1]
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
FILES = {
    "kind": "files",
    "paths": ["pairs.jsonl"],
    "limit": None,
    "columns": {
        **{"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "metadata": []},
        **{"annotator": None, "style": None, "domain": None, "split": None},
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """The demo with values at keys such as `training__beta` replaced."""
    values = copy.deepcopy(DEMO)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
    return values


def test_values_cannot_be_changed_afterwards() -> None:
    params = parse_params(DEMO)
    with pytest.raises(ValueError, match="frozen"):
        params.training.beta = 1.0  # type: ignore[misc]


def test_reading_what_was_written_gives_the_same() -> None:
    params = parse_params(DEMO)
    assert Params.model_validate(params.model_dump(by_alias=True, mode="json")) == params


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"traning": {}}, "traning: unknown key; remove it or correct its spelling"),
        ({"training__betta": 1}, "training.betta: unknown key; remove it or correct its spelling"),
        ({"training__beta": 0}, "training.beta: Input should be greater than 0, got 0; change the value"),
        ({"training__beta": float("nan")}, "training.beta: Input should be a finite number, got nan"),
        ({"training__tempering__start": 0.5}, "training.tempering.start: Input should be greater than or equal to 1"),
        ({"schema": 2}, "schema: Input should be 1, got 2; change the value"),
        ({"splits__test": 0.85}, "validation + test is above 0.9, which leaves next to nothing to train on; lower"),
        ({"cleaning__min_words": 200}, "min_words 200 is above max_words 120; lower it"),
        ({"registry__policy": "best"}, "registry.policy is best, but policies has dpo, mix, moe; name one"),
        ({"promotion__must_beat": 4}, "promotion.must_beat is 4, but there are 3 preferences.styles to be better for"),
        ({"registry__alias": "production"}, "registry.alias is production, which promotion.aliases guards: a version"),
        (
            {"registry__signing": {"key": None, "required": True, "trusted": []}},
            "signatures are required, but nobody is trusted; name a public key (`mixdpo keygen`)",
        ),
        ({"registry__signing": {"key": None, "required": False, "trusted": ["AAAA"]}}, "String should match pattern"),
        (
            {"preferences__styles__grammar__weights": {"gramar": 1.0}},
            "preferences.styles.grammar weighs gramar, but rewards.dimensions has only grammar, informativeness, sent",
        ),
        ({"preferences__styles__grammar__weights": {"grammar": 0.0}}, "all weights are 0, so this style has no pref"),
        ({"policies__mix__architecture__rank": None}, "head lowrank with rank None: lowrank needs a rank"),
        ({"policies__moe__experts": 1}, "a gate over one expert has nothing to choose; use weights of kind fixed"),
        (
            {"policies__mix__weights": {"kind": "fixed", "values": [0.5, 0.5]}},
            "weights has 2 values but experts is 3; give one an expert",
        ),
        (
            {"policies__sft": DEMO["policies"]["dpo"]},
            "policies has sft, which is what the reference policy is called in every table; rename it",
        ),
        (
            {"preferences__annotators__pairs": 1},
            "preferences.annotators.pairs is 1, below validation.min_pairs_per_annotator 2: all would be refused;",
        ),
        (
            {"preferences__annotators": None},
            "pairs are to be labelled here, but annotators or styles are not given; fill both in",
        ),
        (
            {"preferences__source": FILES},
            "preferences.source.columns.annotator is null, so each pair is its own annotator, below "
            "validation.min_pairs_per_annotator 2: all would be refused; set that to 1 or name the column",
        ),
        ({"engine": {"kind": "ray", "cpus": 1, "gpus": 1.5}}, "gpus 1.5 is neither whole nor below 1; Ray divides one"),
        (
            {"engine": {"kind": "ray", "cpus": 1}, "compute__device": "cuda"},
            "compute.device is cuda but a Ray worker holds engine.gpus 0; make the two agree, or set compute.device",
        ),
        (
            {"engine": {"kind": "ray", "cpus": 1, "gpus": 1}, "compute__device": "cpu"},
            "compute.device is cpu but a Ray worker holds engine.gpus 1; make the two agree, or set compute.device",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_key_and_remedy(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_params(changed(**changes))
    message = str(caught.value)
    assert message.startswith("params.yaml does not fit:\n  ")
    assert told in message
    assert message.endswith("The profiles in profiles/ are complete, valid examples.")


GATE = DEMO["policies"]["moe"]["weights"]
SHARED = {"kind": "shared", "head": "linear", "rank": None}
LORA = {"rank": 4, "alpha": 8.0}
ALONE = {"kind": "independent"}
GROWTH = {"most": 4, "steps": 10, "gain": 0.01, "prune": 0.0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"betas": [0.1, 0.2]}, "betas has 2 values but experts is 3; give one an expert, or leave it out"),
        ({"betas": [0.1, 0.0, 0.2]}, "Input should be greater than 0, got 0.0"),
        ({"noise": {"kind": "fixed", "epsilon": 0.5}}, "Input should be less than 0.5, got 0.5"),
        ({"sparsity": {"top": 4, "by": "weights"}}, "sparsity.top is 4 but experts is 3; lower it"),
        ({"carry": 1.5}, "Input should be less than or equal to 1, got 1.5"),
        ({"frozen": [3]}, "frozen names expert 3; there are 0 to 2"),
        (
            {"frozen": [0, 1, 2], "weights": {"kind": "fixed", "values": None}},
            "all experts are frozen and the weights do not learn; there is nothing to train",
        ),
        (
            {"frozen": [0], "architecture": SHARED | {"trunk": "trainable"}},
            "frozen experts over a trainable trunk would change with it; use trunk: frozen",
        ),
        ({"frozen": [0], "reseed": {"usage": 0.1, "patience": 1, "steps": 1}}, "reseed starts dead experts again"),
        (
            {"references": ["a", "b", "c"]},
            "references of their own need models of their own; use architecture kind independent",
        ),
        (
            {"references": ["a", "b"], "architecture": ALONE},
            "references has 2 models but experts is 3; give one an expert",
        ),
        (
            {"references": ["a", "b", "c"], "architecture": ALONE | {"lora": LORA}},
            "adapters over one base have one reference; leave references out, or leave lora out",
        ),
        ({"architecture": SHARED | {"trunk": "lora"}}, "trunk lora without lora: a lora trunk needs rank and alpha"),
        ({"architecture": SHARED | {"trunk": "frozen", "lora": LORA}}, "trunk frozen with lora: a lora trunk needs"),
        (
            {"symmetry": {"kind": "anchors", "annotators": {"ann": 0}}, "latent": "pair"},
            "anchors say which expert an annotator has; use latent: annotator",
        ),
        ({"symmetry": {"kind": "anchors", "annotators": {"ann": 3}}}, "anchors name expert 3; there are 0 to 2"),
        (
            {"weights": {"kind": "domain", "experts": {"movie": 0, "book": 3}, "confidence": 0.8}},
            "weights.experts names expert 3; there are 0 to 2",
        ),
        ({"weights": GATE | {"prompt": False}}, "a gate that sees neither prompt, annotators nor metadata; use wei"),
        ({"growth": GROWTH | {"most": 2}}, "growth.most is 2 but experts starts at 3; raise it"),
        (
            {"growth": GROWTH, "betas": [0.1, 0.2, 0.3]},
            "growth changes the number of experts, but betas names each of them; leave one of the two out",
        ),
        ({"starts": {"number": 1, "steps": 5}}, "Input should be greater than or equal to 2, got 1"),
        ({"start": ["reviews@production"]}, "reviews@production"),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_params(changed(policies__moe=DEMO["policies"]["moe"] | changes))
    assert "policies.moe" in str(caught.value)
    assert told in str(caught.value)


def test_a_policy_may_start_with_one_expert_where_it_grows() -> None:
    growing = DEMO["policies"]["moe"] | {"experts": 1, "growth": GROWTH}
    assert parse_params(changed(policies__moe=growing)).policies["moe"].growth is not None


def test_pairs_without_annotators_are_fine_where_one_pair_is_enough() -> None:
    params = parse_params(changed(preferences__source=FILES, validation__min_pairs_per_annotator=1))
    assert params.preferences.source.kind == "files"


def test_a_missing_key_is_named_and_all_faults_are_told_at_once() -> None:
    values = changed(training__beta=-1)
    del values["training"]["clip"]
    with pytest.raises(ConfigError) as caught:
        parse_params(values)
    assert "training.clip: missing; add it (null where it is to be empty and may be)" in str(caught.value)
    assert "training.beta: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- b\n", "expected a mapping of sections, got list; see profiles/"),
        ("", "expected a mapping of sections, got NoneType; see profiles/"),
        ("a: [", "is not YAML: "),
    ],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)
