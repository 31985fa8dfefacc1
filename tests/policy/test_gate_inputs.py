from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from mixdpo.config.weights import GateWeights
from mixdpo.errors import DataError, ModelError
from mixdpo.policy.context import Context
from mixdpo.policy.gate_inputs import MOST_LEVELS, GateInputs

close = torch.testing.assert_close
FEATURES = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
PEOPLE = ["ann", "bob", "ann", "cid"]
METADATA = {"age": [20, 40.0, None, 60], "domain": ["film", "book", "film", None], "old": [True, False, None, True]}


def context(
    annotators: list[str | None] | None = PEOPLE, metadata: dict[str, list[Any]] = METADATA, rows: int = 4
) -> Context:
    return Context(["text"] * rows, lambda: FEATURES[:rows], annotators, metadata)


def asked(**changes: Any) -> GateWeights:
    gate = {"kind": "gate", "hidden": 0, "entropy": 0.0, "rest_steps": 0, "learning_rate": 0.1}
    return GateWeights.model_validate(gate | changes)


EVERYTHING = asked(metadata=["age", "domain", "old"], annotators={"width": 2, "unknown": 0.1})


def test_the_columns_stand_side_by_side_and_the_annotator_last() -> None:
    inputs = GateInputs.fit(EVERYTHING, context())
    spread = math.sqrt(800 / 3)
    wanted = [
        [1.0, 2.0, -20 / spread, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        [3.0, 4.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0],
        [5.0, 6.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
        [7.0, 8.0, 20 / spread, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 3.0],
    ]
    close(inputs.encode(context()), torch.tensor(wanted))
    assert inputs.dense == 10
    assert inputs.annotators == ("ann", "bob", "cid")


def test_a_prompt_gate_sees_the_features_as_they_are() -> None:
    inputs = GateInputs.fit(asked(), context(None, {}))
    close(inputs.encode(context(["who"] * 4)), FEATURES, rtol=0, atol=0)


def test_without_the_prompt_its_features_are_not_even_asked_for() -> None:
    def refuse() -> torch.Tensor:
        raise AssertionError("asked for prompt features")

    inputs = GateInputs.fit(asked(prompt=False, metadata=["domain"]), context())
    rows = Context(["a", "b"], refuse, None, {"domain": ["film", "book"]})
    close(inputs.encode(rows), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_what_training_never_saw_is_missing_and_finite() -> None:
    inputs = GateInputs.fit(EVERYTHING, context())
    nothing = inputs.encode(context(None, {}))
    assert torch.isfinite(nothing).all()
    for age in (None, math.nan, math.inf):
        odd = {"age": [age] * 4, "domain": ["opera", None, 7, "opera"], "old": ["maybe", None, 1, None]}
        close(inputs.encode(context(["zoe", None, "ANN", ""], odd)), nothing, rtol=0, atol=0)


def test_the_order_and_number_of_rows_do_not_matter() -> None:
    inputs = GateInputs.fit(EVERYTHING, context())
    one = {name: values[:1] for name, values in METADATA.items()}
    close(inputs.encode(context(PEOPLE[:1], one, rows=1)), inputs.encode(context())[:1], rtol=0, atol=0)


def test_a_number_that_never_varied_says_nothing_when_it_does() -> None:
    inputs = GateInputs.fit(asked(prompt=False, metadata=["age"]), context(metadata={"age": [0.1] * 4}))
    close(inputs.encode(context(metadata={"age": [9e9, 0.1, None, -1]}))[:, 0], torch.zeros(4))


def test_a_number_far_from_all_others_is_finite() -> None:
    inputs = GateInputs.fit(asked(prompt=False, metadata=["age"]), context())
    found = inputs.encode(context(metadata={"age": [1e300, -1e300, 10**30, 40]}))[:, 0]
    close(found, torch.tensor([10.0, -10.0, 10.0, 0.0]))


def test_a_column_of_numbers_and_texts_is_one_of_kinds() -> None:
    mixed = {"size": [1, "large", 1, 2.5]}
    inputs = GateInputs.fit(asked(prompt=False, metadata=["size"]), context(metadata=mixed))
    close(inputs.encode(context(metadata=mixed)).argmax(dim=-1), torch.tensor([0, 2, 0, 1]))


def test_json_and_back_encodes_the_same() -> None:
    inputs = GateInputs.fit(EVERYTHING, context())
    again = GateInputs.from_description(json.loads(json.dumps(inputs.describe(), allow_nan=False)))
    assert again == inputs
    close(again.encode(context()), inputs.encode(context()), rtol=0, atol=0)


def test_metadata_that_does_not_exist_is_refused_with_what_does() -> None:
    with pytest.raises(DataError, match=r"names agee, but the training pairs have age, domain, old; correct the name"):
        GateInputs.fit(asked(metadata=["agee"]), context())
    with pytest.raises(DataError, match=r"names age, but the training pairs have none at all"):
        GateInputs.fit(asked(metadata=["age"]), context(metadata={}))


def test_metadata_that_can_teach_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"age is empty in all training pairs; leave it out of weights.metadata"):
        GateInputs.fit(asked(metadata=["age"]), context(metadata={"age": [None] * 4}))
    rows = MOST_LEVELS + 1
    many = Context(["text"] * rows, lambda: FEATURES, None, {"id": [f"n{row}" for row in range(rows)]})
    with pytest.raises(DataError, match=r"id has 1001 different values, more than the 1000 that make a category"):
        GateInputs.fit(asked(prompt=False, metadata=["id"]), many)


def test_a_text_in_a_column_of_numbers_is_refused() -> None:
    inputs = GateInputs.fit(asked(metadata=["age"]), context())
    with pytest.raises(DataError, match="metadata column age holds 'old', expected a number or None; correct it"):
        inputs.encode(context(metadata={"age": [1, "old", 2, 3]}))


@pytest.mark.parametrize("people", [None, [None] * 4, ["a", "b", "c", "d"]], ids=["none", "unknown", "one pair each"])
def test_annotators_of_whom_nothing_can_be_learnt_are_refused(people: list[str | None] | None) -> None:
    with pytest.raises(DataError, match="no annotator of the training pairs made two comparisons, so there is no one"):
        GateInputs.fit(EVERYTHING, context(people))


def test_the_features_of_another_base_are_refused() -> None:
    inputs = GateInputs.fit(asked(), context())
    with pytest.raises(ModelError, match=r"features of width 2 but those of this reference have 3; use the base model"):
        inputs.encode(Context(["a"], lambda: torch.zeros(1, 3)))
