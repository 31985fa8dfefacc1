"""Files that land in a bucket are taken as those in a directory are; the bucket is only read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mixdpo.config import Params, parse_params
from mixdpo.data.arrivals import take
from mixdpo.data.sources import read_reviews
from mixdpo.errors import StorageError
from mixdpo.layout import Layout
from mixdpo.registry.s3_client import connect
from mixdpo.registry.s3_location import S3Location

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"
COLUMNS = {"text": "text", "label": None, "stars": None, "user": None, "metadata": []}


def params(url: str) -> Params:
    part = {"domain": "book", "paths": ["arrivals/*/books/*"], "columns": COLUMNS, "labels": None, "limit": None}
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    values["arrivals"] = {"url": url, "settle_seconds": 0, "bad": "quarantine"}
    return parse_params(values | {"source": {"kind": "files", "sets": [part]}})


def test_what_lands_in_a_bucket_is_taken_once(bucket: S3Location, tmp_path: Path) -> None:
    client, _ = connect(bucket)
    for name, body in (("books/a.jsonl", b'{"text": "One."}'), ("books/b.jsonl", b"{"), ("my notes.txt", b"-")):
        client.put_object(**bucket.object(name), Body=body)
    values, layout = params(f"{bucket}?endpoint={bucket.endpoint}"), Layout(tmp_path)
    first = take(values, layout)
    assert str(first) == "1 new file of 1 row, 0 known, 1 left, 1 bad"
    assert [each.source for each in first.left] == ["books/b.jsonl", "my notes.txt"]
    assert [review["text"] for review in read_reviews(values.source, layout.root / values.inputs)] == ["One."]
    again = take(values, layout)
    assert (again.batch, again.known, again.left) == (None, 1, first.left)
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket.bucket, Prefix=bucket.prefix)["Contents"]]
    assert len(keys) == 3


@pytest.mark.usefixtures("s3_client")
def test_a_bucket_that_is_not_there_is_told(seaweed_endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the bucket nowhere"):
        take(params(f"s3://nowhere?endpoint={seaweed_endpoint}"), Layout(tmp_path))
