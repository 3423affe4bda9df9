"""Who calls: one caller with a kept connection, timed; or many at once, counted."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Times


@dataclass(frozen=True)
class Target:
    """One session of one server, and the request that appends a line there."""

    port: int
    path: str
    headers: Mapping[str, str]
    body: str


class Caller:
    """One caller on one kept connection."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)

    def call(self) -> bytes:
        """One call; the body of its answer."""
        return post(self._connection, self.target.path, self.target.headers, self.target.body)

    def count(self) -> int:
        """One call, and how many lines there are now."""
        return int(result(self.call()))

    def times(self, calls: int) -> Times:
        """Seconds of each of that many calls. Raises where a call did not do its work."""
        found = []
        for _ in range(calls):
            begun = time.perf_counter()
            answer = self.call()
            found.append(time.perf_counter() - begun)
            result(answer)
        return found


def post(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], body: str) -> bytes:
    """One request; the body of its answer, whose status has to be 200."""
    connection.request("POST", path, body, dict(headers))
    reply = connection.getresponse()
    answer = reply.read()
    if reply.status != 200:
        raise RuntimeError(f"{path}: status {reply.status}: {answer[:300]!r}")
    return answer


def result(answer: bytes) -> Any:
    """The result of a JSON-RPC answer, which must not be an error."""
    told = json.loads(answer)
    if "result" not in told:
        raise RuntimeError(f"the call failed: {answer[:500]!r}")
    return told["result"]
