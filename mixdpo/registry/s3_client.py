"""A client of S3 for one location: credentials and settings from the standard chain, retries of what may pass."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from botocore.loaders import create_loader
from botocore.session import get_session

from mixdpo import __version__
from mixdpo.registry.s3_errors import s3_errors
from mixdpo.registry.s3_location import S3Location

ATTEMPTS = 6  # of each request, with exponential backoff and jitter; AWS_MAX_ATTEMPTS says otherwise
CONNECTIONS = 32

_MODELS = create_loader()  # botocore's description of S3 takes longer to read than a client to make: once a process


def connect(where: S3Location) -> tuple[Any, bool]:
    """A thread-safe client, and whether the store's own digests are to be believed. Nothing is asked of it yet.

    Raises:
        StorageError: settings that cannot be used, such as a profile that is not there.
    """
    with s3_errors(where, "use the AWS settings"):
        session = get_session()
        session.register_component("data_loader", _MODELS)
        options = {"request_checksum_calculation": where.checksums} if where.checksums else {}
        retries: dict[str, Any] = {"mode": "standard"}
        if session.get_config_variable("max_attempts") is None:
            retries["total_max_attempts"] = ATTEMPTS
        config = Config(
            retries=retries,
            connect_timeout=10,
            read_timeout=60,
            # what is streamed has its digest in its name and is compared with it; other reads ask for one themselves
            response_checksum_validation="when_required",
            max_pool_connections=CONNECTIONS,
            user_agent_extra=f"mixdpo/{__version__}",
            **options,
        )
        checksums = where.checksums or session.get_config_variable("response_checksum_validation")
        client = session.create_client("s3", endpoint_url=where.endpoint, region_name=where.region, config=config)
    return client, checksums != "when_required"
