"""Validated preferences and the reference cache, joined into what the trainer takes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from typing import Any

import pyarrow.compute as pc
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixdpo.config import Params
from mixdpo.data.pair_metadata import metadata_columns
from mixdpo.data.schema import PREFERENCES, read_table
from mixdpo.errors import TrainingError
from mixdpo.files import file_digest, read_json
from mixdpo.layout import Layout
from mixdpo.policy.context import Context
from mixdpo.policy.tokens import TokenRow
from mixdpo.policy.weighting import Weighting
from mixdpo.reference.frozen import Completion, completion_keys, encode_completions, prompt_keys
from mixdpo.reference.known import Keys, Known, Values
from mixdpo.stages.own_references import OwnReferences
from mixdpo.stages.reference import FEATURES, KEY, LOGPS, cache_key
from mixdpo.training.pairs import PreferencePairs, annotator_codes

REMEDY = "run `mixdpo reference` (or `dvc repro`) before training"


class TrainingPairs:
    """The pairs that policies learn from: read, hashed and compared with the reference cache once for a whole training.

    Attributes:
        digests: of what the pairs and their reference are made of, for the key of a run.

    Raises:
        TrainingError: the reference cache was computed with other weights, or in another precision or form.
    """

    def __init__(self, params: Params, layout: Layout) -> None:
        self._params, self._layout = params, layout
        wanted, found = cache_key(params, layout), read_json(layout.reference / KEY)
        if differ := sorted(name for name in wanted if found.get(name) != wanted[name]):
            raise TrainingError(
                f"the reference log-probs in {layout.reference} were computed from other {', '.join(differ)}; {REMEDY}"
            )
        preferences = layout.validated("preferences")
        self.digests = wanted | {"preferences": file_digest(preferences)}
        self._table = read_table(preferences, PREFERENCES)

    def context(self, split: str, references: OwnReferences | None = None) -> Context:
        """What mixing weights may depend on, of the pairs of one split in their order.

        Args:
            references: of a policy that has its own; prompt features are theirs then, not those of the cache.
        """
        return self._context(self._columns(split), references)

    def pairs(
        self,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        weighting: Weighting,
        strangers: float = 0.0,
        references: OwnReferences | None = None,
    ) -> PreferencePairs:
        """Pairs of one split, with what `weighting` depends on encoded as it reads it.

        Args:
            strangers: share of the pairs that `weighting` sees as from an annotator it does not know.
            references: of a policy that has its own; the log-probs and prompt features are theirs then.

        Raises:
            TrainingError: the reference cache lacks a completion or prompt.
            DataError: a pair is longer than training.max_tokens.
        """
        columns = self._columns(split)
        chosen, rejected = (
            list(map(Completion, columns["prompt"], columns[side], columns[f"{side}_finished"]))
            for side in ("chosen", "rejected")
        )
        # a pair's two after one another, so that their prompt runs once where they have to be scored
        both = list(chain.from_iterable(zip(chosen, rejected, strict=True)))
        rows = self._rows(tokenizer, both)
        logps = self._logps(both) if references is None else references.logps(both)
        context = self._context(columns, references).with_strangers(columns["pair_id"], strangers)
        return PreferencePairs(
            ids=columns["pair_id"],
            chosen=[rows[each] for each in chosen],
            rejected=[rows[each] for each in rejected],
            annotators=annotator_codes(columns["annotator"]),
            chosen_reference=logps[0::2].contiguous(),
            rejected_reference=logps[1::2].contiguous(),
            features=weighting.encode(context),
            annotator_names=list(dict.fromkeys(columns["annotator"])),
        )

    def _columns(self, split: str) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = self._table.filter(pc.equal(self._table["split"], split)).to_pydict()
        return columns

    def _rows(
        self, tokenizer: PreTrainedTokenizerBase, completions: Iterable[Completion]
    ) -> dict[Completion, TokenRow]:
        """Each different completion as tokens: annotators compare the same ones."""
        different = list(dict.fromkeys(completions))
        return dict(
            zip(different, encode_completions(tokenizer, different, self._params.training.max_tokens), strict=True)
        )

    def _context(self, columns: dict[str, list[Any]], references: OwnReferences | None) -> Context:
        prompts = columns["prompt"]

        def features() -> Tensor:
            if references is not None:
                return references.features(prompts)
            return torch.from_numpy(self._taken(self._known_features, prompt_keys(prompts), "prompts"))

        metadata = metadata_columns(columns["metadata"], columns["domain"])
        return Context(prompts, features, columns["annotator"], metadata)

    def _logps(self, completions: list[Completion]) -> Tensor:
        return torch.from_numpy(self._taken(self._known_logps, completion_keys(completions), "completions")[:, 0])

    @cached_property
    def _known_logps(self) -> Known:
        return Known.read(self._layout.reference / LOGPS)

    @cached_property
    def _known_features(self) -> Known:
        return Known.read(self._layout.reference / FEATURES)

    def _taken(self, known: Known, keys: Keys, what: str) -> Values:
        if missing := len(known.missing(keys)):
            raise TrainingError(
                f"{self._layout.reference} was computed from other preferences: it lacks {missing} of "
                f"{len(set(keys.tolist()))} {what}; {REMEDY}"
            )
        return known.take(keys)
