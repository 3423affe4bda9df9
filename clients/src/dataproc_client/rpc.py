"""One JSON-RPC endpoint: a method's name and params go out, its bare result or an exception comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from dataproc_client.errors import TransportError, UnexpectedAnswer, from_answer
from dataproc_client.transport import Response, Transport

_ids = count(1)
TEXT_SHOWN = 500


def credentials(
    apikey: str | None = None, secret: str | None = None, session_token: str | None = None
) -> dict[str, str]:
    """The headers that say who calls. With a token and a key the server goes by the token."""
    given = {"APIKey": apikey, "Secret": secret, "Xdata-Session-Token": session_token}
    return {name: value for name, value in given.items() if value is not None}


class Endpoint:
    """The endpoint at `path` of a server, called with the same headers each time. Threads may share it."""

    def __init__(self, transport: Transport, path: str, headers: Mapping[str, str]) -> None:
        self.transport = transport
        self.path = path
        self.headers = {**headers, "Content-Type": "application/json", "Accept": "application/json"}

    @classmethod
    def at(cls, url: str, headers: Mapping[str, str], timeout: float) -> Endpoint:
        """The endpoint whose whole address is `url`, on connections of its own."""
        transport = Transport(url, timeout)
        return cls(transport, transport.path, headers)

    def call(
        self, method: str, params: Mapping[str, Any], *, timeout: float | None = None, repeatable: bool = False
    ) -> Any:
        """The result. Raises the `DataprocError` that the server answered, or a `TransportError`.

        `timeout` and `repeatable` are those of `Transport.request`. Raises ValueError for NaN and infinities.
        """
        asked = next(_ids)
        request = {"jsonrpc": "2.0", "id": asked, "method": method, "params": params}
        body = json.dumps(request, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        reply = self.transport.request("POST", self.path, self.headers, body, timeout=timeout, repeatable=repeatable)
        answer = json_object(reply)
        if isinstance(answer.get("error"), dict):
            raise from_answer(answer["error"])
        if "result" not in answer or answer.get("id") != asked:
            raise unexpected(reply)
        return answer["result"]


def json_object(reply: Response) -> dict[str, Any]:
    """The body of a reply, which has to be a JSON object. Raises `UnexpectedAnswer`."""
    try:
        answer = json.loads(reply.data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise unexpected(reply)
    return answer


def unexpected(reply: Response) -> TransportError:
    """The error for a reply that is not of this protocol; a proxy's 503 reached no server."""
    text = reply.data[:TEXT_SHOWN].decode("utf-8", "replace")
    data = {"status": reply.status, "text": text, "request_id": reply.headers.get("X-Request-ID")}
    return UnexpectedAnswer(
        f"status {reply.status}, and no answer of a dataproc server: {text[:100]!r}",
        data,
        retryable=reply.status == 503,
    )
