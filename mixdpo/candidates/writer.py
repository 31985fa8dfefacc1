"""Who writes candidates: prompts in, texts out, whichever engine runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mixdpo.compute import prepare_compute
from mixdpo.policy import MixturePolicy

if TYPE_CHECKING:
    from mixdpo.config.models import Candidates, Device


class Writer(Protocol):
    """One model and the settings it writes with."""

    def write(self, prompts: Sequence[str], first: int) -> tuple[list[str], list[bool]]:
        """Continue prompts.

        Args:
            first: place of the first of these prompts among all rows of one drawing. What a row gets depends on the
                seed and its place alone, so neither on the shard it lies in nor on who has the other shards.

        Returns:
            The texts, and whether each ended by itself (it was cut at `max_new_tokens` otherwise).
        """
        ...


class PolicyWriter:
    """This package's own decoder."""

    def __init__(self, policy: MixturePolicy, settings: Candidates, seed: int) -> None:
        self.policy = policy
        self.settings = settings
        self.seed = seed

    def write(self, prompts: Sequence[str], first: int) -> tuple[list[str], list[bool]]:
        written = self.policy.generate(
            prompts,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=self.seed,
            batch=self.settings.batch,
            first=first,
        )
        return written.texts, written.finished


def open_writer(model: Path, settings: Candidates, compute: Device, seed: int) -> Writer:
    """Load the model of a directory as the engine that params.yaml asks for.

    Raises:
        ModelError: the directory is not a causal language model. ConfigError: vLLM is asked for and is not there.
    """
    if settings.vllm is not None:
        from mixdpo.candidates.vllm_writer import VllmWriter

        return VllmWriter(model, settings, settings.vllm, compute, seed)
    device, precision = prepare_compute(compute)
    policy = MixturePolicy.from_causal_lm(model).to(device)
    policy.precision = precision
    return PolicyWriter(policy, settings, seed)
