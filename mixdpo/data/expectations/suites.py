"""What is expected of each table: three suites, with the words that tell a person what failed and what to do.

Rules run in phases, each on the rows that passed the phases before:

columns  the table can be read as what it should be; a failure stops the gate
rows     each row by itself; a failing row goes to quarantine
peers    each row against the others (unique, in one split), so that a bad row takes no good one with it; the same
groups   rows that need others beside them (pairs of an annotator), once only good ones are left; the same
table    what is left, as a whole; a failure stops the gate

A rule of severity `warning` is reported and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mixdpo.config import Params
from mixdpo.data.expectations import custom
from mixdpo.data.expectations.library import gx, gxe
from mixdpo.data.expectations.rules import (
    Expectations,
    all_splits,
    columns,
    enough_rows,
    filled,
    identified,
    json_objects,
    rule,
    splits,
    texts,
    unique,
)
from mixdpo.data.expectations.verdict import Phase


def suite_of(table: str, present: Sequence[str], schema: pa.Schema, params: Params) -> Any:
    """The `gx.ExpectationSuite` of a table that has the columns `present` and should have those of `schema`."""
    table_rules = {"reviews": _reviews, "scores": _scores, "preferences": _preferences}[table]
    return gx.ExpectationSuite(name=table, expectations=[*columns(present, schema), *table_rules(params)])


def _reviews(params: Params) -> Expectations:
    limits = params.validation
    yield from filled("review_id", "domain", "split", "metadata")
    yield from texts("text")
    yield from identified("review_id", by="text")
    yield from unique("review_id")
    yield from json_objects("metadata")
    yield from splits("text", "review", fold=True)
    yield rule(
        gxe.ExpectColumnValuesToBeInSet,
        "label_in_set",
        Phase.ROWS,
        column="label",
        value_set=[0, 1],
        expects="Each label is 1 (positive), 0 (negative) or empty",
        fault="label is neither 0 nor 1",
        remedy="translate label names with `labels` of the set in params.yaml, or leave the label empty",
    )
    yield rule(
        gxe.ExpectColumnValuesToBeBetween,
        "stars_in_range",
        Phase.ROWS,
        column="stars",
        min_value=1,
        max_value=5,
        expects="Stars are from 1 to 5, or empty",
        fault="stars are outside 1 to 5",
        remedy="rescale the ratings to 1 to 5, or set columns.stars of the set to null",
    )
    yield enough_rows(
        limits.min_reviews, "reviews", "add reviews, clean less strictly, or lower validation.min_reviews"
    )
    yield from all_splits(params)
    yield rule(
        gxe.ExpectColumnMeanToBeBetween,  # labels are 0 and 1: their mean is the share of the positive class
        "classes_balanced",
        Phase.TABLE,
        column="label",
        min_value=limits.min_class_fraction,
        max_value=1 - limits.min_class_fraction,
        expects=f"Of the labelled reviews, at least {limits.min_class_fraction:.0%} are positive and as many negative",
        fault="one sentiment is too rare among labelled reviews: the share of positive ones is out of bounds",
        remedy="add reviews of the rarer sentiment, or lower validation.min_class_fraction",
    )


def _scores(params: Params) -> Expectations:
    dimensions = tuple(params.rewards.dimensions)
    yield from filled("candidate_id", "prompt_id", "domain", "split", "finished")
    yield from texts("prompt", "completion")
    yield from identified("prompt_id", by="prompt")
    yield from unique("candidate_id")
    yield from splits("prompt", "prompt")
    for dimension in dimensions:
        yield from filled(dimension, fault=f"the {dimension} score is missing or not a number (NaN)")
        yield rule(
            gxe.ExpectColumnValuesToBeBetween,
            f"{dimension}_in_range",
            Phase.ROWS,
            column=dimension,
            min_value=0,
            max_value=1,
            expects=f"The {dimension} score is finite and between 0 and 1",
            fault=f"the {dimension} score is not between 0 and 1",
            remedy=f"check the reward model of {dimension}: its score is a probability",
        )
    yield enough_rows(1, "scored candidates", "run `dvc repro candidates annotate`; check candidates.prompts")
    yield from all_splits(params)
    for dimension in dimensions:
        yield rule(
            gxe.ExpectColumnUniqueValueCountToBeBetween,
            f"{dimension}_varies",
            Phase.TABLE,
            column=dimension,
            min_value=2,
            expects=f"The {dimension} score is not the same for every candidate",
            fault=f"all candidates have the same {dimension} score, so it cannot prefer any",
            remedy=f"check rewards.dimensions.{dimension}: the model is untrained, saturated, or reads the wrong label",
        )


def _preferences(params: Params) -> Expectations:
    least = params.validation.min_pairs_per_annotator
    yield from filled("pair_id", "prompt_id", "chosen_finished", "rejected_finished")
    yield from filled("annotator", "domain", "split", "metadata")
    yield from texts("prompt", "chosen", "rejected")
    yield from identified("prompt_id", by="prompt")
    yield from unique("pair_id")
    yield from json_objects("metadata")
    yield from splits("prompt", "prompt")
    yield rule(
        custom.ExpectColumnPairValuesToDiffer,
        "chosen_differs",
        Phase.ROWS,
        column_A="chosen",
        column_B="rejected",
        expects="The chosen and the rejected text differ",
        fault="chosen and rejected are the same text",
        remedy="drop pairs of equal texts: they prefer nothing",
    )
    yield rule(
        custom.ExpectGroupsToHaveSize,
        "annotator_has_pairs",
        Phase.GROUPS,
        column="annotator",
        min_size=least,
        expects=f"Each annotator has at least {least} good pairs",
        fault=f"the annotator has fewer than {least} good pairs",
        remedy="collect more pairs of these annotators, leave them out, or lower validation.min_pairs_per_annotator",
    )
    yield enough_rows(1, "pairs", _where_pairs_come_from(params))
    yield from all_splits(params)
    if not _may_return(params):
        yield _annotators_keep_to_one_split()


def _annotators_keep_to_one_split() -> Any:
    return rule(
        custom.ExpectValuesToKeepToOneGroup,
        "annotator_in_one_split",
        Phase.TABLE,
        severity="warning",
        column_A="annotator",
        column_B="split",
        fold=False,
        expects="Each annotator labels pairs of one split only",
        fault="the annotator labels pairs in two splits, so held-out figures are for known annotators",
        remedy="run the stage that writes this table again; set preferences.annotators.returning where this is meant",
    )


def _may_return(params: Params) -> bool:
    """Whether annotators of training may label held-out pairs too; the evaluation then judges them apart."""
    made = params.preferences.annotators
    return params.preferences.source.kind == "files" or (made is not None and made.returning > 0)


def _where_pairs_come_from(params: Params) -> str:
    if params.preferences.source.kind == "files":
        return "check that the files of preferences.source.paths hold pairs, and preferences.source.limit"
    return "lower preferences.annotators.min_gap, or sample more candidates (candidates.prompts, candidates.per_prompt)"
