"""The two sides of dpo_step.py: this package's training step and TRL's, on the same model, pairs and optimiser.

Each side runs in a process of its own, so that neither sees the other's allocator or memory, and does one step when it
is asked to, so that the two alternate.
"""

from __future__ import annotations

import logging
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from memory import forget_peak, peak_mb, resident_mb
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mixdpo.compute import prepare_compute
from mixdpo.config.models import Device
from mixdpo.config.policy import Policy
from mixdpo.config.training import Training
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.scoring import score_rows
from mixdpo.policy.tokens import TokenRow
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training.batching import epoch_batches
from mixdpo.training.mixture import Mixture
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.run import Run, Setup
from mixdpo.training.schedule import adamw

BETA, RATE, RANK, CLIP = 0.1, 1e-5, 16, 1.0
ANSWER = (32, 128)  # tokens


class Size(NamedTuple):
    layers: int
    width: int
    heads: int
    vocabulary: int
    pairs: int  # a step


SIZES = {"tiny": Size(1, 32, 2, 300, 4), "small": Size(4, 256, 4, 8192, 8), "gpt2": Size(12, 768, 12, 50257, 4)}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        head: `linear` or `lowrank` over one trunk, or `models` of their own.
        prompt: tokens of a prompt, give or take a quarter.
        routed: every annotator's expert is given, as after specialisation; else q is the posterior.
        steps: different batches of the run, the first a warm-up.
    """

    size: str
    experts: int
    head: str
    trunk: str
    prompt: int
    routed: bool
    dtype: str
    device: str
    threads: int
    steps: int

    @property
    def shape(self) -> Size:
        return SIZES[self.size]

    @property
    def longest(self) -> int:
        """Tokens of the longest row that there may be."""
        return self.prompt + self.prompt // 4 + ANSWER[1]

    @property
    def same_model(self) -> bool:
        """Whether both sides train the same parameters."""
        return self.experts == 1 and self.head != "lowrank" and self.trunk == "trainable"


class Measured(NamedTuple):
    wall: float  # seconds
    cpu: float  # processor seconds of this process
    loss: float
    faults: int  # minor page faults


def new_model(case: Case) -> GPT2LMHeadModel:
    """GPT-2 from its configuration, with a head of its own, as expert heads are."""
    size = case.shape
    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_positions=case.longest,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).eval()


def pairs_of(case: Case) -> PreferencePairs:
    """Enough random pairs for every step, a batch of them from each of K annotators' share; references are zero yet."""
    generator = torch.Generator().manual_seed(0)
    size = case.shape

    def draw(bounds: tuple[int, int]) -> list[int]:
        length = int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))
        return torch.randint(1, size.vocabulary, (length,), generator=generator).tolist()

    count = size.pairs * case.steps
    spread = case.prompt // 4
    prompts = [draw((case.prompt - spread, case.prompt + spread)) for _ in range(count)]
    chosen, rejected = ([TokenRow(prompt, draw(ANSWER)) for prompt in prompts] for _ in range(2))
    names = [str(place) for place in range(count)]
    # a pair an annotator, so that batches are the same for every number of experts
    return PreferencePairs(
        names, chosen, rejected, torch.arange(count), torch.zeros(count), torch.zeros(count), torch.zeros(count), names
    )


def batches_of(case: Case, pairs: PreferencePairs) -> list[list[int]]:
    return epoch_batches(pairs.annotators, case.shape.pairs, 0, 0, together=True)


def tokens_of(case: Case) -> list[int]:
    """Tokens of each step, prompts counted in both rows."""
    pairs = pairs_of(case)
    return [sum(map(len, pairs.rows(places))) for places in batches_of(case, pairs)]


class Side(NamedTuple):
    """One trainer."""

    step: Callable[[int], float]  # does the step of this number, gives its loss
    state: int  # bytes of weights, gradients and moments
    estimate: int  # bytes that it expects to need beside these, 0 where it has no opinion


