"""Seconds of one EM step by head and number of experts, and what our log-prob backward saves.

    python benchmarks/em_step.py                  a table
    python benchmarks/em_step.py --json           one JSON line a case
    python benchmarks/em_step.py --size gpt2      124M parameters, vocabulary 50257

Model and pairs are generated; steps of the compared ways alternate, and medians are reported.
"""

from __future__ import annotations

import json
import statistics
import time
from types import SimpleNamespace

import click
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mixdpo.compute import prepare_compute
from mixdpo.objective import expert_loss, responsibilities
from mixdpo.policy import experts as experts_module
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import new_experts
from mixdpo.policy.token_logps import token_logps
from mixdpo.policy.tokens import TokenRow
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training.mixture import Mixture, forward
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.schedule import adamw

SIZES = {
    "demo": {"layers": 2, "width": 128, "vocabulary": 2400, "pairs": 48, "tokens": (24, 34)},
    "small": {"layers": 4, "width": 256, "vocabulary": 8192, "pairs": 8, "tokens": (32, 128)},
    "gpt2": {"layers": 12, "width": 768, "vocabulary": 50257, "pairs": 4, "tokens": (32, 128)},
}


def plain_token_logps(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What autograd does by itself."""
    return logits.log_softmax(dim=-1).gather(-1, target[..., None]).squeeze(-1)


def pairs_of(size: dict, generator: torch.Generator) -> PreferencePairs:
    def row() -> TokenRow:
        low, high = size["tokens"]
        length = int(torch.randint(low, high + 1, (), generator=generator))
        ids = torch.randint(size["vocabulary"], (8 + length,), generator=generator).tolist()
        return TokenRow(ids[:8], ids[8:])

    count = size["pairs"]
    return PreferencePairs(
        ids=[str(i) for i in range(count)],
        chosen=[row() for _ in range(count)],
        rejected=[row() for _ in range(count)],
        annotators=torch.arange(count) // 8,
        chosen_reference=torch.zeros(count),
        rejected_reference=torch.zeros(count),
        features=torch.zeros(count, size["width"]),
    )


def stepper(size: dict, experts: int, head: str, trunk: str, device: torch.device):
    """A function that does one whole step: forward, E-step, backward, clip, AdamW."""
    generator = torch.Generator().manual_seed(0)
    config = GPT2Config(
        vocab_size=size["vocabulary"],
        n_positions=256,
        n_embd=size["width"],
        n_layer=size["layers"],
        n_head=4 if size["width"] < 768 else 12,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    rank = 16 if head == "lowrank" else None
    architecture = {"kind": "shared", "head": head, "rank": rank, "trunk": trunk}
    models = new_experts(GPT2LMHeadModel(config).eval(), experts, architecture, generator)
    mixture = Mixture(models, PriorWeights.uniform(experts), Likelihood(0.1)).to(device)
    optimizer = adamw([{"params": [p for p in mixture.parameters() if p.requires_grad], "lr": 1e-4}], 0.0)
    pairs = pairs_of(size, generator)
    places = list(range(len(pairs)))

    def step() -> float:
        started = time.perf_counter()
        result = forward(mixture, pairs, places, 4096, device)
        q = responsibilities(result.margins.detach(), result.log_weights, pairs.annotators.to(device))
        optimizer.zero_grad(set_to_none=True)
        expert_loss(result.margins, q).backward()
        torch.nn.utils.clip_grad_norm_(mixture.parameters(), 1.0)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    tokens = sum(len(row) for row in pairs.rows(places))
    return step, tokens


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="demo", show_default=True)
@click.option("--steps", default=9, show_default=True)
@click.option("--threads", default=0, show_default=True, help="0 takes all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(size: str, steps: int, threads: int, device: str, as_json: bool) -> None:
    where = prepare_compute(SimpleNamespace(device=device, dtype="float32", threads=threads)).device
    ways = {"ours": token_logps, "autograd": plain_token_logps}
    if not as_json:
        print(f"size {size}, {torch.get_num_threads()} threads, {device}, median of {steps} alternating steps")
        print(f"{'trunk':<10} {'head':<8} {'experts':>7} {'ours s':>8} {'autograd s':>11} {'ratio':>6} {'tokens/s':>9}")
    for trunk, head, experts in (
        ("trainable", "linear", 1),
        ("trainable", "linear", 3),
        ("trainable", "lowrank", 3),
        ("frozen", "lowrank", 1),
        ("frozen", "lowrank", 3),
        ("frozen", "lowrank", 8),
    ):
        step, tokens = stepper(SIZES[size], experts, head, trunk, where)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        step()
        for _ in range(steps):
            for name, way in ways.items():
                experts_module.token_logps = way
                seconds[name].append(step())
        experts_module.token_logps = token_logps
        ours, autograd = (statistics.median(seconds[name]) for name in ways)
        case = {
            "benchmark": "em_step",
            "size": size,
            "trunk": trunk,
            "head": head,
            "experts": experts,
            "device": device,
            "ours_s_per_step": ours,
            "autograd_s_per_step": autograd,
            "tokens_per_s": tokens / ours,
        }
        if as_json:
            print(json.dumps(case))
        else:
            ratio, rate = ours / autograd, tokens / ours
            print(f"{trunk:<10} {head:<8} {experts:>7} {ours:>8.3f} {autograd:>11.3f} {ratio:>6.2f} {rate:>9.0f}")


if __name__ == "__main__":
    main()
