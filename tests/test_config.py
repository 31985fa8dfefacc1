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
    ],
)
def test_what_cannot_work_is_refused_with_key_and_remedy(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_params(changed(**changes))
    message = str(caught.value)
    assert message.startswith("params.yaml does not fit:\n  ")
    assert told in message
    assert message.endswith("The profiles in profiles/ are complete, valid examples.")


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
