"""DVC's remotes, as `mixdpo remote` sets them up: on a directory and on a real S3 server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.repo import Repo

from mixdpo.cli import main
from mixdpo.registry.s3_client import connect
from mixdpo.registry.s3_location import S3Location

# pygtrie, which DVC uses, warns of its own future
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

Objects = dict[str, bytes]
ROWS = b"text\nOne.\n"


def set_up(root: Path, url: str) -> None:
    done = CliRunner().invoke(main, ["--root", str(root), "remote", url])
    assert done.exit_code == 0, done.output
    assert "what it sends is verified" in done.output


def pushed(root: Path) -> None:
    (root / "rows.csv").write_bytes(ROWS)
    with Repo(str(root)) as repo:
        repo.add(str(root / "rows.csv"))
        assert repo.push() == 1


def pull(root: Path) -> bytes | None:
    """What a machine gets that has nothing yet; None where DVC refuses."""
    (root / "rows.csv").unlink(missing_ok=True)
    shutil.rmtree(root / ".dvc" / "cache", ignore_errors=True)
    shutil.rmtree(root / ".dvc" / "tmp", ignore_errors=True)
    with Repo(str(root)) as repo:
        try:
            repo.pull()
        except Exception:  # noqa: BLE001 (each kind of remote has its own)
            assert not (root / "rows.csv").exists()
            return None
    return (root / "rows.csv").read_bytes()


def test_a_tampered_object_of_a_directory_is_refused(new_repository: Callable[[], Path], tmp_path: Path) -> None:
    root = new_repository()
    set_up(root, str(tmp_path / "shared"))
    pushed(root)
    assert pull(root) == ROWS
    [stored] = (path for path in (tmp_path / "shared").rglob("*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(b"text\nTwo.\n")
    stored.chmod(0o444)  # DVC looks itself at what is not
    assert pull(root) is None
    # which is why each remote is set up so: by itself DVC takes it
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace("verify = True", "verify = False"))
    assert pull(root) == b"text\nTwo.\n"


def test_a_tampered_object_of_a_bucket_is_refused(
    new_repository: Callable[[], Path], bucket: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aws").touch()  # DVC wants a file
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    root = new_repository()
    set_up(root, f"{bucket}?endpoint={bucket.endpoint}")
    pushed(root)
    assert pull(root) == ROWS
    client, _ = connect(bucket)
    [stored] = client.list_objects_v2(Bucket=bucket.bucket, Prefix=bucket.prefix)["Contents"]
    client.put_object(Bucket=bucket.bucket, Key=stored["Key"], Body=b"text\nTwo.\n")
    assert pull(root) is None


def test_a_place_that_cannot_be_a_remote_is_refused(tmp_path: Path) -> None:
    def told(url: str) -> str:
        done = CliRunner().invoke(main, ["--root", str(tmp_path), "remote", url])
        assert done.exit_code != 0
        return done.output

    assert "holds credentials" in told("s3://key:secret@bucket/dvc")
    assert "is no project of DVC" in told("shared")
