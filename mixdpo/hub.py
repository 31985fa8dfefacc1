"""Tells a Hub that did not answer, where trying again helps, from one that does not know the name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

from mixdpo.errors import TransientError

# HTTPError is of the HTTP library that huggingface_hub uses at the moment, raised before there is a response
SILENT = (ConnectionError, TimeoutError, socket.gaierror, HTTPError, LocalEntryNotFoundError)
BUSY = (408, 429)  # and all from 500 on


def did_not_answer(error: BaseException) -> bool:
    """Whether `error`, or one that it comes from, is a Hub that is out of reach, busy or broken.

    The libraries wrap such errors up to four deep, mostly in an OSError that looks like that of a wrong name.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code in BUSY or cause.response.status_code >= 500
    return any(isinstance(cause, SILENT) for cause in causes)


@contextmanager
def asking_hub(what: str) -> Iterator[None]:
    """Turn any error that comes of a Hub which did not answer into a TransientError; `what` names model or data set."""
    try:
        yield
    except Exception as error:
        if not did_not_answer(error):
            raise
        raise TransientError(
            f"{what} is no directory here, and the Hub did not answer ({first_line(error)}); "
            "correct the path, connect to the network and run again, or give a local directory of the same layout"
        ) from error


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
