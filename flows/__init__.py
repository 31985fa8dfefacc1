"""Prefect flows: when and where the stages of dvc.yaml run, and what happens to their results.

Importing this package sets quiet defaults for the tools that the flows start. A variable that is already set wins.
"""

from __future__ import annotations

import os

# Before prefect is imported: it reads its settings once.
QUIET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a first start migrates a database: 20 s is too short
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # never pickle
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "false",  # else reading a local file looks up an outside host
}
for name, value in QUIET.items():
    os.environ.setdefault(name, value)
