from __future__ import annotations

import os
import socket
import subprocess
import sys

JOIN = """
from mixdpo.config.engine import RayEngine
from mixdpo.engine.cluster import connected, prepare_ray
settings = RayEngine(kind="ray", cpus=1)
prepare_ray(settings)
with connected(settings):
    pass
"""


def test_a_cluster_that_does_not_answer_is_told_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"RAY_ADDRESS": address}
    done = subprocess.run(
        (sys.executable, "-c", JOIN), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr.splitlines()[-1].startswith(
        f"mixdpo.errors.TransientError: no Ray cluster answers at {address} ([Errno 111] Connection refused); start it"
    )
