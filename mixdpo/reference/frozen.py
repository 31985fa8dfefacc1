"""A frozen model's log-probs and prompt features, of each text once: in this run or in an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixdpo.compute import Compute
from mixdpo.errors import ModelError
from mixdpo.files import code_digests, digest
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.scoring import prompt_features, score_rows
from mixdpo.policy.tokens import TokenRow, encode_prompts, encode_rows
from mixdpo.reference.known import Keys, Known, Values, content_keys
from mixdpo.reference.store import Store, forget_oldest


class Completion(NamedTuple):
    """A prompt, what follows it, and whether that ended by itself."""

    prompt: str
    text: str
    finished: bool


class Frozen(NamedTuple):
    """A model with one head that is never trained, and its tokenizer."""

    model: SharedTrunk
    tokenizer: PreTrainedTokenizerBase


class FrozenScores:
    """What one frozen model says of texts. New texts alone are computed, and kept in a directory below `stores`.

    The directory's name holds the model, precision, kind of device and code; so a change of these finds nothing.
    """

    def __init__(self, name: str, content: str, load: Callable[[], Frozen], compute: Compute, stores: Path) -> None:
        """
        Args:
            name: of the model, for messages.
            content: digest of its directory.
            load: gives the model, on its device; called only if something is not known.
        """
        self.name, self._load, self._precision = name, load, compute.precision
        self.directory = stores / store_key(content, compute)[:16]
        self._logps, self._features = (Store(self.directory / kind) for kind in ("logps", "features"))

    def logps(self, completions: Sequence[Completion]) -> Values:
        """log ρ(y|x), nats: (completions,).

        Raises:
            DataError: as `encode_rows`, or a row is longer than the model reads.
            ModelError: a log-prob is no finite number.
        """

        if not completions:
            return np.empty(0, np.float32)

        def compute(places: NDArray[np.int64]) -> Values:
            some = [completions[place] for place in places]
            rows = encode_completions(self._frozen.tokenizer, some)
            return self._checked(score_rows(self._frozen.model, rows, self._precision), [each.prompt for each in some])

        return self._logps.ask(completion_keys(completions), compute, f"log-probs under {self.name}")[:, 0]

    def features(self, prompts: Sequence[str]) -> Values:
        """Mean embedding and mean state of each prompt: (prompts, 2·width). Raises as `logps`."""

        def compute(places: NDArray[np.int64]) -> Values:
            some = [prompts[place] for place in places]
            rows = [TokenRow(ids, []) for ids in encode_prompts(self._frozen.tokenizer, some)]
            return self._checked(prompt_features(self._frozen.model, rows, self._precision), some)

        return self._features.ask(prompt_keys(prompts), compute, f"prompt features under {self.name}")

    def asked(self) -> tuple[Known, Known]:
        """All log-probs and all features that were asked for."""
        return self._logps.asked(), self._features.asked()

    def tidy(self) -> None:
        """Merge what was written with what was there, and make room where others' stores need too much."""
        for store in (self._logps, self._features):
            store.tidy()
        forget_oldest(self.directory)

    @cached_property
    def _frozen(self) -> Frozen:
        return self._load()

    def _checked(self, values: Tensor, prompts: Sequence[str]) -> Values:
        found: Values = values.float().cpu().numpy()
        if len(bad := np.flatnonzero(~np.isfinite(found).all(axis=1))):
            raise ModelError(
                f"{self.name} gives what is no finite number for {len(bad)} of {len(found)} texts, that of the prompt "
                f"{prompts[bad[0]][:60]!r} first; "
                + ("set compute.dtype to float32" if self._precision is torch.bfloat16 else "use another model")
            )
        return found


def store_key(content: str, compute: Compute) -> str:
    """Digest of all that decides what a model says of a text: the model, where it runs, and the code that runs it."""
    versions = [torch.__version__, transformers.__version__]
    return digest([content, compute.device.type, str(compute.precision), code_digests("policy"), versions])


def encode_completions(
    tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion], max_tokens: int | None = None
) -> list[TokenRow]:
    """See `encode_rows`."""
    prompts, texts = [each.prompt for each in completions], [each.text for each in completions]
    return encode_rows(tokenizer, prompts, texts, [each.finished for each in completions], max_tokens)


def completion_keys(completions: Sequence[Completion]) -> Keys:
    return content_keys(completions)


def prompt_keys(prompts: Sequence[str]) -> Keys:
    return content_keys((prompt,) for prompt in prompts)
