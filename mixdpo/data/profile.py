"""What a table looks like as a whole, in a few hundred numbers: what the data of the next version are compared with.

A column of numbers is counted into fixed bins, so that two profiles can be compared without the rows behind them; one
of names is counted by name. Rows without a value are counted apart. Nothing of a text but its length is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from mixdpo.data.schema import text_id

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_NAMES = 100  # of a column; rarer ones are counted together
OTHERS = "(others)"

# the edges of bins; what lies outside is counted with the first or the last
WORDS = tuple(sorted({round(2 ** (step / 4)) for step in range(49)}))  # 1 to 4096
STARS = tuple(value / 4 for value in range(3, 23, 2))  # 0.75 to 5.25: half stars
UNIT = tuple(value / 20 for value in range(21))  # scores
DIFFERENCE = tuple(value / 10 - 1 for value in range(21))  # margins between two scores

Values = npt.NDArray[np.float64]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Numbers(Record):
    """How often values fell between each two edges, and (for people) below which values a share of them lies."""

    kind: Literal["numbers"] = "numbers"
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    quantiles: dict[str, float]


class Names(Record):
    """How often each name occurred."""

    kind: Literal["names"] = "names"
    counts: dict[str, int]
    missing: int


class TableProfile(Record):
    rows: int
    columns: dict[str, Annotated[Numbers | Names, Field(discriminator="kind")]]


class Profile(Record):
    """metrics/profile-PART.json."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    tables: dict[str, TableProfile]


def profile_reviews(batches: Iterable[pa.RecordBatch]) -> TableProfile:
    """Of rows of REVIEWS."""
    table = _Counting()
    for batch in batches:
        table.rows += batch.num_rows
        table.numbers("words", WORDS, _words(batch["text"]))
        table.numbers("stars", STARS, _floats(batch["stars"]))
        for name in ("label", "domain", "split"):
            table.names(name, batch[name].cast(pa.string()).to_pylist())
    return table.profile()


def profile_scores(batches: Iterable[pa.RecordBatch], dimensions: Iterable[str]) -> TableProfile:
    """Of rows of `scores_schema(dimensions)`."""
    table, dimensions = _Counting(), tuple(dimensions)
    for batch in batches:
        table.rows += batch.num_rows
        table.numbers("words", WORDS, _words(batch["completion"]))
        table.names("domain", batch["domain"].to_pylist())
        table.names("finished", batch["finished"].cast(pa.string()).to_pylist())
        for dimension in dimensions:
            table.numbers(f"score.{dimension}", UNIT, _floats(batch[dimension]))
    return table.profile()


def profile_preferences(
    batches: Iterable[pa.RecordBatch], scores: Iterable[pa.RecordBatch], dimensions: Iterable[str]
) -> TableProfile:
    """Of rows of PREFERENCES: lengths, who chose, and by how much the chosen text scores above the rejected one.

    Args:
        scores: where both texts of a pair are among them, its margins are known; else they are missing.
    """
    dimensions = tuple(dimensions)
    table, known = _Counting(), dict(_scored(scores, dimensions))
    pairs: Counter[str] = Counter()
    for batch in batches:
        table.rows += batch.num_rows
        chosen, rejected = _words(batch["chosen"]), _words(batch["rejected"])
        table.numbers("chosen.words", WORDS, chosen)
        table.numbers("rejected.words", WORDS, rejected)
        table.names("longer", [("same", "chosen", "rejected")[int(sign)] for sign in np.sign(chosen - rejected)])
        for name in ("style", "domain", "split"):
            table.names(name, batch[name].to_pylist())
        pairs.update(batch["annotator"].to_pylist())
        margins = _margins(batch, known, len(dimensions))
        for place, dimension in enumerate(dimensions):
            table.numbers(f"margin.{dimension}", DIFFERENCE, margins[:, place])
    table.numbers("annotator.pairs", WORDS, np.array(list(pairs.values()), dtype=np.float64))
    return table.profile()


class _Counting:
    """Columns of one table, a batch of rows at a time."""

    def __init__(self) -> None:
        self.rows = 0
        self._numbers: dict[str, tuple[tuple[float, ...], list[Values]]] = {}
        self._names: dict[str, Counter[str | None]] = {}

    def numbers(self, column: str, edges: tuple[float, ...], values: Values) -> None:
        self._numbers.setdefault(column, (edges, []))[1].append(values)

    def names(self, column: str, values: Iterable[str | None]) -> None:
        self._names.setdefault(column, Counter()).update(values)

    def profile(self) -> TableProfile:
        numbers = {column: _binned(edges, np.concatenate(parts)) for column, (edges, parts) in self._numbers.items()}
        names = {column: _named(counts) for column, counts in self._names.items()}
        return TableProfile(rows=self.rows, columns={**numbers, **names})


def _binned(edges: tuple[float, ...], values: Values) -> Numbers:
    known = values[~np.isnan(values)]
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    quantiles = np.quantile(known, QUANTILES).tolist() if len(known) else []
    return Numbers(
        edges=edges,
        counts=tuple(counts.tolist()),
        missing=len(values) - len(known),
        quantiles={f"{at:.0%}": _short(value) for at, value in zip(QUANTILES, quantiles, strict=False)},
    )


def _named(counts: Counter[str | None]) -> Names:
    known = Counter({name: count for name, count in counts.items() if name is not None})
    kept = dict(sorted(known.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMES])
    if others := known.total() - sum(kept.values()):
        kept[OTHERS] = others
    return Names(counts=kept, missing=counts.total() - known.total())


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _words(texts: pa.Array) -> Values:
    return _floats(pc.list_value_length(pc.utf8_split_whitespace(texts)))


def _floats(values: pa.Array) -> Values:
    """Nulls become NaN."""
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _scored(batches: Iterable[pa.RecordBatch], dimensions: tuple[str, ...]) -> Iterator[tuple[str, Values]]:
    for batch in batches:
        values = np.stack([_floats(batch[each]) for each in dimensions], axis=1)
        yield from zip(map(_of, batch["prompt_id"].to_pylist(), batch["completion"].to_pylist()), values, strict=True)


def _of(prompt_id: str, text: str) -> str:
    return text_id(prompt_id + text)


def _margins(batch: pa.RecordBatch, known: Mapping[str, Values], width: int) -> Values:
    """(rows, width): chosen less rejected, of each dimension; NaN where one of them was not scored."""
    absent = np.full(width, math.nan)
    prompts = batch["prompt_id"].to_pylist()
    sides = [
        [known.get(_of(prompt, text), absent) for prompt, text in zip(prompts, batch[side].to_pylist(), strict=True)]
        for side in ("chosen", "rejected")
    ]
    chosen, rejected = (np.array(side).reshape(batch.num_rows, width) for side in sides)
    difference: Values = chosen - rejected
    return difference
