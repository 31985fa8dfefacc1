"""Stage `evaluate`: held-out preferences, judged samples and specialisation of every policy, in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixdpo.config import Params
from mixdpo.config.data import AnnotatedPairs, EmbeddedSource
from mixdpo.config.policy import Policy
from mixdpo.config.weights import GateWeights
from mixdpo.data.schema import AT_ONCE, CANDIDATES, PREFERENCES, open_table
from mixdpo.engine import Engine, open_engine, resumable, worker_device
from mixdpo.evaluation.heldout import HeldOut, heldout_prompts
from mixdpo.evaluation.judged import ROLES, Role, keep_scores, texts_of
from mixdpo.evaluation.measure import SFT, Opinion, evaluation_figures
from mixdpo.evaluation.preference import History, Judgement
from mixdpo.evaluation.samples import Prompts, Samples, sampling_seed
from mixdpo.evaluation.standing import Standing, Terms, scale_of
from mixdpo.evaluation.statistics import Bootstrap
from mixdpo.evaluation.tables import pairs_table, responsibilities_table, samples_table
from mixdpo.evaluation.tasks import Draw, Judge, Source, judgement_of, samples_of, scores_of
from mixdpo.files import code_digests, digest, directory_digest, replacing, write_json
from mixdpo.layout import Layout
from mixdpo.rewards.annotation import Annotation


def run(params: Params, layout: Layout) -> list[Path]:
    """Evaluate sft and every policy of params.policies.

    Returns:
        data/evaluation (samples, responsibilities and pairs as Parquet, and the standing of each policy) and
        metrics/evaluation.json.

    Raises:
        DataError: there are no held-out pairs or prompts. ModelError: a policy or reward model does not fit.
    """
    held = Held.of(params, layout)
    prompts, pairs, _ = held
    with resumable(_work("evaluate", params, layout)) as work:
        with open_engine(params, layout) as engine:
            samples, opinions = _ask(params, layout, held, engine, work)
        terms, scale = held.terms(params, layout), scale_of(samples[SFT])
        bootstrap = Bootstrap(params.evaluation.bootstrap, params.seed)
        annotated = isinstance(params.preferences.source, AnnotatedPairs)
        styles = params.preferences.styles if annotated else None
        figures = evaluation_figures(samples, opinions, pairs, prompts, styles, bootstrap)
        if annotated and isinstance(params.source, EmbeddedSource):
            figures["truth"] = _truth(list(samples.values()), prompts, bootstrap)
        with replacing(layout.evaluation) as target:
            target.mkdir(parents=True)
            _write(samples_table(list(samples.values()), prompts), target / "samples.parquet")
            _write(pairs_table(opinions, pairs), target / "pairs.parquet")
            _write(responsibilities_table(opinions, pairs), target / "responsibilities.parquet")
            for name, own in opinions.items():
                standing = Standing.of(terms, scale, samples[name], prompts, own.judgement, pairs)
                standing.write(layout.standings(target) / name)
        metrics = layout.metrics("evaluation")
        write_json(metrics, figures)
    return [layout.evaluation, metrics]


class Held(NamedTuple):
    """What was kept from training, and what its annotators said in training."""

    prompts: Prompts
    pairs: HeldOut
    earlier: HeldOut | None

    @classmethod
    def of(cls, params: Params, layout: Layout) -> Held:
        """Raises DataError where there are no held-out pairs or prompts."""
        preferences = of_heldout_annotators(layout.validated("preferences"))
        pairs = HeldOut.of(preferences)
        with open_table(layout.validated("scores"), CANDIDATES) as file:
            scores = file.read(["prompt_id", "prompt", "domain", "split"])
        found = heldout_prompts(params.preferences, scores, pairs, params.candidates.prompts.test)
        prompts = Prompts.repeated(found, params.evaluation.samples_per_prompt)
        return cls(prompts, pairs, HeldOut.earlier(preferences, pairs))

    def terms(self, params: Params, layout: Layout) -> Terms:
        """On what policies are judged here."""
        judges = {name: layout.reward_model(name, "judge") for name in params.rewards.dimensions}
        return Terms.of(self.prompts, self.pairs, judges, params.candidates, sampling_seed(params.seed))


def of_heldout_annotators(path: Path) -> pa.Table:
    """The preferences of annotators who have some in the test split, whatever the split: no others are in memory."""
    with open_table(path, PREFERENCES) as file:
        everyone = file.read(["annotator", "split"])
        people = pc.unique(everyone.filter(pc.equal(everyone["split"], "test"))["annotator"])
        theirs = (batch.filter(pc.is_in(batch["annotator"], value_set=people)) for batch in file.iter_batches(AT_ONCE))
        return pa.Table.from_batches(theirs, schema=file.schema_arrow)


def standing_of(
    name: str, directory: Path, held: Held, scale: Mapping[str, float], params: Params, layout: Layout
) -> Standing:
    """How a mixture from elsewhere stands on this project's held-out prompts and before its judges.

    A killed one goes on from the shards that were finished.

    Args:
        scale: of the SFT policy with which it is compared.
    """
    with resumable(_work("promote", params, layout)) as work, open_engine(params, layout) as engine:
        source = Source(name, directory.absolute(), directory_digest(directory), True, worker_device(params))
        samples = samples_of(engine, _drawing(source, params), held.prompts, work)
        judgement = judgement_of(engine, Judge(source), held.pairs, work)
        _score([samples], ("judge",), params, layout, held, engine, work)
        return Standing.of(held.terms(params, layout), scale, samples, held.prompts, judgement, held.pairs)


def _work(stage: str, params: Params, layout: Layout) -> Path:
    """Where shards are kept: of all that the answers depend on, but for the models, which are in the shards' names."""
    settings = [worker_device(params), params.candidates]
    values = [*(each.model_dump() for each in settings), params.rewards.batch_tokens, params.seed]
    return layout.work(stage, digest([values, code_digests("evaluation", "policy", "rewards")]))


