"""The held-out preferences, what a policy thinks of them, and the held-out prompts it is to complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixdpo.config.data import AnnotatedPairs, Preferences
from mixdpo.data.pair_metadata import metadata_columns
from mixdpo.data.schema import unit_hash
from mixdpo.errors import DataError
from mixdpo.evaluation.preference import Ids, Judgement, Latent

if TYPE_CHECKING:
    from mixdpo.policy import MixturePolicy


JUDGED = ("prompt", "chosen", "rejected", "chosen_finished", "rejected_finished", "annotator", "domain", "metadata")


@dataclass(frozen=True)
class HeldOut:
    """Pairs of one split, most often test (B of them), an annotator's together, in an order that ids alone decide.

    Attributes:
        columns: the preferences table as lists.
        groups: (B,) integer ids of annotators.
        returning: places of the pairs whose annotator labelled training pairs too.
    """

    columns: dict[str, list[Any]]
    groups: Ids
    returning: Ids

    @classmethod
    def of(cls, preferences: pa.Table, split: str = "test") -> HeldOut:
        """Raises DataError where the table has no pairs of this split."""
        own = preferences.filter(pc.equal(preferences["split"], split))
        if not own.num_rows:
            raise DataError(
                f"expected held-out pairs (split {split}) among the preferences, found none; "
                f"raise splits, preferences.annotators or candidates.prompts for {split}"
            )
        columns = own.sort_by([("annotator", "ascending"), ("pair_id", "ascending")]).to_pydict()
        _, groups = np.unique(np.array(columns["annotator"]), return_inverse=True)
        known = set(preferences.filter(pc.equal(preferences["split"], "train"))["annotator"].to_pylist())
        returning = [place for place, name in enumerate(columns["annotator"]) if name in known]
        return cls(columns, groups.astype(np.int64), np.array(returning, dtype=np.int64))

    @classmethod
    def earlier(cls, preferences: pa.Table, pairs: HeldOut) -> HeldOut | None:
        """The training pairs of those annotators of `pairs` who made some; None where all are new."""
        if not len(pairs.returning):
            return None
        people = pa.array(sorted({pairs.annotators[place] for place in pairs.returning}))
        return cls.of(preferences.filter(pc.is_in(preferences["annotator"], value_set=people)), "train")

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def annotators(self) -> list[str]:
        return self.columns["annotator"]

    @property
    def styles(self) -> list[str | None]:
        return self.columns["style"]

    @cached_property
    def known(self) -> Ids:
        """Places of the pairs whose annotator's style is known."""
        return np.array([place for place, style in enumerate(self.styles) if style is not None], dtype=np.int64)

    @cached_property
    def domains(self) -> list[str]:
        return [domain or "" for domain in self.columns["domain"]]


def judge_pairs(policy: MixturePolicy, columns: Mapping[str, list[Any]]) -> Judgement:
    """Margins and mixing weights of one policy on pairs, each as its annotator's; of `columns` it reads `JUDGED`."""
    weighting = policy.weighting
    prompts = columns["prompt"]
    completions = (columns[name] for name in ("chosen", "rejected", "chosen_finished", "rejected_finished"))
    metadata = metadata_columns(columns["metadata"], columns["domain"])
    margins = policy.preference_logits(prompts, *completions)
    annotators = None if weighting.annotators is None else columns["annotator"]
    seen = {name: metadata[name] for name in weighting.columns if name in metadata}
    log_weights = policy.log_weights(prompts, annotators, seen).double().cpu().numpy()
    # a weight of 0 becomes one that no evidence outweighs, so that sums stay finite
    least = np.log(np.finfo(np.float64).tiny)
    return Judgement(margins.double().cpu().numpy(), np.maximum(log_weights, least), cast(Latent, policy.latent))


def heldout_prompts(preferences: Preferences, scores: pa.Table, pairs: HeldOut, limit: int) -> list[dict[str, Any]]:
    """Distinct held-out prompts, at most `limit`, chosen and ordered by hash.

    Where pairs were labelled here, all test prompts that were sampled from (whether or not someone compared them);
    with ready preferences, the prompts of their test pairs.
    """
    if isinstance(preferences.source, AnnotatedPairs):
        rows = scores.filter(pc.equal(scores["split"], "test")).select(["prompt_id", "prompt", "domain"]).to_pylist()
    else:
        names = ("prompt_id", "prompt", "domain")
        values = zip(*(pairs.columns[name] for name in names), strict=True)
        rows = [dict(zip(names, row, strict=True)) for row in values]
    distinct = {row["prompt_id"]: row for row in rows}
    if not distinct:
        raise DataError("expected held-out prompts (split test) among the scores, found none; raise splits.test")
    order = sorted(distinct, key=lambda prompt_id: unit_hash(prompt_id, "evaluation"))
    return [distinct[prompt_id] for prompt_id in order[:limit]]
