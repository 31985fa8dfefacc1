"""A proxy on loopback between a client and an S3 server, which does to chosen requests what networks and stores do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Reply = tuple[int, list[tuple[str, str]], bytes]


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # with the query
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request, as a fault sees it: it may pass it on, changed or not, and send an answer or a part of one."""

    def __init__(self, request: Request, forward: Callable[[Request], Reply], send: Callable[..., None]) -> None:
        self.request, self.forward, self.send = request, forward, send


Fault = Callable[[Exchange], None]  # a connection whose fault sent nothing is closed


def refuse(status: int, code: str) -> Fault:
    """The store itself says no, and nothing reaches it."""
    body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
    return lambda exchange: exchange.send((status, [("Content-Type", "application/xml")], body))


def drop(_: Exchange) -> None:
    """The connection breaks before the request arrives."""


def lose_reply(exchange: Exchange) -> None:
    """The request is carried out, and the connection breaks before the answer arrives."""
    exchange.forward(exchange.request)


def truncate(exchange: Exchange) -> None:
    """The connection breaks in the middle of the answer's body."""
    status, headers, body = exchange.forward(exchange.request)
    exchange.send((status, headers, body[: len(body) // 2]), length=len(body))


def corrupt(exchange: Exchange) -> None:
    """One bit of the answer's body is another on arrival."""
    status, headers, body = exchange.forward(exchange.request)
    exchange.send((status, headers, flipped(body)))


def corrupt_request(exchange: Exchange) -> None:
    """One bit of what is sent is another on arrival."""
    request = exchange.request
    exchange.send(exchange.forward(replace(request, body=flipped(request.body))))


def flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


class Proxy:
    """`url` in place of the server's endpoint. All passes as it is but what `inject` names."""

    def __init__(self, upstream: str) -> None:
        self._host = urlsplit(upstream).netloc
        self._faults: list[tuple[Fault, str, str, int]] = []
        self._lock = threading.Lock()
        self.seen: list[Request] = []  # each request, faulty or not, without its body
        self.url = ""

    def inject(self, fault: Fault, method: str, part: str, times: int = 1) -> None:
        """The next `times` requests of `method` with `part` in their path meet `fault`."""
        self._faults.append((fault, method, part, times))

    def heal(self) -> None:
        """No more faults, and the requests are counted from here on."""
        self._faults.clear()
        self.seen.clear()

    def count(self, method: str, part: str) -> int:
        return sum(request.method == method and part in request.path for request in self.seen)

    def handle(self, exchange: Exchange) -> None:
        with self._lock:
            request = exchange.request
            self.seen.append(replace(request, body=b""))
            fault = self._next(request)
        if fault is None:
            exchange.send(exchange.forward(request))
        else:
            fault(exchange)

    def _next(self, request: Request) -> Fault | None:
        for place, (fault, method, part, times) in enumerate(self._faults):
            if request.method == method and part in request.path:
                self._faults[place : place + 1] = [(fault, method, part, times - 1)] if times > 1 else []
                return fault
        return None

    def forward(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    proxy = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client is gone
                self.close_connection = True

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, dict(self.headers), body)
            self.close_connection = True  # unless an answer is sent whole
            proxy.handle(Exchange(request, proxy.forward, self.answer))

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = relay  # noqa: N815 (the names that http.server calls)

        def answer(self, reply: Reply, length: int | None = None) -> None:
            status, headers, body = reply
            whole = length is None
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            if self.command == "HEAD":
                length = int({name.lower(): value for name, value in headers}.get("content-length", 0))
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.close_connection = not whole

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
