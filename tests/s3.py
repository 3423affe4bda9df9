"""A real S3 server over HTTP, for tests: moto's, in a process of its own, on a free port."""

from __future__ import annotations

import http.client
import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import s3fs

DEADLINE = 60.0


@dataclass(frozen=True)
class S3:
    """A server that answers at `url`; it takes any credentials."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def env(self) -> dict[str, str]:
        """What makes clients use it."""
        return {
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-store",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    def fs(self) -> s3fs.S3FileSystem:
        """A view of it, for looking behind our back."""
        return s3fs.S3FileSystem(
            key="an-id",
            secret="a-secret-of-the-store",
            endpoint_url=self.url,
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def bucket(self) -> str:
        """A new one."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=DEADLINE).close()
        return name

    def settings(self) -> dict[str, object]:
        """Settings of ours that use it."""
        return {
            "s3_endpoint": self.url,
            "s3_region": "us-east-1",
            "s3_access_key_id": "an-id",
            "s3_secret_access_key": "a-secret-of-the-store",
        }


@contextmanager
def serving(port: int = 0) -> Iterator[S3]:
    """The server, up."""
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    )
    try:
        _wait(port, process)
        yield S3(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert process.poll() is None, "the S3 server ended"
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        select.select([], [], [], 0.05)
    raise AssertionError("the S3 server does not answer")


class Gate:
    """A proxy before an S3 server, for what goes wrong on the way.

    fail_every: so often a request is answered 503. down: connections break. refuse: the credentials are wrong. cut:
    answers with files break off in the middle. hold: a request whose method and path contain these is carried out, but
    its answer does not come before `let_go` is set; `held` tells that there is one.
    """

    def __init__(self, s3: S3) -> None:
        self.s3 = s3
        self.fail_every = 0
        self.down = False
        self.refuse = False
        self.cut = False
        self._answering = threading.Event()
        self._answering.set()
        self.hold: tuple[str, str] | None = None
        self.held, self.let_go = threading.Event(), threading.Event()
        self.seen: list[tuple[str, str]] = []
        self._server = self._listening(0)

    def _listening(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._answering.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def gone(self, how: str) -> Iterator[None]:
        """A store that is not there meanwhile: it `refuses` connections, or `hangs` when it has taken them."""
        if how == "hangs":
            self._answering.clear()
            yield
            self._answering.set()
            return
        port = self._server.server_port
        self._server.shutdown()
        self._server.server_close()
        self.down = True  # for connections that are open still
        yield
        self.down = False
        self._server = self._listening(port)

    def files(self, method: str = "GET") -> int:
        """How many requests there were for files of revisions."""
        return sum(asked == method and ".rev/" in path and "index.json" not in path for asked, path in self.seen)

    @property
    def env(self) -> dict[str, str]:
        """What makes clients go through it."""
        return {**self.s3.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}"}

    def settings(self) -> dict[str, object]:
        """Settings of ours that go through it."""
        return {**self.s3.settings(), "s3_endpoint": self.env["AWS_ENDPOINT_URL"]}

    def _handler(gate) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _pass_on(self) -> None:
                gate._pass_on(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

        return Handler

    def _pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        self.seen.append((request.command, request.path))
        self._answering.wait(DEADLINE)
        if self.down:
            request.close_connection = True
            return
        if self.refuse:
            said = b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key id here</Message></Error>"
            self._answer(request, 403, {"content-type": "application/xml"}, said)
            return
        if self.fail_every and len(self.seen) % self.fail_every == 0:
            self._answer(request, 503, {}, b"<Error><Code>ServiceUnavailable</Code></Error>")
            return
        host, port = self.s3.url.removeprefix("http://").split(":")
        onward = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        try:
            onward.request(request.command, request.path, body, dict(request.headers.items()))
            reply = onward.getresponse()
            answer = reply.read()
        finally:
            onward.close()
        if self.hold and request.command == self.hold[0] and self.hold[1] in request.path:
            self.held.set()
            self.let_go.wait(DEADLINE)
        cut = self.cut and request.command == "GET" and ".rev/" in request.path and "index.json" not in request.path
        self._answer(request, reply.status, dict(reply.headers.items()), answer, len(answer) // 2 if cut else None)

    def _answer(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, cut: int | None = None
    ) -> None:
        request.close_connection |= cut is not None
        with suppress(OSError):
            request.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    request.send_header(name, value)
            length = headers.get("Content-Length", headers.get("content-length")) if request.command == "HEAD" else None
            request.send_header("content-length", length or str(len(body)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body[:cut])
