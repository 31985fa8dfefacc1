"""Laws of the gates: what each rule catches and nothing else, no row lost, bad rows take no good ones with them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from mixdpo.config import Params
from mixdpo.data.expectations.gate import judge
from mixdpo.data.expectations.verdict import Verdict
from mixdpo.data.schema import PREFERENCES, REVIEWS, scores_schema, text_id

Row = dict[str, Any]
SCHEMAS = {
    "reviews": REVIEWS,
    "scores": scores_schema(("sentiment", "grammar", "informativeness")),
    "preferences": PREFERENCES,
}
FILES = {
    "source": {
        "kind": "files",
        "paths": ["pairs.csv"],
        "limit": None,
        "columns": {
            "prompt": "prompt",
            "chosen": "chosen",
            "rejected": "rejected",
            "annotator": "annotator",
            "style": None,
            "domain": None,
            "split": None,
            "metadata": [],
        },
    }
}


def verdict_on(table: str, rows: list[Row], params: Params) -> Verdict:
    return judge(table, pa.Table.from_pylist(rows, schema=SCHEMAS[table]), SCHEMAS[table], params)


def failures(verdict: Verdict) -> set[str]:
    return {finding.name for finding in verdict.findings if finding.success is False}


def retext(rows: list[Row], at: int, text: str, column: str = "text", key: str = "review_id") -> None:
    """Give a row another text and the id that goes with it."""
    rows[at] |= {column: text, key: text_id(text)}


@pytest.mark.parametrize("table", SCHEMAS)
def test_good_tables_pass_every_rule(table: str, params: Params, request: pytest.FixtureRequest) -> None:
    verdict = verdict_on(table, request.getfixturevalue(table), params)
    assert verdict.passed
    assert failures(verdict) == set()
    assert all(finding.success for finding in verdict.findings)
    assert verdict.accepted().num_rows == 12
    assert verdict.quarantined().num_rows == 0
    assert verdict.quarantined().column_names == [*SCHEMAS[table].names, "reason"]


# what a row is changed to, and the one rule that it breaks
ROW_FAULTS: dict[str, list[tuple[Row, str]]] = {
    "reviews": [
        *[({column: None}, f"{column}_present") for column in ("review_id", "text", "domain", "metadata")],
        ({"split": None}, "split_present"),
        ({"text": " \n\t", "review_id": text_id(" \n\t")}, "text_not_blank"),
        ({"text": "", "review_id": text_id("")}, "text_not_blank"),
        ({"text": "a" * 100_001, "review_id": text_id("a" * 100_001)}, "text_length"),
        ({"text": "changed by hand"}, "review_id_matches_text"),
        ({"split": "dev"}, "split_in_set"),
        ({"label": 2}, "label_in_set"),
        ({"stars": 0.5}, "stars_in_range"),
        ({"stars": math.inf}, "stars_in_range"),
        ({"metadata": "[1]"}, "metadata_is_object"),
        ({"metadata": "{not json"}, "metadata_is_object"),
    ],
    "scores": [
        ({"candidate_id": None}, "candidate_id_present"),
        ({"finished": None}, "finished_present"),
        ({"completion": "  "}, "completion_not_blank"),
        ({"prompt_id": "0" * 64}, "prompt_id_matches_prompt"),
        ({"grammar": None}, "grammar_present"),
        ({"grammar": math.nan}, "grammar_present"),
        ({"grammar": math.inf}, "grammar_in_range"),
        ({"grammar": -math.inf}, "grammar_in_range"),
        ({"sentiment": 1.0001}, "sentiment_in_range"),
    ],
    "preferences": [
        ({"annotator": None}, "annotator_present"),
        ({"rejected_finished": None}, "rejected_finished_present"),
        ({"rejected": ""}, "rejected_not_blank"),
        ({"chosen": "bad", "rejected": "bad"}, "chosen_differs"),
        ({"chosen": "bad", "rejected": " bad\n"}, "chosen_differs"),
        ({"metadata": "null"}, "metadata_is_object"),
        ({"annotator": "lonely"}, "annotator_has_pairs"),
    ],
}
AT_ONCE = 4  # faulty rows in a table of 12: enough good ones are left for the rules on whole tables


@pytest.mark.parametrize(
    ("table", "faults"),
    [
        (table, faults[start : start + AT_ONCE])
        for table, faults in ROW_FAULTS.items()
        for start in range(0, len(faults), AT_ONCE)
    ],
)
def test_a_faulty_row_breaks_one_rule_and_goes_to_quarantine_alone(
    table: str, faults: list[tuple[Row, str]], params: Params, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(table)
    for row, (change, _) in zip(rows, faults, strict=False):
        row |= change
    verdict = verdict_on(table, rows, params)
    broken = [rule for _, rule in faults]
    assert failures(verdict) == set(broken)
    assert verdict.passed
    told = {finding.name: f"{finding.name}: {finding.fault}" for finding in verdict.findings}
    assert verdict.reasons == {place: (told[rule],) for place, rule in enumerate(broken)}
    assert verdict.quarantined()["reason"].to_pylist() == [told[rule] for rule in broken]


def test_copies_of_an_id_are_all_put_aside(params: Params, preferences: list[Row]) -> None:
    preferences[4]["pair_id"] = preferences[7]["pair_id"]
    verdict = verdict_on("preferences", preferences, params)
    assert failures(verdict) == {"pair_id_unique"}
    assert sorted(verdict.reasons) == [4, 7]


def test_a_text_in_two_splits_is_found_through_case_and_punctuation(params: Params, reviews: list[Row]) -> None:
    retext(reviews, 0, "Ein großer Film — wirklich!")
    retext(reviews, 1, "ein GROßER film, wirklich")
    verdict = verdict_on("reviews", reviews, params)
    assert failures(verdict) == {"text_in_one_split"}
    assert sorted(verdict.reasons) == [0, 1]


def test_texts_without_letters_are_not_taken_for_each_other(params: Params, reviews: list[Row]) -> None:
    retext(reviews, 0, "!!!")
    retext(reviews, 1, "???")
    assert failures(verdict_on("reviews", reviews, params)) == set()


@pytest.mark.parametrize("table", ["scores", "preferences"])
def test_a_prompt_in_two_splits_is_put_aside_with_all_its_rows(
    table: str, params: Params, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(table)
    prompt = rows[0]["prompt"]
    rows[0]["split"] = "test"
    verdict = verdict_on(table, rows, params)
    assert "prompt_in_one_split" in failures(verdict)
    assert sorted(verdict.reasons) == [at for at, row in enumerate(rows) if row["prompt"] == prompt]


def test_a_row_with_an_unknown_split_takes_no_good_row_with_it(params: Params, scores: list[Row]) -> None:
    scores[0]["split"] = "dev"  # its prompt's other candidate stays in train
    verdict = verdict_on("scores", scores, params)
    assert failures(verdict) == {"split_in_set"}
    assert list(verdict.reasons) == [0]


def test_an_annotator_whose_other_pair_is_bad_has_too_few(params: Params, preferences: list[Row]) -> None:
    preferences[0]["annotator"] = preferences[3]["annotator"] = "nearly lonely"
    preferences[3]["chosen"] = preferences[3]["rejected"]
    verdict = verdict_on("preferences", preferences, params)
    assert verdict.reasons == {
        3: ("chosen_differs: chosen and rejected are the same text",),
        0: ("annotator_has_pairs: the annotator has fewer than 2 good pairs",),
    }


def test_a_row_that_fails_several_rules_names_them_all(params: Params, reviews: list[Row]) -> None:
    reviews[5] |= {"stars": 9.0, "metadata": "x"}
    verdict = verdict_on("reviews", reviews, params)
    assert verdict.quarantined()["reason"].to_pylist() == [
        "metadata_is_object: metadata is not a JSON object; stars_in_range: stars are outside 1 to 5"
    ]


def test_an_annotator_in_two_splits_is_a_warning(params: Params, preferences: list[Row]) -> None:
    preferences[0]["annotator"] = "annotator-1"
    verdict = verdict_on("preferences", preferences, params)
    assert verdict.passed
    assert [finding.name for finding in verdict.warnings] == ["annotator_in_one_split"]
    assert not verdict.reasons


RETURNING = {"train": 9, "validation": 3, "test": 6, "pairs": 9, "noise": 0.0, "min_gap": 0.5, "returning": 0.5}


@pytest.mark.parametrize("meant", [FILES, {"annotators": RETURNING}], ids=["files", "returning"])
def test_annotators_may_be_met_again_where_that_is_meant(
    meant: dict[str, Any], params_with: Callable[..., Params], preferences: list[Row]
) -> None:
    preferences[0]["annotator"] = "annotator-1"
    verdict = verdict_on("preferences", preferences, params_with(preferences=meant))
    assert verdict.passed
    assert not verdict.warnings


def test_no_row_is_lost_and_accepted_rows_are_accepted_again(params: Params, preferences: list[Row]) -> None:
    draw = random.Random(0)
    faults: list[Row] = [
        {"annotator": None},
        {"chosen": "same", "rejected": "same"},
        {"split": "dev"},
        {"split": "test"},
        {"metadata": "[]"},
        {"pair_id": "pair-1"},
        {"annotator": "lonely"},
        {"prompt": "Edited"},
    ]
    rows = [preferences[number % 12] | {"pair_id": f"pair-{number}"} for number in range(240)]
    for row in draw.sample(rows, 60):
        row |= draw.choice(faults)
    verdict = verdict_on("preferences", rows, params)
    table = pa.Table.from_pylist(rows, schema=PREFERENCES)
    bad = verdict.quarantined().drop(["reason"])
    assert 0 < bad.num_rows < 240
    key = json.dumps
    assert sorted(map(key, bad.to_pylist() + verdict.accepted().to_pylist())) == sorted(map(key, table.to_pylist()))
    again = judge("preferences", verdict.accepted(), PREFERENCES, params)
    assert not again.reasons
    assert again.accepted().equals(verdict.accepted())


@pytest.mark.parametrize(("bad", "passes"), [(3, True), (4, False)])
def test_the_allowed_fraction_of_bad_rows_is_inclusive(
    bad: int, passes: bool, params_with: Callable[..., Params], reviews: list[Row]
) -> None:
    for row in reviews[:bad]:
        row["metadata"] = "[]"
    verdict = verdict_on("reviews", reviews, params_with(validation={"max_bad_fraction": 0.25}))
    assert verdict.bad_fraction == bad / 12
    assert verdict.passed is passes


def test_the_complaint_names_the_rule_the_count_five_rows_and_the_remedy(
    params_with: Callable[..., Params], preferences: list[Row]
) -> None:
    for row in preferences[:6]:
        row["chosen"] = row["rejected"]
    verdict = verdict_on("preferences", preferences, params_with(validation={"max_bad_fraction": 0.1}))
    assert verdict.complaint() == (
        "  6 of 12 rows (50.0%) are bad; validation.max_bad_fraction allows 10.0%: correct the source, or raise it\n"
        "  chosen_differs: chosen and rejected are the same text (6 rows: row 0 (pair-0), row 1 (pair-1), "
        "row 2 (pair-2), row 3 (pair-3), row 4 (pair-4), …)\n"
        "    → drop pairs of equal texts: they prefer nothing"
    )


@pytest.mark.parametrize(
    ("table", "change", "rule", "found"),
    [
        ("reviews", lambda rows: rows[:7], "enough_rows", 7),
        ("reviews", lambda rows: [r | {"label": int(i == 0)} for i, r in enumerate(rows)], "classes_balanced", 1 / 12),
        ("reviews", lambda rows: [r for r in rows if r["split"] != "test"], "splits_not_empty", {"missing": ["test"]}),
        ("scores", lambda rows: [r | {"grammar": 0.5} for r in rows], "grammar_varies", 1),
        (
            "preferences",
            lambda rows: [r for r in rows if r["split"] == "train"],
            "splits_not_empty",
            {"missing": ["test", "validation"]},
        ),
        ("preferences", lambda _: [], "enough_rows", 0),
        ("scores", lambda _: [], "enough_rows", 0),
    ],
)
def test_a_fault_of_the_whole_table_stops_without_a_bad_row(
    table: str,
    change: Callable[[list[Row]], list[Row]],
    rule: str,
    found: Any,
    params: Params,
    request: pytest.FixtureRequest,
) -> None:
    verdict = verdict_on(table, change(request.getfixturevalue(table)), params)
    assert failures(verdict) == {rule}
    assert not verdict.passed
    assert not verdict.reasons
    [finding] = verdict.stops()
    assert finding.observed == found
    assert f"    → {finding.remedy}" in verdict.complaint()


def test_reviews_without_labels_are_not_blamed_for_their_balance(params: Params, reviews: list[Row]) -> None:
    verdict = verdict_on("reviews", [row | {"label": None} for row in reviews], params)
    assert verdict.passed
    [finding] = [finding for finding in verdict.findings if finding.name == "classes_balanced"]
    assert (finding.success, finding.observed) == (None, "no row has a value in label")


def test_a_split_that_params_leave_out_may_be_empty(params_with: Callable[..., Params], reviews: list[Row]) -> None:
    rows = [row | {"split": "train" if row["split"] == "validation" else row["split"]} for row in reviews]
    assert verdict_on("reviews", rows, params_with(splits={"validation": 0.0})).passed


def test_empty_scores_are_right_where_preferences_come_from_files(params_with: Callable[..., Params]) -> None:
    verdict = verdict_on("scores", [], params_with(preferences=FILES))
    assert verdict.passed
    assert verdict.note == "skipped: preferences come from files"


def test_a_missing_column_stops_and_the_rest_is_still_checked(params: Params, reviews: list[Row]) -> None:
    reviews[2]["metadata"] = "[]"
    table = pa.Table.from_pylist(reviews, schema=REVIEWS).drop(["stars"])
    verdict = judge("reviews", table, REVIEWS, params)
    assert failures(verdict) == {"columns_present", "metadata_is_object"}
    assert verdict.complaint() == (
        "  columns_present: columns are missing (found: missing stars)\n"
        "    → run the stage that writes this table again; if it was written by hand, add the columns"
    )
    unchecked = {finding.name: finding.observed for finding in verdict.findings if finding.success is None}
    assert unchecked == dict.fromkeys(["stars_is_number", "stars_in_range"], "the column stars is missing")
    assert verdict.quarantined().num_rows == 1


def test_a_column_of_the_wrong_type_stops(params: Params, reviews: list[Row]) -> None:
    table = pa.Table.from_pylist(reviews, schema=REVIEWS)
    stars = pa.array(["five"] * 12)
    verdict = judge("reviews", table.set_column(table.column_names.index("stars"), "stars", stars), REVIEWS, params)
    assert failures(verdict) == {"stars_is_number"}
    assert "stars does not hold number values (found: text)\n    → write the column stars as double" in (
        verdict.complaint()
    )


def test_a_column_that_nobody_knows_is_a_warning(params: Params, reviews: list[Row]) -> None:
    table = pa.Table.from_pylist(reviews, schema=REVIEWS).append_column("mood", pa.array(["good"] * 12))
    verdict = judge("reviews", table, REVIEWS, params)
    assert verdict.passed
    [warning] = verdict.warnings
    assert (warning.name, warning.observed) == ("columns_known", {"unexpected": ["mood"]})


def test_metrics_are_the_same_for_the_same_table_and_differ_for_another(params: Params, reviews: list[Row]) -> None:
    reviews[1]["stars"] = 7.0
    first, second = (verdict_on("reviews", reviews, params).metrics() for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert (first["rows"], first["accepted"], first["quarantined"], first["passed"]) == (12, 11, 1, True)
    [failed] = [finding for finding in first["expectations"] if finding["success"] is False]
    assert failed == {
        "name": "stars_in_range",
        "columns": ["stars"],
        "phase": "rows",
        "severity": "critical",
        "expects": "Stars are from 1 to 5, or empty",
        "success": False,
        "unexpected_count": 1,
        "observed": None,
        "examples": [{"row": 1, "id": reviews[1]["review_id"]}],
    }
    reviews[2]["stars"] = 7.0
    assert verdict_on("reviews", reviews, params).metrics()["digest"] != first["digest"]
