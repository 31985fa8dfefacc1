"""From texts to what a reward model reads: token ids, once for all models that cut texts alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from mixdpo.errors import DataError
from mixdpo.files import digest

logger = logging.getLogger(__name__)

# of a tokenizer's own description, what changes from call to call and not from tokenizer to tokenizer
PASSING = ("truncation", "padding")


class Encoder:
    """A tokenizer, and how many tokens the model behind it reads.

    A text that is longer loses its end, which is said once.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._said = False

    @cached_property
    def key(self) -> str:
        """Equal where two encoders make the same token ids of every text."""
        if not self.tokenizer.is_fast:
            return f"python {id(self)}"
        whole = json.loads(self.tokenizer.backend_tokenizer.to_str())
        rules = {name: part for name, part in whole.items() if name not in PASSING}
        return digest([rules, self.tokenizer.split_special_tokens, self.max_tokens])

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, `max_tokens` of them at most.

        Raises:
            DataError: one has no token, because it is empty and the tokenizer adds none.
        """
        if not texts:
            return []
        rows: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        long = [place for place, row in enumerate(rows) if len(row) > self.max_tokens]
        if long:
            self._say(len(long), len(texts))
            cut = self.tokenizer([texts[place] for place in long], truncation=True, max_length=self.max_tokens)
            for place, row in zip(long, cut["input_ids"], strict=True):
                rows[place] = row
        if [] in rows:
            raise DataError(f"{texts[rows.index([])]!r} has no token that could be judged; drop the row of this text")
        return rows

    def _say(self, long: int, texts: int) -> None:
        if not self._said:
            logger.warning(
                "%d of %d texts are longer than the %d tokens that the reward model reads; their ends are not judged",
                *(long, texts, self.max_tokens),
            )
        self._said = True