def _ask(
    params: Params, layout: Layout, held: Held, engine: Engine, work: Path
) -> tuple[dict[str, Samples], dict[str, Opinion]]:
    """What sft and every policy write and, but for sft, think of the pairs; all that was written is scored."""
    samples: dict[str, Samples] = {}
    opinions: dict[str, Opinion] = {}
    compute = worker_device(params)
    for name in (SFT, *params.policies):
        directory = (layout.sft if name == SFT else layout.policy(name)).absolute()
        source = Source(name, directory, directory_digest(directory), name != SFT, compute)
        samples[name] = samples_of(engine, _drawing(source, params), held.prompts, work)
        if name != SFT:
            judgement = judgement_of(engine, Judge(source), held.pairs, work)
            history = _history(params.policies[name], engine, Judge(source), judgement, held, work)
            opinions[name] = Opinion.of(judgement, held.pairs, history)
    _score(list(samples.values()), ROLES, params, layout, held, engine, work)
    return samples, opinions


def _drawing(source: Source, params: Params) -> Draw:
    return Draw(source, params.candidates, sampling_seed(params.seed))


def _score(
    written: list[Samples],
    roles: Sequence[Role],
    params: Params,
    layout: Layout,
    held: Held,
    engine: Engine,
    work: Path,
) -> None:
    """Let the reward models of these roles score all samples, in place."""
    texts = texts_of(written, held.prompts)
    for role in roles:
        models = tuple((name, layout.reward_model(name, role).absolute()) for name in params.rewards.dimensions)
        task = Annotation(models, params.rewards.batch_tokens, worker_device(params))
        scores = scores_of(engine, task, texts, work)
        for dimension in params.rewards.dimensions:
            keep_scores(written, role, dimension, scores[dimension])


def _history(
    policy: Policy, engine: Engine, task: Judge, judgement: Judgement, held: Held, work: Path
) -> History | None:
    """What returning annotators said in training; empty where the weights know them, for they learnt it then."""
    if held.earlier is None:
        return None
    if isinstance(policy.weights, GateWeights) and policy.weights.annotators is not None:
        return History.none(judgement)
    earlier = judgement_of(engine, task, held.earlier, work)
    return History.of(earlier, held.earlier.annotators, held.pairs.annotators)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _truth(samples: list[Samples], prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    from mixdpo.evaluation.truth import measure, truth_table

    return truth_table(samples, measure(samples, prompts), prompts, bootstrap)
