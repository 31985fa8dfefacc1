"""What lets a mixture find its groups, on the smallest problem that has the trouble: linear Bradley–Terry experts.

    python benchmarks/recovery.py                  both tables, 10 and 5 seeds
    python benchmarks/recovery.py --seeds 2 --json one JSON line a row

An expert is a vector of 16 weights; a comparison is a difference of features and who said it. EM in mini-batches with
the objective of this package and Adam; judged on new users with 8 comparisons each, by the posterior of all eight.
The first table has tastes far apart (cosine −0.5), one latent a pair; the second tastes close together (cosine +0.5, a
minority of 30 %), one latent a pair against one a user. Prior weights are uniform but in the second table, where they
are learned in closed form.
"""

from __future__ import annotations

import json
import math
import statistics
from typing import NamedTuple

import click
import torch
from torch import Tensor

from mixdpo.objective import expert_loss, log_joint, responsibilities, update_global_weights
from mixdpo.training.schedule import anneal

FEATURES, PAIRS_EACH, TEST_USERS = 16, 8, 500


class World(NamedTuple):
    truth: Tensor  # (2, features)
    differences: Tensor  # (pairs, features), chosen minus rejected
    users: Tensor  # (pairs,)
    groups: Tensor  # (users,)


class Start(NamedTuple):
    noise: float = 0.0
    partition_steps: int = 0
    temperature: float = 1.0  # falls, or rises, to 1


def make_world(users: int, cosine: float, norm: float, minority: float, truth: Tensor | None, seed: int) -> World:
    generator = torch.Generator().manual_seed(seed)
    if truth is None:
        basis = torch.linalg.qr(torch.randn(FEATURES, 2, generator=generator)).Q.T
        second = cosine * basis[0] + math.sqrt(1 - cosine**2) * basis[1]
        truth = norm * torch.stack([basis[0], second])
    groups = (torch.rand(users, generator=generator) < minority).long()
    member = torch.arange(users).repeat_interleave(PAIRS_EACH)
    x = torch.randn(len(member), FEATURES, generator=generator)
    prefers = torch.rand(len(member), generator=generator) < torch.sigmoid((x * truth[groups[member]]).sum(dim=-1))
    return World(truth, torch.where(prefers[:, None], x, -x), member, groups)


def fit(world: World, start: Start, by_user: bool, learn_prior: bool, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights of the two experts (2, features) and their log-prior (2,)."""
    generator = torch.Generator().manual_seed(seed)
    common = 0.1 * torch.randn(FEATURES, generator=generator)
    experts = (common + start.noise * torch.randn(2, FEATURES, generator=generator)).requires_grad_()
    given = torch.randint(2, (len(world.groups),), generator=generator)
    log_prior = torch.full((2,), 0.5).log()
    optimizer = torch.optim.Adam([experts], lr=0.02)
    users = len(world.groups)
    for step in range(steps):
        chosen = torch.randperm(users, generator=generator)[:32]
        rows = (chosen[:, None] * PAIRS_EACH + torch.arange(PAIRS_EACH)).flatten()
        margins = world.differences[rows] @ experts.T
        with torch.no_grad():
            temperature = anneal(step, start.temperature, 1.0, steps // 3, "linear")
            groups = world.users[rows] if by_user else None
            q = responsibilities(margins, log_prior, groups, temperature)
            if step < start.partition_steps:
                q = torch.nn.functional.one_hot(given[world.users[rows]], 2).float()
        optimizer.zero_grad()
        expert_loss(margins, q).backward()
        optimizer.step()
        if learn_prior:
            log_prior = update_global_weights(log_prior, q, alpha=1.5, smoothing=0.95)
    return experts.detach(), log_prior


def judge(world: World, experts: Tensor, log_prior: Tensor) -> tuple[float, float, float]:
    """Share of users whose group is found under the better naming; mean cosine to the truth; mutual information.

    The last is that of one pair and its expert, nats: high for a mixture that is sure, whether or not it is right.
    """
    margins = world.differences @ experts.T
    found = responsibilities(margins, log_prior, world.users)[::PAIRS_EACH].argmax(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(experts[:, None], world.truth[None], dim=-1)
    same, swapped = (found == world.groups).float().mean().item(), (found != world.groups).float().mean().item()
    closeness = (cosine.diagonal() if same >= swapped else cosine.flip(0).diagonal()).mean().item()
    q = torch.softmax(log_joint(margins, log_prior), dim=-1)
    entropy = torch.special.entr
    information = entropy(q.mean(dim=0)).sum() - entropy(q).sum(dim=-1).mean()
    return max(same, swapped), closeness, information.item()


def far_apart(start: Start, seed: int) -> tuple[float, float, float]:
    world = make_world(800, cosine=-0.5, norm=3.0, minority=0.5, truth=None, seed=seed)
    fresh = make_world(TEST_USERS, -0.5, 3.0, 0.5, world.truth, seed=seed + 1_000)
    return judge(fresh, *fit(world, start, by_user=False, learn_prior=False, steps=1_500, seed=seed))


def close_together(start: Start, users: int, by_user: bool, seed: int) -> tuple[float, float, float]:
    world = make_world(users, cosine=0.5, norm=1.5, minority=0.3, truth=None, seed=seed)
    fresh = make_world(TEST_USERS, 0.5, 1.5, 0.3, world.truth, seed=seed + 1_000)
    return judge(fresh, *fit(world, start, by_user, learn_prior=True, steps=1_500, seed=seed))


STARTS = {
    "identical experts": Start(),
    "noise 1e-3": Start(noise=1e-3),
    "noise 0.3": Start(noise=0.3),
    "random partition for 50 steps": Start(partition_steps=50),
    "noise 1e-3, temperature 4 to 1": Start(noise=1e-3, temperature=4.0),
    "noise 1e-3, temperature 0.25 to 1 (hard first)": Start(noise=1e-3, temperature=0.25),
}
NOISE = Start(noise=0.3)
CLOSE = {
    "one q a pair": (NOISE, False),
    "one q a user": (NOISE, True),
    "identical experts, one q a user": (Start(), True),
}


def summary(name: str, table: str, results: list[tuple[float, float, float]]) -> dict[str, object]:
    accuracy, cosine, information = zip(*results, strict=True)
    return {
        "benchmark": "recovery",
        "table": table,
        "case": name,
        "seeds": len(results),
        "accuracy_median": statistics.median(accuracy),
        "accuracy_worst": min(accuracy),
        "accuracy_best": max(accuracy),
        "cosine": statistics.median(cosine),
        "mutual_information": statistics.median(information),
    }


@click.command(help=(__doc__ or "").split("\n", maxsplit=1)[0])
@click.option("--seeds", type=click.IntRange(1), help="Of each row; 10 and 5 otherwise.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a row.")
def main(seeds: int | None, as_json: bool) -> None:
    cases = [
        (name, "far apart", [far_apart(start, seed) for seed in range(seeds or 10)]) for name, start in STARTS.items()
    ]
    for users in (400, 1600):
        cases += [
            (name, f"close, {users} users", [close_together(start, users, by_user, s) for s in range(seeds or 5)])
            for name, (start, by_user) in CLOSE.items()
        ]
    for name, table, results in cases:
        row = summary(name, table, results)
        if as_json:
            click.echo(json.dumps(row))
        else:
            click.echo(
                f"{table:<18} {name:<48} {row['accuracy_median']:.2f} [{row['accuracy_worst']:.2f}, "
                f"{row['accuracy_best']:.2f}]  cosine {row['cosine']:.2f}  MI {row['mutual_information']:.3f}"
            )


if __name__ == "__main__":
    main()
