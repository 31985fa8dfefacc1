from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo.config import Params, parse_params
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.errors import DataError, ModelError
from mixdpo.evaluation import tasks
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.markdown import markdown_table
from mixdpo.evaluation.samples import Samples, draw
from mixdpo.files import directory_digest, file_digest, read_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.rewards.model import RewardModel
from mixdpo.stages.evaluate import of_heldout_annotators, run


@pytest.fixture(scope="module")
def project(toy_params: Params, toy_project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The toy project, evaluated; one of its annotators labelled three training pairs too."""
    layout = Layout(tmp_path_factory.mktemp("evaluated") / "project")
    shutil.copytree(toy_project.root, layout.root)
    pairs = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    before = [{**row, "pair_id": f"before-{row['pair_id']}", "split": "train"} for row in pairs[:3]]
    write_table(layout.validated("preferences"), [*pairs, *before], PREFERENCES)
    assert run(toy_params, layout) == [layout.evaluation, layout.metrics("evaluation")]
    return layout


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def test_figures_are_there_for_everyone_and_finite(project: Layout) -> None:
    metrics = read_json(project.metrics("evaluation"))
    assert metrics["schema"] == 1
    assert (metrics["pairs"], metrics["annotators"], metrics["prompts"]) == (24, 6, 8)
    assert set(metrics["policies"]) == {"sft", "dpo", "mix", "moe"}
    assert all(math.isfinite(number) for number in numbers(metrics))
    assert set(metrics["styles"]) == {"sentiment", "grammar", "informativeness"}
    assert set(metrics["styles"]["grammar"]["moe"]) == {"prior", "uniform", "few_shot", "oracle"}
    assert set(metrics["truth"]["policies"]) == set(metrics["policies"])
    assert len(markdown_table(metrics).splitlines()) == 6


def test_rows_of_others_than_heldout_annotators_are_not_needed(project: Layout, tmp_path: Path) -> None:
    rows = read_table(project.validated("preferences"), PREFERENCES).to_pylist()
    strangers = [{**row, "annotator": f"x{place}", "split": "train"} for place, row in enumerate(rows)]
    whole = write_and_read(tmp_path / "all.parquet", [*strangers, *rows, *strangers])
    part = of_heldout_annotators(tmp_path / "all.parquet")
    assert part.num_rows == len(rows)
    pairs, expected = HeldOut.of(part), HeldOut.of(whole)
    assert pairs.columns == expected.columns
    assert pairs.returning.tolist() == expected.returning.tolist() != []
    assert HeldOut.earlier(part, pairs).columns == HeldOut.earlier(whole, expected).columns


def write_and_read(path: Path, rows: list[dict[str, Any]]) -> pa.Table:
    write_table(path, rows, PREFERENCES)
    return read_table(path, PREFERENCES)


def test_who_labelled_in_training_is_predicted_with_it(project: Layout) -> None:
    metrics = read_json(project.metrics("evaluation"))
    assert metrics["returning_annotators"] == 1
    mix, dpo = (metrics["policies"][name]["preference"]["returning"] for name in ("mix", "dpo"))
    assert mix["log_likelihood"]["rows"] == 4
    assert mix["log_likelihood"] != mix["stranger"]["log_likelihood"]
    # one expert has nothing to learn from it
    assert dpo["log_likelihood"] == dpo["stranger"]["log_likelihood"]


def test_figures_are_those_of_the_policies_themselves(toy_params: Params, project: Layout) -> None:
    pairs = [row for row in read_table(project.validated("preferences")).to_pylist() if row["split"] == "test"]
    policy = MixturePolicy.from_pretrained(project.policy("dpo"))
    columns = ("prompt", "chosen", "rejected", "chosen_finished", "rejected_finished")
    margins = policy.margins(*([row[name] for row in pairs] for name in columns))[:, 0].double().numpy()
    metrics = read_json(project.metrics("evaluation"))
    expected = -np.logaddexp(0, -margins).mean()
    assert metrics["policies"]["dpo"]["preference"]["log_likelihood"]["mean"] == pytest.approx(expected, abs=1e-6)
    samples = pq.read_table(project.evaluation / "samples.parquet").to_pylist()
    mine = [row for row in samples if (row["policy"], row["expert"]) == ("moe", 2)]
    assert len(mine) == 8 * 2
    judge = RewardModel.load(project.reward_model("grammar", "judge"))
    scores = judge.score([row["prompt"] + row["completion"] for row in mine], toy_params.rewards.batch_tokens)
    np.testing.assert_allclose([row["judge_grammar"] for row in mine], scores, atol=1e-6)
    got = metrics["policies"]["moe"]["by_expert"][2]["rewards"]["judge"]["grammar"]["mean"]
    assert got == pytest.approx(scores.mean(), abs=1e-6)
    moe = MixturePolicy.from_pretrained(project.policy("moe"))
    ends = [row["finished"] for row in mine]
    own = moe.logps([row["prompt"] for row in mine], [row["completion"] for row in mine], ends)[:, 2]
    np.testing.assert_allclose([row["logp"] for row in mine], own, atol=1e-4)


def test_sft_is_its_own_reference(project: Layout) -> None:
    metrics = read_json(project.metrics("evaluation"))
    kl = metrics["policies"]["sft"]["cost"]["kl"]
    assert (kl["low"], kl["high"]) == pytest.approx((0.0, 0.0), abs=1e-5)


def test_the_same_again_is_the_same_bytes(toy_params: Params, project: Layout) -> None:
    before = directory_digest(project.evaluation), file_digest(project.metrics("evaluation"))
    run(toy_params, project)
    assert (directory_digest(project.evaluation), file_digest(project.metrics("evaluation"))) == before


def test_a_killed_run_goes_on_and_shards_change_nothing(
    toy_params: Params, project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "project")
    shutil.copytree(project.root, layout.root)
    before = pq.read_table(layout.evaluation / "samples.parquet").to_pydict()
    monkeypatch.setattr(tasks, "PROMPTS", 5)
    monkeypatch.setattr(tasks, "PAIRS", 7)
    drawn: list[str] = []

    def switched_off(name: str, *rest: Any, first: int) -> Samples:
        if len(drawn) == 6:
            raise KeyboardInterrupt
        drawn.append(f"{name} {first}")
        return draw(name, *rest, first=first)

    monkeypatch.setattr(tasks, "draw", switched_off)
    with pytest.raises(KeyboardInterrupt):
        run(toy_params, layout)
    drawn.append("on again")
    run(toy_params, layout)
    # 16 rows a policy
    assert drawn[:8] == ["sft 0", "sft 5", "sft 10", "sft 15", "dpo 0", "dpo 5", "on again", "dpo 10"]
    assert len(drawn) == 4 * 4 + 1
    after = pq.read_table(layout.evaluation / "samples.parquet").to_pydict()
    assert after["completion"] == before["completion"]
    for column in ("logp", "weight", "judge_grammar"):
        np.testing.assert_allclose(after[column], before[column], atol=1e-5)
    assert numbers(read_json(layout.metrics("evaluation"))) == pytest.approx(
        numbers(read_json(project.metrics("evaluation"))), abs=1e-4
    )


def ready(params: Params) -> Params:
    """The same run, had its preferences come ready-made."""
    values = params.model_dump(mode="json", by_alias=True)
    names = {name: name for name in ("prompt", "chosen", "rejected", "annotator")}
    columns = {**names, "style": None, "domain": None, "split": None, "metadata": []}
    values["preferences"]["source"] = {"kind": "files", "paths": ["p.csv"], "columns": columns, "limit": None}
    return parse_params(values)


def test_ready_preferences_without_styles_leave_those_parts_null(
    toy_params: Params, toy_project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "project")
    shutil.copytree(toy_project.root, layout.root)
    rows = read_table(layout.validated("preferences")).to_pylist()
    unstyled = [{**row, "style": None, "domain": None} for row in rows]
    write_table(layout.validated("preferences"), unstyled, PREFERENCES)
    scores = read_table(layout.validated("scores"))
    write_table(layout.validated("scores"), scores.slice(0, 0), scores.schema)
    run(ready(toy_params), layout)
    metrics = read_json(layout.metrics("evaluation"))
    assert metrics["styles"] is None
    assert metrics["truth"] is None
    assert metrics["prompts"] == 8
    assert metrics["policies"]["mix"]["specialisation"]["annotators"] is None


def test_a_missing_policy_leaves_the_last_evaluation_intact(
    toy_params: Params, project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "project")
    shutil.copytree(project.root, layout.root)
    before = directory_digest(layout.evaluation), file_digest(layout.metrics("evaluation"))
    (layout.reward_model("grammar", "judge") / "reward.json").unlink()
    with pytest.raises(ModelError, match=r"grammar/judge holds no reward model \(reward.json is missing\)"):
        run(toy_params, layout)
    (layout.policy("mix") / "mixture.json").unlink()
    with pytest.raises(ModelError, match=r"mix is not a mixture: it has no mixture.json"):
        run(toy_params, layout)
    shutil.rmtree(layout.validated("preferences").parent)
    with pytest.raises(DataError, match=r"preferences.parquet does not exist; run the stage that writes it first"):
        run(toy_params, layout)
    assert (directory_digest(layout.evaluation), file_digest(layout.metrics("evaluation"))) == before
    json.loads(layout.metrics("evaluation").read_text(encoding="utf-8"))
