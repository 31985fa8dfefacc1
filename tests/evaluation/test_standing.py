from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.config.data import Style
from mixdpo.config.models import Candidates
from mixdpo.errors import DataError
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.served import COMPARISONS, Taste
from mixdpo.evaluation.standing import Standing, Terms, scale_of
from mixdpo.files import canonical_json
from mixdpo.layout import STANDING

DEMO = yaml.safe_load((Path(__file__).parents[2] / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
SETTINGS = Candidates.model_validate(DEMO["candidates"])


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("judges")
    for name in ("sentiment", "grammar", "informativeness"):
        (root / name).mkdir()
        (root / name / "model").write_text(name, encoding="utf-8")
    return {path.name: path for path in sorted(root.iterdir())}


@pytest.fixture(scope="module")
def terms(prompts: Prompts, pairs: HeldOut, judges: dict[str, Path]) -> Terms:
    return Terms.of(prompts, pairs, judges, SETTINGS, 3)


@pytest.fixture(scope="module")
def standings(terms: Terms, evaluated: dict[str, Any], prompts: Prompts, pairs: HeldOut) -> dict[str, Standing]:
    samples, opinions = evaluated["samples"], evaluated["opinions"]
    scale = scale_of(samples["sft"])
    return {
        name: Standing.of(terms, scale, samples[name], prompts, opinions[name].judgement, pairs)
        for name in ("dpo", "mix")
    }


def test_differences_are_those_of_the_evaluation_itself(
    standings: dict[str, Standing], evaluated: dict[str, Any]
) -> None:
    """The gap of mix and dpo by style, for strangers and after m comparisons, as metrics/evaluation.json has it."""
    mix, dpo = standings["mix"], standings["dpo"]
    for style, found in evaluated["metrics"]["styles"].items():
        for known in COMPARISONS:
            own, other = (each.rewards({style: 1.0}, style, known, mix.scale) for each in (mix, dpo))
            expected = found["mix"]["few_shot"][str(known)]["minus_dpo"]["mean"]
            assert (own - other).mean() == pytest.approx(expected, abs=1e-12)
        own, other = (each.rewards({style: 1.0}, None, 8, mix.scale) for each in (mix, dpo))
        assert (own - other).mean() == pytest.approx(found["mix"]["prior"]["minus_dpo"]["mean"], abs=1e-12)


def test_rewards_are_those_of_a_taste_but_for_a_constant(
    standings: dict[str, Standing], evaluated: dict[str, Any]
) -> None:
    style = Style(weights={"grammar": 2.0, "sentiment": -1.0}, share=1.0, domains=None)
    samples: dict[str, Samples] = evaluated["samples"]
    expected = samples["mix"].mixture(Taste.of(style, samples["sft"]).reward(samples["mix"]))
    got = standings["mix"].rewards(style.weights, None, 0, scale_of(samples["sft"]))
    np.testing.assert_allclose(got - got.mean(), expected - expected.mean(), atol=1e-12)


def test_a_standing_is_read_back_as_it_was(standings: dict[str, Standing]) -> None:
    mix = standings["mix"]
    files = mix.files()
    assert tuple(files) == STANDING
    again = Standing.read(files, "x")
    assert again.files() == files
    assert (again.terms, again.scale, again.prompts, again.styles) == (mix.terms, mix.scale, mix.prompts, mix.styles)
    np.testing.assert_array_equal(again.margins, mix.margins)
    assert not any(word in body for body in files.values() for word in (b"writes row", b"prompt 1"))


def test_terms_are_equal_only_where_all_that_is_judged_on_is(
    terms: Terms, prompts: Prompts, pairs: HeldOut, judges: dict[str, Path], tmp_path: Path
) -> None:
    assert Terms.of(prompts, pairs, judges, SETTINGS, 3).digest == terms.digest
    (tmp_path / "model").write_text("another", encoding="utf-8")
    text = Prompts(prompts.ids, [*prompts.texts[:-1], "another"], prompts.domains, prompts.samples)
    columns = {**pairs.columns, "style": ["grammar"] * len(pairs)}
    others = [
        Terms.of(text, pairs, judges, SETTINGS, 3),
        Terms.of(prompts, HeldOut(columns, pairs.groups, pairs.returning), judges, SETTINGS, 3),
        Terms.of(prompts, pairs, {**judges, "grammar": tmp_path}, SETTINGS, 3),
        Terms.of(prompts, pairs, judges, SETTINGS.model_copy(update={"temperature": 0.7}), 3),
        Terms.of(prompts, pairs, judges, SETTINGS, 4),
    ]
    assert len({terms.digest, *(each.digest for each in others)}) == 6
    # how many rows are drawn at once is no matter of what is judged
    assert Terms.of(prompts, pairs, judges, SETTINGS.model_copy(update={"batch": 1}), 3) == terms


def edit(files: dict[str, bytes], **values: Any) -> dict[str, bytes]:
    return {**files, ".json": canonical_json({**json.loads(files[".json"]), **values})}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda files: edit(files, schema=2), "schema: Input should be 1"),
        (lambda files: edit(files, prompts=["p0"]), "expected 1 rows, 84 pairs and 3 experts"),
        (lambda files: edit(files, styles=[None]), "expected 12 rows, 1 pairs"),
        (lambda files: edit(files, scale={"grammar": 1.0}), "expected one judge a dimension"),
        (lambda files: edit(files, scale={"grammar": 0.0}), "scale.grammar: Input should be greater than 0"),
        (lambda files: {**files, ".safetensors": b"\x00" * 20}, "SafetensorError"),
        (lambda files: {".json": files[".json"]}, "KeyError"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    standings: dict[str, Standing], change: Callable[[dict[str, bytes]], dict[str, bytes]], told: str
) -> None:
    with pytest.raises(DataError, match=rf"^that file is no record of an evaluation.*{told}"):
        Standing.read(change(standings["mix"].files()), "that file")


def test_numbers_that_are_none_are_refused(standings: dict[str, Standing]) -> None:
    mix = standings["mix"]
    for broken in (mix.margins * np.nan, mix.margins.astype(np.float32), mix.margins[:, 0]):
        files = Standing(
            mix.terms, mix.scale, mix.prompts, mix.weights, mix.judged, mix.styles, mix.annotators, broken
        ).files()
        with pytest.raises(DataError, match="margins: expected finite numbers by rows and experts"):
            Standing.read(files, "x")


@given(st.data())
def test_damaged_bytes_are_refused_or_read_as_a_standing(standings: dict[str, Standing], data: st.DataObject) -> None:
    files = dict(standings["dpo"].files())
    suffix = data.draw(st.sampled_from(STANDING))
    body = bytearray(files[suffix])
    place = data.draw(st.integers(0, min(len(body), 600) - 1))
    body[place] = data.draw(st.integers(0, 255))
    files[suffix] = bytes(body[: data.draw(st.integers(0, len(body)))]) if data.draw(st.booleans()) else bytes(body)
    try:
        assert isinstance(Standing.read(files, "x"), Standing)
    except DataError as error:
        assert str(error).startswith("x is no record of an evaluation")  # noqa: PT017 (most damage, but not all)
