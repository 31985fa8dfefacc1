"""The study of annotators on a made-up project: a few trainings of toy models, then the report."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mixdpo.config import parse_params
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.stages import preferences, reference
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

ROOT = Path(__file__).parents[2]
COLOURS = ("red", "green", "blue")


@pytest.fixture
def benchmark(monkeypatch):
    """A module of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """People who like one colour each, met in training and again in test, as far as the reference cache."""
    layout = Layout(tmp_path_factory.mktemp("project"))
    values = yaml.safe_load((ROOT / "profiles" / "arguments.yaml").read_text(encoding="utf-8"))
    values["inputs"] = "inputs"
    values["sft"]["base"] |= {"vocabulary": 300, "layers": 1, "width": 16, "heads": 2, "context": 64}
    values["training"] |= {"max_tokens": 64, "batch_pairs": 24, "learning_rate": 1e-2}
    values["evaluation"]["bootstrap"] = 100
    values["preferences"]["source"] |= {"paths": ["pairs.jsonl"], "min_pairs": None, "per_annotator": 8}
    values["preferences"]["source"]["columns"] |= {"metadata": ["annotator_stance"]}
    params = parse_params(values)
    layout.root.joinpath("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (layout.root / "inputs").mkdir()
    rows = list(comparisons(random.Random(0)))
    (layout.root / "inputs" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = params.sft.base
    tokenizer = train_bpe([row["text_a"] for row in rows], base.vocabulary, base.context)
    new_causal_lm(base, tokenizer, seed=0).save_pretrained(layout.sft)
    tokenizer.save_pretrained(layout.sft)
    preferences.run(params, layout)
    write_table(layout.validated("preferences"), read_table(layout.labelled_preferences, PREFERENCES), PREFERENCES)
    reference.run(params, layout)
    return layout


def comparisons(rng):
    for person in range(12):
        for split in ("train", "train", "train", "val", "test", "test"):
            for _ in range(2):
                first, second = rng.sample(COLOURS, 2)
                liked = COLOURS[person % 3]
                choice = "a" if liked == first or (liked != second and rng.random() < 0.5) else "b"
                yield {
                    "topic": f"the wall of {split}",
                    "stance": "yes",
                    "text_a": f"it is {first} now",
                    "text_b": f"it is {second} now",
                    "choice": choice,
                    "annotator_id": f"w{person}",
                    "annotator_stance": None,
                    "split": split,
                }


def test_every_run_is_made_once_and_the_report_scores_it(benchmark, project, tmp_path):
    out = tmp_path / "runs"
    where = ["--project", str(project.root), "--out", str(out)]
    asked = [*where, "--seeds", "1", "--experts", "2", "--pairs", "50"]
    run = benchmark("annotators").Run
    assert all(run.named(each.name) == each for each in (run("dpo", 1, 3), run("personal", 2, 0)))
    first = CliRunner().invoke(benchmark("annotators").main, asked, catch_exceptions=False)
    made = [json.loads(line)["run"] for line in first.stdout.splitlines() if line.startswith("{")]
    assert made == ["dpo-seed0", "pair-2-seed0", "annotator-2-seed0", "personal-2-seed0"]
    again = CliRunner().invoke(benchmark("annotators").main, asked, catch_exceptions=False)
    assert "{" not in again.stdout
    other = CliRunner().invoke(benchmark("annotators").main, [*where, "--pairs", "30"])
    assert "holds runs on other pairs" in str(other.exception)

    picture = tmp_path / "picture.png"
    shown = CliRunner().invoke(
        benchmark("annotators_report").main, [*where, "--picture", str(picture)], catch_exceptions=False
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| annotator-2, others |" in shown.stdout
    found = read_json(out / "figures.json")
    counts = {"training": 12 * 6, "trained": 8 * 6, "test": 12 * 4, "annotators": 12, "returning": 12, "met": 8}
    assert {name: found["pairs"][name] for name in counts} == counts
    assert found["pairs"]["having"]["4"] == {"training": 12, "others": 0}
    assert found["pairs"]["having"]["8"]["training"] == 0
    variants = found["variants"]["all"]
    assert found["variants"]["met"]["personal-2"]["stranger"]["log_likelihood"]["clusters"] == 8
    assert set(variants) == {"dpo", "pair-2", "annotator-2", "personal-2", "length-1", "length-2", "length-3"}
    # one expert, or one latent a pair, learns nothing from what else somebody said
    for same in ("dpo", "pair-2"):
        assert variants[same]["all"] == variants[same]["stranger"]
    assert variants["dpo"]["stranger"]["minus"]["dpo"]["mean"] == 0.0
    gain = variants["annotator-2"]["all"]["minus"]["itself"]["mean"]
    told, stranger = (variants["annotator-2"][name]["log_likelihood"]["mean"] for name in ("all", "stranger"))
    assert gain == pytest.approx(told - stranger)
    assert variants["annotator-2"]["all"] != variants["annotator-2"]["stranger"]
    assert variants["annotator-2"]["training 16"] == variants["annotator-2"]["training"]
    assert variants["annotator-2"]["training 0"] == variants["annotator-2"]["stranger"]
    assert variants["length-1"]["all"]["log_likelihood"]["rows"] == 48
