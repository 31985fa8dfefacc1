from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import RegistryError
from mixdpo.registry.log import ALIAS, State
from mixdpo.registry.manifest import NAME
from mixdpo.registry.reference import Reference, chosen_experts, find, parse_reference, split_expert

names = st.from_regex(NAME, fullmatch=True)
hexadecimal = st.text("0123456789abcdef", min_size=8, max_size=64)
references = st.one_of(
    st.builds(Reference, names),
    st.builds(Reference, names, alias=st.from_regex(ALIAS, fullmatch=True)),
    st.builds(Reference, names, number=st.integers(0, 999_999_999)),
    st.builds(Reference, names, digest=hexadecimal),
)

STATE = State(
    "reviews",
    versions=("aaaaaaaa" + "0" * 56, "bbbbbbbb" + "0" * 56, "bbbbbbbb" + "1" * 56),
    aliases={"staging": ("aaaaaaaa" + "0" * 56, "bbbbbbbb" + "0" * 56)},
)


@given(references)
def test_what_is_written_is_read_back(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=40))
def test_any_text_is_either_a_reference_or_refused(text: str) -> None:
    with suppress(RegistryError):
        assert text.startswith(parse_reference(text).name)


def test_the_v_of_a_version_may_be_left_out() -> None:
    assert parse_reference("reviews@3") == parse_reference("reviews@v3") == Reference("reviews", number=3)


@pytest.mark.parametrize(
    "text",
    [
        *("", "@staging", "Reviews", "reviews@", "reviews@@v1", "reviews@v1@v2", "reviews@V3", "reviews@sha256:short"),
        *("../reviews", "reviews/expert", "reviews@staging\n", "a b"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(RegistryError) as error:
        parse_reference(text)
    assert str(error.value) == (
        f"{text!r} is not a reference to a version; expected NAME, NAME@ALIAS, NAME@v3 or NAME@sha256:DIGEST, "
        "as in reviews@staging"
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        *(("reviews", 3), ("reviews@staging", 2), ("reviews@v1", 1)),
        *(("reviews@sha256:aaaaaaaa", 1), ("reviews@sha256:bbbbbbbb1", 3)),
    ],
)
def test_each_form_finds_its_version(text: str, version: int) -> None:
    assert STATE.number(find(STATE, parse_reference(text))) == version


@pytest.mark.parametrize("what", ["production", "v0", "v4", "sha256:cccccccc", "sha256:bbbbbbbb"])
def test_what_is_absent_or_ambiguous_lists_what_there_is(what: str) -> None:
    with pytest.raises(RegistryError, match=re.escape(f"reviews@{what} does not exist: reviews has versions v1 to v3")):
        find(STATE, parse_reference(f"reviews@{what}"))
    with pytest.raises(RegistryError, match="the aliases staging → v2; name one of these"):
        find(STATE, parse_reference(f"reviews@{what}"))


@given(references, st.integers(0, 9999))
def test_an_expert_is_told_from_the_version_that_has_it(reference: Reference, expert: int) -> None:
    assert split_expert(f"{reference}/expert-{expert}") == (str(reference), expert)
    assert split_expert(str(reference)) == (str(reference), None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("data/policies/moe/expert-2", ("data/policies/moe", 2)),
        ("data/expert-1/moe", ("data/expert-1/moe", None)),
        ("data/expert-1/moe/expert-0", ("data/expert-1/moe", 0)),
        ("reviews@v3/expert-", ("reviews@v3/expert-", None)),
        ("reviews@v3/expert-1/", ("reviews@v3/expert-1/", None)),
        ("/expert-1", ("/expert-1", None)),
    ],
)
def test_directories_name_experts_too(text: str, parts: tuple[str, int | None]) -> None:
    assert split_expert(text) == parts


@pytest.mark.parametrize("text", ["reviews@v3/expert-", "reviews@v3/expert--1", "reviews@v3/expert-x", "reviews@v3/1"])
def test_what_names_no_expert_names_no_version_either(text: str) -> None:
    whole, expert = split_expert(text)
    assert expert is None
    with pytest.raises(RegistryError, match="is not a reference to a version"):
        parse_reference(whole)


def test_experts_are_one_or_all() -> None:
    assert list(chosen_experts("reviews@v3", None, 3)) == [0, 1, 2]
    assert list(chosen_experts("reviews@v3/expert-2", 2, 3)) == [2]
    with pytest.raises(RegistryError) as error:
        chosen_experts("reviews@v3/expert-3", 3, 3)
    assert str(error.value) == (
        "reviews@v3/expert-3 does not exist: that mixture has expert-0 to expert-2; name one of these"
    )


def test_only_numbers_and_digests_stay() -> None:
    fixed = {text: parse_reference(text).fixed for text in ("reviews", "reviews@staging", "reviews@v1")}
    assert fixed == {"reviews": False, "reviews@staging": False, "reviews@v1": True}
    assert parse_reference("reviews@sha256:aaaaaaaa").fixed
