from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mixdpo.config import load_params, parse_params
from mixdpo.data.schema import REVIEWS, read_table, split_of, text_id
from mixdpo.errors import DataError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.stages.prepare import run

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def params(**changes):
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text())
    values["source"]["reviews"] = 300
    return parse_params(values | changes)


def test_writes_reviews_and_counts(tmp_path):
    layout = Layout(tmp_path)
    assert run(params(), layout) == [layout.prepared_reviews, layout.metrics("prepare")]
    table = read_table(layout.prepared_reviews, REVIEWS)
    metrics = read_json(layout.metrics("prepare"))
    assert metrics["rows_in"] == 300 == metrics["rows_kept"] + sum(metrics["dropped"].values())
    assert table.num_rows == metrics["rows_kept"]
    for part in ("domains", "splits", "labels"):
        assert sum(metrics[part].values()) == metrics["rows_kept"]
    for row in table.to_pylist():
        assert row["review_id"] == text_id(row["text"])
        assert row["split"] == split_of(row["review_id"], 0.1, 0.2)


def test_two_runs_are_identical(tmp_path):
    first, second = Layout(tmp_path / "a"), Layout(tmp_path / "b")
    for one, other in zip(run(params(), first), run(params(), second), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_failing_run_leaves_earlier_outputs(tmp_path):
    layout = Layout(tmp_path)
    written = run(params(), layout)
    before = [path.read_bytes() for path in written]
    with pytest.raises(DataError) as error:
        run(params(cleaning={"min_words": 500, "max_words": 600, "near_duplicate": None}), layout)
    assert str(error.value) == "cleaning left none of 300 reviews (300 short); loosen `cleaning` in params.yaml"
    assert [path.read_bytes() for path in written] == before


MEASURED = """
import sys
from pathlib import Path
from mixdpo.config import load_params
from mixdpo.data import schema, spill
from mixdpo.layout import Layout
from mixdpo.stages import prepare
schema.ROW_GROUP = spill.RUN = 256  # else what is worked on at once is more than all there is here
schema.AT_ONCE = 64
root = Path(sys.argv[1])
prepare.run(load_params(root / "params.yaml"), Layout(root))
# not ru_maxrss, which starts with what the parent had
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mib(root, rows, words=400):
    """Of a process that prepares so many reviews of so many words, a tenth of them near-duplicates."""
    columns = {"text": "text", "label": None, "stars": None, "user": None, "metadata": []}
    part = {"domain": "book", "paths": ["raw.jsonl"], "columns": columns, "labels": None, "limit": None}
    cleaning = {"min_words": 1, "max_words": 1000, "near_duplicate": 0.8}
    values = params(source={"kind": "files", "sets": [part]}, inputs=".", cleaning=cleaning).model_dump(by_alias=True)
    root.mkdir()
    (root / "params.yaml").write_text(json.dumps(values))
    rng = random.Random(0)
    known = [f"word{number}" for number in range(3000)]
    texts = [" ".join(rng.choices(known, k=words)) for _ in range(rows)]
    texts[1::10] = [f"all but a copy of this: {text}" for text in texts[::10]]
    (root / "raw.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = subprocess.run([sys.executable, "-c", MEASURED, str(root)], capture_output=True, text=True, check=True)
    metrics = read_json(Layout(root).metrics("prepare"))
    assert metrics["rows_in"] == rows
    assert metrics["dropped"]["near_duplicate"] > rows / 20
    return float(done.stdout)


def test_memory_is_flat_in_rows(tmp_path):
    few, many = peak_mib(tmp_path / "few", 600), peak_mib(tmp_path / "many", 2400)
    # the texts alone are 5 MiB more, and took 37 when all rows were in memory
    assert many - few < 10


@pytest.mark.skipif(not SHARED.is_dir(), reason="the review files of profile `reviews` are not on this machine")
def test_profile_reviews_on_real_files(tmp_path):
    values = load_params(ROOT / "profiles" / "reviews.yaml").model_dump(by_alias=True)
    values["inputs"] = str(SHARED)
    for part in values["source"]["sets"]:
        part["limit"] = 400
    run(parse_params(values), Layout(tmp_path))
    metrics = read_json(Layout(tmp_path).metrics("prepare"))
    assert metrics["rows_in"] == 800
    assert metrics["rows_kept"] > 700
    assert set(metrics["domains"]) == {"movie", "book"}
    assert metrics["labels"]["negative"] > 100


@pytest.mark.parametrize("rows", [1, 5])
def test_how_many_rows_are_worked_on_at_once_shows_in_no_byte(tmp_path, monkeypatch, rows):
    whole = [path.read_bytes() for path in run(params(), Layout(tmp_path / "a"))]
    monkeypatch.setattr("mixdpo.data.spill.BLOCK", rows)
    monkeypatch.setattr("mixdpo.data.spill.RUN", 7 * rows)
    monkeypatch.setattr("mixdpo.data.near_duplicates.AT_ONCE", rows)
    monkeypatch.setattr("mixdpo.data.schema.AT_ONCE", 2 * rows)
    layout = Layout(tmp_path / "b")
    assert [path.read_bytes() for path in run(params(), layout)] == whole
    assert not layout.work("prepare", "spilled").exists()