def our_step(case: Case) -> Side:
    """A step of `training.run.Run`."""
    compute = prepare_compute(Device(device=case.device, dtype=_name(case.dtype), threads=case.threads))
    model, pairs = new_model(case), pairs_of(case)
    rank = RANK if case.head == "lowrank" else None
    architecture: dict[str, Any] = {"kind": "shared", "head": case.head, "rank": rank, "trunk": case.trunk}
    if case.head == "models":
        architecture = {"kind": "independent"}
    reference = frozen_reference(model).to(compute.device)
    sides = (score_rows(reference, rows, compute.precision)[:, 0].cpu() for rows in (pairs.chosen, pairs.rejected))
    for known, scores in zip((pairs.chosen_reference, pairs.rejected_reference), sides, strict=True):
        known.copy_(scores)
    names = {name: place % case.experts for place, name in enumerate(pairs.annotator_names)}
    noise = {"kind": "noise", "scale": 0.02} if case.experts > 1 else {"kind": "none"}
    policy = Policy.model_validate(
        {
            "experts": case.experts,
            "architecture": architecture,
            "weights": {"kind": "fixed", "values": None},
            "latent": "annotator",
            "symmetry": {"kind": "anchors", "annotators": names} if case.routed else noise,
        }
    )
    settings = Training(
        beta=BETA,
        epochs=1,
        batch_pairs=case.shape.pairs,
        learning_rate=RATE,
        warmup=0.0,
        weight_decay=0.0,
        clip=CLIP,
        tempering={"start": 1.0, "steps": 0},
        tile_tokens=4096,
        max_tokens=case.longest,
        evaluate_every=1000,
        checkpoint_every=1000,
    )
    experts = new_experts(model, case.experts, architecture, torch.Generator().manual_seed(0))
    mixture = Mixture(experts, PriorWeights.uniform(case.experts), Likelihood.of(policy, settings))
    run = Run(mixture, pairs, pairs, Setup(settings, policy, 0, compute.device, compute.precision), None)
    assert run.batches == batches_of(case, pairs)
    estimate = max(map(run.passes.fit.whole, run.batches))
    return Side(lambda step: run.step(step)["loss"], _state_bytes(mixture), estimate)


def trl_step(case: Case) -> Side:
    """The same step by TRL's trainer: its loss, metrics, clipping and our AdamW (its default: fused)."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(case.threads or torch.get_num_threads())
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    model, pairs = new_model(case), pairs_of(case)
    words = {str(token): token for token in range(case.shape.vocabulary)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="0")), eos_token="0", pad_token="0"
    )
    with tempfile.TemporaryDirectory() as directory:
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=directory,
                beta=BETA,
                use_cpu=case.device == "cpu",
                bf16=case.dtype == "bf16",
                precompute_ref_log_probs=True,
                gradient_checkpointing=False,
                max_length=case.longest,
                disable_dropout=True,
                disable_tqdm=True,
                report_to=[],
            ),
            train_dataset=datasets.Dataset.from_dict({"prompt": ["1"], "chosen": ["2"], "rejected": ["3"]}),
            processing_class=tokenizer,
        )
    # what `train` would do before its first step
    trainer.current_gradient_accumulation_steps = 1
    prepared = trainer.accelerator.prepare(model)
    optimizer = adamw([{"params": list(model.parameters()), "lr": RATE}], 0.0)
    places = batches_of(case, pairs)

    def rows(batch: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "prompt_ids": pairs.chosen[place].prompt,
                "chosen_ids": pairs.chosen[place].completion,
                "rejected_ids": pairs.rejected[place].completion,
                "ref_chosen_logps": float(pairs.chosen_reference[place]),
                "ref_rejected_logps": float(pairs.rejected_reference[place]),
            }
            for place in batch
        ]

    for batch in places:
        inputs = trainer._prepare_inputs(trainer.data_collator(rows(batch)))
        known = trainer.compute_ref_log_probs(prepared, inputs)
        for column, scores in zip((pairs.chosen_reference, pairs.rejected_reference), known, strict=True):
            column[batch] = scores.float().cpu()

    def step(number: int) -> float:
        # as in ours: down to a tenth over the run
        falling = 1.0 - 0.9 * (number - 1) / max(1, len(places) - 1) if number else 1.0
        optimizer.param_groups[0]["lr"] = RATE * falling
        loss = trainer.training_step(prepared, trainer.data_collator(rows(places[number])))
        trainer.accelerator.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return Side(step, _state_bytes(model), 0)


def serve(pipe: Connection, side: str, case: Case) -> None:
    """Do the steps that the other end asks for by number; on None, answer with peak memory, measured and estimated.

    Peak memory, in MB: above the process without model, less weights, gradients and AdamW's moments.
    """
    base = resident_mb(case.device)
    step, state, estimate = (our_step if side == "ours" else trl_step)(case)
    while (number := pipe.recv()) is not None:
        if number == 1:  # what came before was preparation
            forget_peak(case.device)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(number)
        if case.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send(Measured(*seconds, loss, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults))
    pipe.send((peak_mb(case.device) - base - state / 1e6, estimate / 1e6))


def _state_bytes(module: torch.nn.Module) -> int:
    """Weights; gradients and two moments of those that learn."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(each.numel() * each.element_size() * (4 if each.requires_grad else 1) for each in tensors)


def _name(dtype: str) -> str:
    return "bfloat16" if dtype == "bf16" else "float32"
