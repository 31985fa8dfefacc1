"""A Hub that does not answer is told from one that answers that it has no such thing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mixdpo.errors import ModelError, TransientError
from mixdpo.policy.loading import load_causal_lm

REVISION = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str | None], None]]:
    """A server on this machine in the Hub's place; call it with the status and error code that it shall answer."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    answers: dict[str, int | str | None] = {"status": 404, "code": "RepoNotFound"}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(answers["status"] or 0))
            if answers["code"]:
                self.send_header("X-Error-Code", str(answers["code"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 (http.server looks for this name)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # it waits a minute between its own attempts
    yield lambda status, code: answers.update(status=status, code=code)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "code"), [(503, None), (429, None)])
def test_a_busy_or_broken_hub_is_worth_another_try(
    hub: Callable[[int, str | None], None], status: int, code: str | None
) -> None:
    hub(status, code)
    with pytest.raises(TransientError, match=r"^causal language model 'someone/model' .* the Hub did not answer"):
        load_causal_lm("someone/model", REVISION)


@pytest.mark.parametrize(("status", "code"), [(404, "RepoNotFound"), (404, "RevisionNotFound"), (403, "GatedRepo")])
def test_a_wrong_name_is_not(hub: Callable[[int, str | None], None], status: int, code: str) -> None:
    hub(status, code)
    with pytest.raises(ModelError, match=r"^causal language model 'someone/model' .* or a Hub id$"):
        load_causal_lm("someone/model", REVISION)


@pytest.mark.usefixtures("hub")
def test_a_refused_connection_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    nowhere = "http://127.0.0.1:9"  # the discard port: nobody listens
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(TransientError, match="Hub did not answer"):
        load_causal_lm("someone/model", REVISION)
