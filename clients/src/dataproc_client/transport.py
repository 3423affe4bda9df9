"""HTTP to one server: kept-alive connections that threads share, and that a forked child makes anew."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TypeAlias
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from dataproc_client.errors import ConnectionFailed, ConnectionLost, Timeout, TransportError

Body: TypeAlias = "bytes | IO[bytes] | Iterable[bytes] | None"
Response: TypeAlias = urllib3.BaseHTTPResponse

DEFAULT_TIMEOUT = 330.0  # the server's own default limit of a run is 300
CONNECT_TIMEOUT = 10.0
KEPT_CONNECTIONS = 64
BLOCK = 1 << 17
NEVER_SENT = (NewConnectionError, NameResolutionError, ConnectTimeoutError, SSLError)


class Transport:
    """Sends requests to the host of `url`; `timeout` is seconds without a byte from the server."""

    def __init__(self, url: str, timeout: float = DEFAULT_TIMEOUT, ssl_context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https address: {url!r}")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.path = parts.path.rstrip("/")
        self.timeout = timeout
        self._ssl_context = ssl_context
        self._pool = self._connections()

    def _connections(self) -> urllib3.HTTPConnectionPool:
        self._pid = os.getpid()
        secured = {"ssl_context": self._ssl_context} if self._ssl_context and self.origin.startswith("https") else {}
        return urllib3.connection_from_url(
            self.origin, maxsize=KEPT_CONNECTIONS, retries=False, blocksize=BLOCK, **secured
        )

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        timeout: float | None = None,
        repeatable: bool = False,
        stream: bool = False,
    ) -> Response:
        """Send, and give the response of whatever status; with `stream` its body is still to be read.

        A `repeatable` request is sent a second time when a kept connection turns out to be dead: say so only where
        doing it twice is doing it once, and where `body` can be sent again. Raises `TransportError`.
        """
        try:
            return self._send(method, target, headers, body, timeout, stream, repeatable)
        except ConnectionLost:
            if not repeatable:
                raise
            return self._send(method, target, headers, body, timeout, stream, repeatable)

    def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body,
        timeout: float | None,
        stream: bool,
        repeatable: bool,
    ) -> Response:
        if self._pid != os.getpid():  # a forked child must not talk on its parent's connections
            self._pool = self._connections()
        wait = self.timeout if timeout is None else timeout
        with translated(repeatable):
            return self._pool.urlopen(
                method,
                target or "/",
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(wait, CONNECT_TIMEOUT), read=wait),
                redirect=False,
                preload_content=not stream,
                decode_content=True,
            )

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()


@contextmanager
def translated(repeatable: bool = False) -> Iterator[None]:
    """Turn what urllib3 raises into errors of ours."""
    try:
        yield
    except NEVER_SENT as error:
        raise ConnectionFailed(str(error), retryable=not isinstance(error, SSLError)) from error
    except ReadTimeoutError as error:
        raise Timeout(str(error), retryable=repeatable) from error
    except ProtocolError as error:
        raise ConnectionLost(str(error), retryable=repeatable) from error
    except HTTPError as error:
        raise TransportError(str(error), retryable=repeatable) from error
