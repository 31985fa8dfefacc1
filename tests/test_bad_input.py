"""What users get wrong, through the real command line: thing and remedy are named, what was made before stays."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import PREFERENCES, REVIEWS, scores_schema, split_of, text_id, write_table
from mixdpo.layout import Layout

ROOT = Path(__file__).parents[1]
COLUMNS = {"text": "text", "label": "label", "stars": None, "user": None, "metadata": []}
Values = dict[str, Any]


class Project:
    """A project on files, in which `prepare` has run; `values` is its params.yaml."""

    def __init__(self, root: Path) -> None:
        self.root, self.layout = root, Layout(root)
        self.values: Values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
        files = {"domain": "movie", "paths": ["films.jsonl"], "columns": dict(COLUMNS), "labels": None, "limit": None}
        self.values["source"] = {"kind": "files", "sets": [files]}
        self.values["inputs"] = "inputs"
        self.values["compute"]["device"] = "cpu"
        (root / "inputs").mkdir(parents=True)
        self.films(generate_reviews(60, 10, seed=0))

    def films(self, rows: list[dict[str, Any]]) -> None:
        lines = [json.dumps({"text": row["text"], "label": row["label"]}) for row in rows]
        (self.root / "inputs" / "films.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def run(self, *arguments: str) -> Result:
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.values), encoding="utf-8")
        return CliRunner().invoke(main, ["--root", str(self.root), *arguments])

    def outputs(self) -> dict[str, bytes]:
        """All that stages have made, half-written files too."""
        places = [self.layout.data, self.root / "metrics"]
        files = [path for place in places for path in place.rglob("*") if path.is_file() or path.is_symlink()]
        return {str(path): path.read_bytes() for path in files}

    def is_refused(self, *arguments: str, exit_code: int = 1) -> str:
        """The message with which a command is refused, once it is known that nothing has changed."""
        before = self.outputs()
        result = self.run(*arguments)
        assert result.exit_code == exit_code, result.output
        assert self.outputs() == before
        assert result.stderr.startswith("mixdpo: ")
        assert "Traceback" not in result.output
        return " ".join(result.stderr.split())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    result = made.run("prepare")
    assert result.exit_code == 0, result.output
    return made


def test_a_missing_file(project: Project) -> None:
    project.values["source"]["sets"][0]["paths"] = ["films-2.jsonl"]
    message = project.is_refused("prepare")
    assert f"no file matches films-2.jsonl below {project.root / 'inputs'}, which has films.jsonl" in message
    assert message.endswith("put the file there, or correct `inputs` or the path in params.yaml")


def test_an_unknown_column(project: Project) -> None:
    project.values["source"]["sets"][0]["columns"]["text"] = "review"
    assert project.is_refused("prepare").endswith(
        "films.jsonl has no column review; it has text, label; correct `columns` in params.yaml"
    )


def test_an_empty_data_set(project: Project) -> None:
    project.films([])
    assert project.is_refused("prepare") == (
        "mixdpo: films.jsonl has no rows; name a set with reviews, or remove it from source.sets"
    )


def test_a_label_outside_its_set(project: Project) -> None:
    project.films(
        [*generate_reviews(5, 5, seed=0), {"text": "A film that was rated by a generous critic.", "label": 7}]
    )
    assert project.is_refused("prepare") == (
        "mixdpo: row 6 of films.jsonl: column label holds the label 7, expected one of 0, 1; "
        "correct the row, or translate the value under `labels` in params.yaml"
    )


def test_a_stage_whose_input_is_not_there(project: Project) -> None:
    message = project.is_refused("validate", "scores")
    assert message == (
        f"mixdpo: {project.layout.annotated_scores} does not exist; run the stage that writes it first "
        "(`dvc repro` runs all)"
    )


def scores(number: int, value: Callable[[int], float]) -> list[dict[str, Any]]:
    """Candidates whose grammar score is `value` of their place."""
    rows = []
    for at in range(number):
        prompt = f"This film number {at // 2}"
        identity = text_id(prompt)
        rows.append(
            {
                **{"candidate_id": f"{at}", "prompt_id": identity, "prompt": prompt, "completion": f" was seen {at}."},
                **{"finished": True, "domain": "movie", "split": split_of(identity, 0.1, 0.2)},
                **{"sentiment": at / number, "grammar": value(at), "informativeness": at / number},
            }
        )
    return rows


def test_scores_that_are_no_numbers(project: Project) -> None:
    schema = scores_schema(["sentiment", "grammar", "informativeness"])
    write_table(project.layout.annotated_scores, scores(200, lambda at: at / 200), schema)
    assert project.run("validate", "scores").exit_code == 0
    write_table(project.layout.annotated_scores, scores(200, lambda at: math.nan if at < 50 else at / 200), schema)
    validated = project.layout.validated("scores").read_bytes()
    result = project.run("validate", "scores")
    assert result.exit_code == 3
    assert "grammar_present: " in result.stderr
    assert "(50 rows: row 0 (0), row 1 (1), " in result.stderr
    assert project.layout.validated("scores").read_bytes() == validated  # the quarantine and the page tell the new ones


def test_annotators_with_one_comparison(project: Project) -> None:
    def pairs(annotator: Callable[[int], str]) -> list[dict[str, Any]]:
        rows = []
        for at in range(120):
            prompt = f"This film number {at}"
            identity = text_id(prompt)
            rows.append(
                {
                    **{
                        "pair_id": f"{at}",
                        "prompt_id": identity,
                        "prompt": prompt,
                        "chosen": " is good.",
                        "style": None,
                    },
                    **{"rejected": " is bad.", "chosen_finished": True, "rejected_finished": True, "metadata": "{}"},
                    **{"annotator": annotator(at), "domain": "movie", "split": split_of(identity, 0.1, 0.2)},
                }
            )
        return rows

    write_table(project.layout.labelled_preferences, pairs(lambda at: f"user-{at % 6}"), PREFERENCES)
    assert project.run("validate", "preferences").exit_code == 0
    write_table(project.layout.labelled_preferences, pairs(lambda at: f"user-{at}"), PREFERENCES)
    validated = project.layout.validated("preferences").read_bytes()
    result = project.run("validate", "preferences")
    assert result.exit_code == 3
    assert "annotator_has_pairs: the annotator has fewer than 2 good pairs (120 rows: row 0 (0), " in result.stderr
    assert "min_pairs_per_annotator" in result.stderr
    assert project.layout.validated("preferences").read_bytes() == validated


@pytest.fixture
def validated(project: Project) -> Project:
    """Ready for the stages that load models."""
    rows = [
        {
            **{"review_id": text_id(row["text"]), "text": row["text"], "domain": "movie", "stars": None},
            **{"label": row["label"], "user_id": None, "metadata": "{}"},
            "split": split_of(text_id(row["text"]), 0.1, 0.2),
        }
        for row in generate_reviews(60, 10, seed=0)
    ]
    write_table(project.layout.validated("reviews"), rows, REVIEWS)
    project.layout.sft.mkdir(parents=True)
    (project.layout.sft / "config.json").write_text("earlier")
    return project


def test_a_model_directory_that_does_not_fit(validated: Project, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1}')
    validated.values["sft"]["base"] = {"kind": "pretrained", "model": str(directory), "revision": None}
    message = validated.is_refused("sft")
    assert message.startswith(
        f"mixdpo: causal language model '{directory}' (revision None): the directory is not a causal language model ("
    )
    assert message.endswith("expected a directory with config.json, model.safetensors and a tokenizer, or a Hub id")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return


OUT_OF_REACH = "is no directory here, and the Hub did not answer ("
REMEDY = "connect to the network and run again, or give a local directory of the same layout"


@pytest.mark.usefixtures("offline")
def test_a_hub_that_does_not_answer_for_a_data_set(project: Project) -> None:
    part = {"domain": "movie", "dataset": "someone/films", "config": None, "split": "train", "revision": "abc"}
    project.values["source"] = {"kind": "hub", "sets": [part | {"columns": COLUMNS, "labels": None, "limit": None}]}
    message = project.is_refused("prepare", exit_code=75)
    assert message.startswith(f"mixdpo: data set someone/films at revision abc {OUT_OF_REACH}")
    assert message.endswith(REMEDY)


@pytest.mark.usefixtures("offline")
def test_a_hub_that_does_not_answer_for_a_model(validated: Project) -> None:
    validated.values["sft"]["base"] = {"kind": "pretrained", "model": "someone/gpt", "revision": "abc"}
    message = validated.is_refused("sft", exit_code=75)
    assert message.startswith(f"mixdpo: causal language model 'someone/gpt' (revision abc) {OUT_OF_REACH}")
    assert message.endswith(REMEDY)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_in_the_middle_of_a_stage(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the stage writes first leads to a device whose every write fails with ENOSPC."""
    target = project.layout.prepared_reviews
    project.films(generate_reviews(80, 10, seed=1))
    before = project.outputs()

    class Chosen:
        hex = "0" * 32

    monkeypatch.setattr("mixdpo.files.uuid.uuid4", Chosen)
    target.with_name(f".{target.name}.{'0' * 8}.part").symlink_to("/dev/full")
    result = project.run("prepare")
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert message.startswith(f"mixdpo: no space left while writing {target}: its earlier version is untouched; ")
    assert message.endswith("and run the command again")
    assert project.outputs() == before


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_while_a_stage_runs(tmp_path: Path) -> None:
    """A disk of 256 KiB: earlier outputs fit, what a larger source gives does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)), capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        project = Project(tmp_path / "project")
        shutil.copytree(project.root, disk, dirs_exist_ok=True)
        project.root, project.layout = disk, Layout(disk)
        assert project.run("prepare").exit_code == 0
        project.values["source"] = {"kind": "embedded", "reviews": 3000, "users": 50, "seed": 0}
        message = project.is_refused("prepare")
        assert f"no space left while writing {project.layout.prepared_reviews}" in message
    finally:
        subprocess.run(("umount", str(disk)), check=True)


def test_an_unknown_key_in_the_parameters(project: Project) -> None:
    project.values["cleaning"]["min_word"] = 3
    message = project.is_refused("prepare", exit_code=2)
    assert "cleaning.min_word: unknown key; remove it or correct its spelling" in message


def test_an_unknown_profile(project: Project) -> None:
    shutil.copytree(ROOT / "profiles", project.root / "profiles")
    (project.root / "params.yaml").unlink()
    result = CliRunner().invoke(main, ["--root", str(project.root), "profile", "use", "demos"])
    assert result.exit_code == 2
    assert "there is no profile 'demos' in" in result.stderr
    assert "choose one of arguments, demo, imdb" in result.stderr
    assert not (project.root / "params.yaml").exists()
