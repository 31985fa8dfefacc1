from __future__ import annotations

from collections import Counter

from mixdpo.data.embedded.language import grammar
from mixdpo.studies.crossed_openings import DOMAINS, openings


def words_of(domain: str, subject: bool) -> set[str]:
    return {
        word.lower()
        for symbol, words in grammar().lexicon.items()
        if symbol.endswith(f".{domain}") and (symbol.split(".")[0] in ("work", "kind")) == subject
        for word in words
    }


def test_every_opening_is_about_one_domain_in_one_language() -> None:
    found = openings(20, (3, 6), seed=0)
    assert Counter((each.subject, each.language) for each in found) == dict.fromkeys(
        [(subject, language) for subject in DOMAINS for language in DOMAINS], 20
    )
    assert len({each.text for each in found}) == 80
    for each in found:
        shown = set(each.text.lower().replace(",", " ").replace(".", " ").split())
        other = "movie" if each.subject == "book" else "book"
        assert shown & words_of(each.subject, subject=True)
        assert not shown & words_of(other, subject=True)
        assert shown & words_of(each.language, subject=False)
        assert 3 <= len(each.text.split()) <= 6
        assert each.crossed == (each.subject != each.language)


def test_the_same_seed_gives_the_same_openings() -> None:
    assert openings(5, (3, 6), seed=1) == openings(5, (3, 6), seed=1)
    assert openings(5, (3, 6), seed=1) != openings(5, (3, 6), seed=2)
