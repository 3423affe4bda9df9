"""A real HTTP server on a free port that answers what the test says, and remembers what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(frozen=True)
class Sent:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: tuple[str, int]

    @property
    def rpc(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer; None as `status` hangs up without a word."""

    status: int | None = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Answering = Callable[[Sent], Reply]


@dataclass
class Station:
    """The server: `answer` may be replaced at any time; `sent` is what came."""

    url: str
    answer: Answering
    sent: list[Sent] = field(default_factory=list)


def result(value: Any) -> Answering:
    """Answers every call with that result."""
    return lambda sent: Reply(body=json.dumps({"jsonrpc": "2.0", "id": sent.rpc["id"], "result": value}).encode())


def refusal(code: int, data: dict[str, Any], status: int = 200) -> Answering:
    """Answers every call with that error."""
    error = {"code": code, "message": "as told", "data": data}
    return lambda sent: Reply(status, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode())


@pytest.fixture
def station() -> Iterator[Station]:
    made = Station("", result(True))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sent = Sent(self.command, self.path, dict(self.headers), body, self.client_address)
            made.sent.append(sent)
            reply = made.answer(sent)
            if reply.status is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if sent.method != "HEAD":
                self.wfile.write(reply.body)

        do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "APIKEY", "SECRET", "SESSION_TOKEN"):
        monkeypatch.delenv(f"DATAPROC_{name}", raising=False)
