"""`mixdpo train NAME`: one policy of params.yaml, from the SFT model to a mixture directory."""

from __future__ import annotations

import csv
import io
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mixdpo.compute import Compute, prepare_compute
from mixdpo.config import Params, parse_params
from mixdpo.config.policy import Policy
from mixdpo.errors import ConfigError
from mixdpo.files import code_digests, digest, write_json, write_text
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.stages.new_mixture import new_mixture
from mixdpo.stages.start import start_digests
from mixdpo.stages.training_pairs import TrainingPairs
from mixdpo.training import PreferencePairs, Setup, TrainingResult, train_mixture
from mixdpo.training.growth import grow_mixture
from mixdpo.training.parallel import Ranks, joined, started
from mixdpo.training.parallel.launch import launch

# rows of the curve that the summary averages over
LAST_ROWS = 20


def run(params: Params, layout: Layout, name: str) -> list[Path]:
    """Train policies.NAME; a killed run resumes from its last checkpoint.

    Where training.parallel asks for several processes and no launcher has started them, they are started here.
    """
    if name not in params.policies:
        raise ConfigError(f"params.yaml has no policy {name!r}; it has {', '.join(params.policies)}")
    policy, parallel = params.policies[name], params.training.parallel
    if parallel is not None and parallel.data * parallel.experts > 1 and started() == 1:
        values = params.model_dump_json(by_alias=True)
        written = launch(
            run_rank, (values, str(layout.root), name), parallel.data * parallel.experts, parallel.restarts
        )
        return [Path(path) for path in written[0]]
    compute = prepare_compute(params.compute)
    with joined(parallel, policy.experts, compute.device) as ranks:
        return _train(params, layout, name, compute, ranks)


def run_rank(values: str, root: str, name: str) -> list[str]:
    """What `launch` starts: one rank of `run`. Other processes take texts alone."""
    return [str(path) for path in run(parse_params(json.loads(values)), Layout(Path(root)), name)]


def _train(params: Params, layout: Layout, name: str, compute: Compute, ranks: Ranks) -> list[Path]:
    """Train on this rank; the first one writes."""
    policy = params.policies[name]
    # what references score and versions bring is kept on the disk
    with ranks.first_alone() if policy.references or policy.start else nullcontext():
        pairs = TrainingPairs(params, layout)
        mixture, reference, tokenizer, own, trained_before = new_mixture(params, layout, policy, compute, pairs)
        train = pairs.pairs(tokenizer, "train", mixture.weighting, _strangers(policy), own)
        validation = pairs.pairs(tokenizer, "validation", mixture.weighting, references=own)
        if own is not None:
            own.tidy()
        data = [pairs.digests, own.digests if own is not None else []]
        work = layout.work(f"train-{name}", _key(params, layout, policy, data))
    device = compute.device if ranks.alone else ranks.device
    setup = Setup(params.training, policy, params.seed, device, compute.precision, started=trained_before, ranks=ranks)
    fit = grow_mixture if policy.growth else train_mixture
    result = fit(mixture, train, validation, setup, checkpoint=work)
    if not ranks.first:
        return []
    experts = mixture.experts.experts
    trained = MixturePolicy(
        mixture.experts,
        mixture.weighting,
        reference,
        tokenizer,
        mixture.likelihood,
        policy.latent,
        policy.model_dump(mode="json") | {"experts": experts},
    )
    trained.cpu().save_pretrained(layout.policy(name))
    write_text(layout.training_curve(name), _curve(result))
    write_json(layout.metrics(f"train-{name}"), _summary(name, policy, experts, result, train))
    shutil.rmtree(work, ignore_errors=True)
    return [layout.policy(name), layout.training_curve(name), layout.metrics(f"train-{name}")]


def _strangers(policy: Policy) -> float:
    """Share of training pairs that a gate on annotators sees as from someone it does not know."""
    weights = policy.weights
    return weights.annotators.unknown if weights.kind == "gate" and weights.annotators else 0.0


def _key(params: Params, layout: Layout, policy: Policy, data: list[Any]) -> str:
    """Digest of everything that the trained weights depend on: values, data, and the code that trains."""
    code = code_digests("objective", "policy", "training")
    return digest(
        [
            policy.model_dump(mode="json"),
            params.training.model_dump(exclude={"parallel"}),  # any number of ranks goes on from a checkpoint
            params.seed,
            params.compute.model_dump(),
            data,
            start_digests(policy, params, layout),
            code,
        ]
    )


def _curve(result: TrainingResult) -> str:
    # in an order that does not depend on where the rows come from: those of a resumed run were read from JSON
    columns = ["step", *sorted({name for row in result.history for name in row} - {"step"})]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.history)
    return buffer.getvalue()


def _summary(name: str, policy: Policy, experts: int, result: TrainingResult, train: PreferencePairs) -> dict[str, Any]:
    """Means over the last steps, and what the health check found."""
    last = result.history[-LAST_ROWS:]
    rows = {column: [row[column] for row in last if column in row] for column in last[-1]}
    figures = {
        column: sum(values) / len(values)
        for column, values in rows.items()
        if column not in ("step", "learning_rate", "validation_marginal")
    }
    return {
        "schema": 1,
        "policy": name,
        "experts": experts,
        "weights": policy.weights.kind,
        "latent": policy.latent,
        "steps": len(result.history),
        "pairs": len(train),
        "annotators": len(train.annotators.unique()),
        "validation_marginal": last[-1]["validation_marginal"],
        "last_steps": figures,
        "growth": result.growth,
        "findings": [finding._asdict() for finding in result.findings],
        "seen": result.seen,
    }
