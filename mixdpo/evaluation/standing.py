"""What one policy showed on held-out prompts, kept so that a later one can be compared with it on the same terms.

Scores and ids alone, no text: enough to say what people of any style get from the policy, and to pair that with another
policy's prompt by prompt. R rows (a prompt, once for each sample of it), K experts, B held-out pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mixdpo.config.models import Candidates
from mixdpo.errors import DataError
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.preference import Ids, Judgement
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.served import FLAT, evidence_after, personal_weights
from mixdpo.evaluation.statistics import Floats
from mixdpo.files import canonical_json, digest, directory_digest
from mixdpo.layout import STANDING

SCHEMA = 1
_JUDGED = "judged."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Terms(_Part):
    """On what a policy was judged. Two standings can be compared where these are equal."""

    prompts: str  # digest of the prompts: ids, texts, domains, how many samples of each
    pairs: str  # digest of the held-out pairs: who compared what with what
    judges: dict[str, str]  # dimension → digest of the held-out reward model's directory
    sampling: dict[str, float]  # how completions are drawn, with the seed

    @classmethod
    def of(cls, prompts: Prompts, pairs: HeldOut, judges: Mapping[str, Path], settings: Candidates, seed: int) -> Terms:
        """Args: judges: dimension → directory."""
        columns = ("pair_id", "annotator", "style", "prompt", "chosen", "rejected")
        return cls(
            prompts=digest([prompts.ids, prompts.texts, prompts.domains, prompts.samples]),
            pairs=digest([pairs.columns[name] for name in columns]),
            judges={name: directory_digest(path) for name, path in judges.items()},
            sampling={
                "max_new_tokens": float(settings.max_new_tokens),
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "seed": float(seed),
            },
        )

    @property
    def digest(self) -> str:
        return digest(self.model_dump())


class _Header(_Part):
    schema_version: Annotated[Literal[1], Field(alias="schema")]
    terms: Terms
    scale: dict[str, Annotated[float, Field(gt=0)]]
    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    styles: tuple[str | None, ...]


@dataclass(frozen=True)
class Standing:
    """One policy under `terms`.

    Attributes:
        scale: dimension → standard deviation of the judge's scores of the SFT policy's samples.
        prompts: (R,) ids.
        weights: (R, K) mixing weights for a stranger.
        judged: dimension → (R, K), the held-out judge's scores.
        styles, annotators: (B,) of the held-out pairs; annotators are numbers.
        margins: (B, K), nats.
    """

    terms: Terms
    scale: dict[str, float]
    prompts: tuple[str, ...]
    weights: Floats
    judged: dict[str, Floats]
    styles: tuple[str | None, ...]
    annotators: Ids
    margins: Floats

    @classmethod
    def of(
        cls,
        terms: Terms,
        scale: Mapping[str, float],
        samples: Samples,
        prompts: Prompts,
        judgement: Judgement,
        pairs: HeldOut,
    ) -> Standing:
        return cls(
            terms,
            dict(scale),
            tuple(prompts.ids),
            samples.weights,
            dict(samples.scores["judge"]),
            tuple(pairs.styles),
            pairs.groups,
            judgement.margins,
        )

    def rewards(
        self, taste: Mapping[str, float], style: str | None, comparisons: int, scale: Mapping[str, float]
    ) -> Floats:
        """What people of a style get, up to a constant that all policies share: (R,), in units of `scale`.

        Args:
            taste: weight of each dimension.
            style: whose held-out annotators say which expert they get; None, or where there are none: as strangers.
            comparisons: so many of theirs are known.
        """
        rewards = np.asarray(sum(weight * self.judged[name] / scale[name] for name, weight in taste.items()))
        weights = self.weights
        mine = np.array([each == style for each in self.styles], dtype=bool)
        if style is not None and comparisons and mine.any() and weights.shape[1] > 1:
            own = Judgement(self.margins[mine], np.zeros_like(self.margins[mine]), "annotator")
            evidence = evidence_after(own, self.annotators[mine], comparisons)
            weights = personal_weights(np.log(np.maximum(weights, np.finfo(np.float64).tiny)), evidence)
        return np.asarray((weights * rewards).sum(axis=1))

    def files(self) -> dict[str, bytes]:
        """Suffix (`STANDING`) → bytes; equal for equal standings."""
        header = {
            "schema": SCHEMA,
            "terms": self.terms.model_dump(),
            "scale": self.scale,
            "prompts": self.prompts,
            "styles": self.styles,
        }
        arrays = {_JUDGED + name: np.ascontiguousarray(scores) for name, scores in self.judged.items()}
        arrays |= {
            "weights": np.ascontiguousarray(self.weights),
            "annotators": np.ascontiguousarray(self.annotators),
            "margins": np.ascontiguousarray(self.margins),
        }
        return dict(zip(STANDING, (canonical_json(header), save(arrays)), strict=True))

    def write(self, path: Path) -> None:
        """The files, at `path` and their suffixes; directories are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix, body in self.files().items():
            path.with_suffix(suffix).write_bytes(body)

    @classmethod
    def read(cls, files: Mapping[str, bytes], origin: str) -> Standing:
        """From what `files` gives. Raises DataError where it is no standing; `origin` is for the message."""
        try:
            header = _Header.model_validate_json(files[".json"])
            arrays = load(files[".safetensors"])
            judged = {name.removeprefix(_JUDGED): each for name, each in arrays.items() if name.startswith(_JUDGED)}
            found = cls(
                header.terms,
                header.scale,
                header.prompts,
                arrays["weights"],
                judged,
                header.styles,
                arrays["annotators"],
                arrays["margins"],
            )
            fault = found._fault()
        except ValidationError as error:
            fault = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            raise DataError(
                f"{origin} is no record of an evaluation that this mixdpo reads: {fault}; evaluate and register that "
                "policy again"
            )
        return found

    def _fault(self) -> str | None:
        """What does not fit together."""
        floats = {"weights": self.weights, "margins": self.margins, **self.judged}
        if wrong := [n for n, a in floats.items() if a.dtype != np.float64 or a.ndim != 2 or not np.isfinite(a).all()]:
            return f"{', '.join(wrong)}: expected finite numbers by rows and experts"
        rows, experts = self.weights.shape
        shapes = {"judged": {each.shape for each in self.judged.values()}, "margins": {self.margins.shape}}
        if rows != len(self.prompts) or shapes != {
            "judged": {(rows, experts)},
            "margins": {(len(self.styles), experts)},
        }:
            return f"expected {len(self.prompts)} rows, {len(self.styles)} pairs and {experts} experts, got {shapes}"
        if self.annotators.dtype != np.int64 or self.annotators.shape != (len(self.styles),):
            return "expected one number of an annotator a pair"
        if not self.judged.keys() == self.scale.keys() == self.terms.judges.keys():
            return f"expected one judge a dimension, got {', '.join(self.judged)} and {', '.join(self.terms.judges)}"
        return None


def scale_of(sft: Samples) -> dict[str, float]:
    """Standard deviation of each judge's scores of the SFT policy's samples."""
    return {name: max(float(scores.std()), FLAT) for name, scores in sft.scores["judge"].items()}
