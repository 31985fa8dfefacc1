from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mixdpo.config import Params, parse_params
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.errors import ConfigError, DataError, TrainingError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.stages import reference, train

SPLITS = {"test-0": "train", "test-1": "train", "test-2": "train", "test-3": "train", "test-4": "validation"}


@pytest.fixture
def params(toy_params: Params) -> Params:
    values = toy_params.model_dump(mode="json", by_alias=True)
    values["training"] |= {"batch_pairs": 4, "epochs": 3, "evaluate_every": 4, "checkpoint_every": 2}
    return parse_params(values)


@pytest.fixture(scope="module")
def cached(with_reference: Callable[..., Layout], tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The toy project with training and validation pairs, as far as `reference`."""
    return with_reference(tmp_path_factory.mktemp("cached"), lambda name: SPLITS.get(name, "test"))


@pytest.fixture
def layout(cached: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(cached.root, tmp_path / "project")
    return Layout(tmp_path / "project")


@pytest.mark.parametrize("name", ["dpo", "mix", "moe"])
def test_a_policy_of_the_parameters_is_trained_and_measured(name: str, params: Params, layout: Layout) -> None:
    written = train.run(params, layout, name)
    assert written == [layout.policy(name), layout.training_curve(name), layout.metrics(f"train-{name}")]
    policy = MixturePolicy.from_pretrained(layout.policy(name))
    wanted = params.policies[name]
    assert policy.experts == wanted.experts
    assert policy.likelihood.describe() == {
        "beta": [pytest.approx(params.training.beta)],
        "per_token": False,
        "epsilon": 0.0,
    }
    assert policy.latent == wanted.latent
    assert policy.description == wanted.model_dump(mode="json")

    with layout.training_curve(name).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if row["validation_marginal"]] == ["4", "8", "12"]
    metrics = read_json(layout.metrics(f"train-{name}"))
    assert (metrics["pairs"], metrics["annotators"], metrics["steps"]) == (16, 4, 12)
    assert metrics["validation_marginal"] == float(rows[-1]["validation_marginal"])
    assert metrics["last_steps"]["elbo"] == pytest.approx(sum(float(row["elbo"]) for row in rows) / 12)
    assert not list((layout.root / ".mixdpo").rglob("*.safetensors"))


def test_a_gate_meets_the_annotators_and_domains_of_training(params: Params, layout: Layout) -> None:
    values = params.model_dump(mode="json", by_alias=True)
    values["policies"]["moe"]["weights"] |= {
        "annotators": {"width": 2, "unknown": 0.25},
        "metadata": ["domain"],
        "rest_steps": 0,
    }
    train.run(parse_params(values), layout, "moe")
    policy = MixturePolicy.from_pretrained(layout.policy("moe"))
    assert sorted(policy.weighting.annotators or ()) == ["test-0", "test-1", "test-2", "test-3"]
    found = policy.weights(["This film"] * 3, ["test-0", "test-4", None], {"domain": ["movie", "movie", "book"]})
    assert not torch.equal(found[0], found[1])  # test-4 only validates
    assert not torch.equal(found[1], found[2])


def test_the_saved_policy_is_the_trained_one(params: Params, layout: Layout) -> None:
    """Its margins on the validation pairs give the likelihood that training reported."""
    train.run(params, layout, "dpo")
    policy = MixturePolicy.from_pretrained(layout.policy("dpo"))
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    rows = [row for row in rows if row["split"] == "validation"]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in PREFERENCES.names}
    margins = policy.margins(
        columns["prompt"],
        columns["chosen"],
        columns["rejected"],
        columns["chosen_finished"],
        columns["rejected_finished"],
    )
    likelihood = torch.nn.functional.logsigmoid(margins).mean().item()
    assert read_json(layout.metrics("train-dpo"))["validation_marginal"] == pytest.approx(likelihood, abs=1e-5)


def test_two_runs_write_the_same_bytes(params: Params, layout: Layout) -> None:
    train.run(params, layout, "moe")
    first = {path.name: path.read_bytes() for path in layout.policy("moe").glob("*.safetensors")}
    curve = layout.training_curve("moe").read_bytes()
    train.run(params, layout, "moe")
    assert {path.name: path.read_bytes() for path in layout.policy("moe").glob("*.safetensors")} == first
    assert layout.training_curve("moe").read_bytes() == curve


def test_a_policy_that_grows_tells_how(params: Params, layout: Layout) -> None:
    values = params.model_dump(mode="json", by_alias=True)
    values["policies"]["mix"] |= {"experts": 1, "growth": {"most": 2, "steps": 2, "gain": 0.0, "prune": 0.0}}
    train.run(parse_params(values), layout, "mix")
    metrics = read_json(layout.metrics("train-mix"))
    policy = MixturePolicy.from_pretrained(layout.policy("mix"))
    assert metrics["experts"] == policy.experts == policy.description["experts"]
    tried = [row["experts"] for row in metrics["growth"]]
    assert tried[0] == 1
    assert 2 in tried
    kept = [row for row in metrics["growth"] if row["kept"]]
    assert metrics["validation_marginal"] == pytest.approx(kept[-1]["validation_marginal"])


def test_experts_start_from_and_are_measured_against_references_of_their_own(params: Params, layout: Layout) -> None:
    inputs = layout.root / params.inputs
    for place in range(3):
        shutil.copytree(layout.sft, inputs / f"reference-{place}")
        weights = load_file(layout.sft / "model.safetensors")
        shifted = {name: tensor + 0.02 * place for name, tensor in weights.items()}
        save_file(shifted, inputs / f"reference-{place}" / "model.safetensors", metadata={"format": "pt"})
    values = params.model_dump(mode="json", by_alias=True)
    values["training"]["learning_rate"] = 1e-30
    values["policies"]["moe"] |= {
        "architecture": {"kind": "independent"},
        "references": [f"reference-{place}" for place in range(3)],
        "symmetry": {"kind": "none"},
    }
    changed = parse_params(values)
    train.run(changed, layout, "moe")
    policy = MixturePolicy.from_pretrained(layout.policy("moe"))
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    prompts, completions = [row["prompt"] for row in rows], [row["chosen"] for row in rows]
    logps = policy.logps(prompts, completions)
    assert (logps[:, 0] - logps[:, 2]).abs().min() > 1e-3
    # untrained experts are their references, so no pair is preferred
    torch.testing.assert_close(policy.reference_logps(prompts, completions), logps)
    assert read_json(layout.metrics("train-moe"))["validation_marginal"] == pytest.approx(-0.6931, abs=1e-4)
    # the gate learned on the features that serving gives it
    mine = policy.prompt_features([row["prompt"] for row in rows if row["split"] == "train"])
    torch.testing.assert_close(policy.weighting.mean, mine.mean(dim=0), atol=1e-5, rtol=1e-4)
    # another reference is another run
    before = checkpoint_of(changed, layout)
    assert checkpoint_of(changed, layout) == before
    save_file(weights, inputs / "reference-2" / "model.safetensors", metadata={"format": "pt"})
    assert checkpoint_of(changed, layout) != before


def checkpoint_of(params: Params, layout: Layout) -> Path:
    """Where a training of `moe` looks for its checkpoint."""
    asked: list[Path] = []

    def interrupted(*_: Any, checkpoint: Path) -> None:
        asked.append(checkpoint)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_mixture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(params, layout, "moe")
    return asked[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from mixdpo.config import load_params
from mixdpo.layout import Layout
from mixdpo.stages import train
from mixdpo.training.run import Run

root = Path(sys.argv[1])
step = Run.step

def dying(run, number):
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(run, number)

Run.step = dying
train.run(load_params(root / "params.yaml"), Layout(root), "mix")
"""


def test_a_stage_that_was_killed_outright_goes_on_to_the_same_bytes(
    params: Params, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    values = params.model_dump(mode="json", by_alias=True)
    (layout.root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-c", KILLED, str(layout.root)]
    killed = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not layout.policy("mix").exists()
    train.run(params, layout, "mix")
    assert "resuming after step 6 of 12" in caplog.text
    resumed = {path.name: path.read_bytes() for path in layout.policy("mix").glob("*.safetensors")}
    curve = layout.training_curve("mix").read_text()
    caplog.clear()
    train.run(params, layout, "mix")
    assert "resuming" not in caplog.text
    assert {path.name: path.read_bytes() for path in layout.policy("mix").glob("*.safetensors")} == resumed
    assert layout.training_curve("mix").read_text() == curve


def refusal(params: Params, layout: Layout) -> str:
    with pytest.raises(TrainingError) as error:
        train.run(params, layout, "dpo")
    assert not layout.policy("dpo").exists()
    return str(error.value)


def test_a_stale_reference_is_refused_with_what_differs(params: Params, layout: Layout) -> None:
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    write_table(layout.validated("preferences"), [row | {"chosen": " is new"} for row in rows], PREFERENCES)
    message = refusal(params, layout)
    assert message.startswith(f"{layout.reference} was computed from other preferences: it lacks ")
    assert message.endswith("completions; run `mixdpo reference` (or `dvc repro`) before training")
    weights = load_file(layout.sft / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, layout.sft / "model.safetensors", metadata={"format": "pt"})
    assert refusal(params, layout) == (
        f"the reference log-probs in {layout.reference} were computed from other sft; run `mixdpo reference` "
        f"(or `dvc repro`) before training"
    )
    compute = params.compute.model_copy(update={"dtype": "bfloat16"})
    assert "other dtype, sft;" in refusal(params.model_copy(update={"compute": compute}), layout)
    reference.run(params, layout)
    train.run(params, layout, "dpo")


def test_what_cannot_be_trained_is_said(params: Params, layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml has no policy 'best'; it has dpo, mix, moe"):
        train.run(params, layout, "best")
    training = params.training.model_copy(update={"max_tokens": 5})
    with pytest.raises(DataError, match=r"more than max_tokens 5; raise training.max_tokens or shorten the text"):
        train.run(params.model_copy(update={"training": training}), layout, "dpo")
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    write_table(layout.validated("preferences"), [row for row in rows if row["split"] != "validation"], PREFERENCES)
    reference.run(params, layout)
    assert refusal(params, layout).startswith("16 training and 0 validation pairs; both splits need some: raise")
    shutil.rmtree(layout.reference)
    with pytest.raises(DataError, match=r"key.json does not exist; run the stage that writes it first"):
        train.run(params, layout, "dpo")
