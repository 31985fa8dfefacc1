from __future__ import annotations

from mixdpo.data.pair_metadata import metadata_columns


def test_fields_become_columns_with_gaps() -> None:
    found = metadata_columns(['{"age":30,"kind":"a"}', "{}", '{"age":null,"kind":["x"]}'], ["film", None, "book"])
    assert found == {"age": [30, None, None], "kind": ["a", None, ["x"]], "domain": ["film", None, "book"]}


def test_the_domain_is_the_pairs_own() -> None:
    assert metadata_columns(['{"domain":"somewhere"}'], ["film"]) == {"domain": ["film"]}
    assert metadata_columns([], []) == {"domain": []}
