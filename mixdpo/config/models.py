"""params.yaml: reward models, the SFT policy and the candidates drawn from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mixdpo.config.base import Count, Name, Natural, Positive, Section


def _spans(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] == bounds[1]:
        raise ValueError(f"both ends are {bounds[0]:g}, so no target can be told from another; give two numbers")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_spans)]  # of a target; its ends are mapped to 0 and 1


class TrainHere(Section):
    """Train this reward model in the `rewards` stage, from the dimension's `labels`."""

    kind: Literal["train"]


class PretrainedReward(Section):
    """A Hugging Face sequence-classification model: Hub id, or directory of the same layout."""

    kind: Literal["pretrained"]
    model: str
    revision: str | None  # null for a directory; a Hub id needs one
    label: str  # whose probability is the score: a name of the model's id2label, or its index
    temperature: Positive


RewardModelSource = Annotated[TrainHere | PretrainedReward, Field(discriminator="kind")]


class ReviewLabels(Section):
    """Targets from the reviews themselves: `label`, or a number in their metadata."""

    kind: Literal["reviews"]
    field: str
    range: Range


class FileLabels(Section):
    """Targets from labelled files (CoLA, specificity ratings …)."""

    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)
    text: str
    target: str
    range: Range
    limit: Count | None


class CorruptionLabels(Section):
    """Grammar by rule: sentences of the reviews are 1, the same sentences damaged are 0."""

    kind: Literal["corruptions"]
    limit: Count


LabelSource = Annotated[ReviewLabels | FileLabels | CorruptionLabels, Field(discriminator="kind")]


class Dimension(Section):
    """One reward: the model that labels pairs, the held-out one that judges, and what both may learn from."""

    annotator: RewardModelSource
    judge: RewardModelSource
    labels: tuple[LabelSource, ...]

    @model_validator(mode="after")
    def _has_labels(self) -> Dimension:
        if not self.labels and "train" in (self.annotator.kind, self.judge.kind):
            raise ValueError("a model is to be trained here but `labels` is empty; name a label source or a model")
        return self


class RewardTraining(Section):
    """Small classifiers trained from scratch (ModernBERT shape, mean pooling)."""

    vocabulary: Annotated[int, Field(ge=300)]
    layers: Count
    width: Count
    heads: Count
    max_tokens: Count
    snippet_words: tuple[Count, Count]  # texts are cut to a random length in here, as long as completions are
    epochs: Count
    batch: Count
    learning_rate: Positive

    @model_validator(mode="after")
    def _consistent(self) -> RewardTraining:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 2 * heads {2 * self.heads}; change one of them")
        if self.snippet_words[0] > self.snippet_words[1]:
            raise ValueError(f"snippet_words {self.snippet_words} go from long to short; give the shorter first")
        return self


class Rewards(Section):
    dimensions: dict[Name, Dimension] = Field(min_length=1)
    training: RewardTraining
    batch_tokens: Count  # tokens scored at once


class FromConfig(Section):
    """A new model of this shape, with a byte-level BPE tokenizer trained on the reviews."""

    kind: Literal["config"]
    architecture: Literal["gpt2", "llama", "qwen", "neox"]
    vocabulary: Annotated[int, Field(ge=300)]
    layers: Count
    width: Count
    heads: Count
    context: Count

    @model_validator(mode="after")
    def _divides(self) -> FromConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; change one of them")
        return self


class PretrainedPolicy(Section):
    """A causal language model: Hub id, or directory of the same layout below `inputs`."""

    kind: Literal["pretrained"]
    model: str
    revision: str | None


class SFT(Section):
    base: Annotated[FromConfig | PretrainedPolicy, Field(discriminator="kind")]
    epochs: Natural  # 0 takes the base as it is
    batch: Count  # reviews a step
    max_tokens: Count
    learning_rate: Positive


class PromptCounts(Section):
    train: Count
    validation: Count
    test: Count


class Vllm(Section):
    """Let vLLM write, which needs an environment of its own (docs/decisions/0009-vllm.md)."""

    python: str  # the interpreter of that environment
    gpus: Count  # that share the model
    memory: Annotated[float, Field(gt=0, le=1)]  # share of each GPU's memory that vLLM takes


class Candidates(Section):
    prompts: PromptCounts
    prompt_words: tuple[Count, Count]  # the first words of a review: a length in here, by hash
    per_prompt: Annotated[int, Field(ge=2)]
    max_new_tokens: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    batch: Count  # rows sampled at once
    vllm: Vllm | None = None


class Device(Section):
    """Where and in which precision the models run."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]  # of matrix products; log-probs, responsibilities and losses stay float32
    threads: Natural  # CPU threads of a process; 0 takes all, or an equal share where several train together
