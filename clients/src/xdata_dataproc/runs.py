"""`Run`: a call that was submitted, to come back to, from anywhere and at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dataproc_client.errors import DataprocError, Timeout, TransportError, from_answer
from dataproc_client.rpc import Endpoint, json_object
from dataproc_client.transport import translated

LONG_POLL = 60.0  # seconds for which one request waits for the end of a run
POLL_MARGIN = 30.0  # seconds that its reply may take beyond that
SILENCE = 60.0  # seconds without a byte after which a stream of events counts as broken off
TRIES = 5  # to come back to one that broke off
PAUSE = 0.5  # seconds before each
PIECE = 2**20  # bytes of a log in one request
UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class Event:
    """Something that happened to a run. `kind` is `state`, `progress` or `log`; `id` is where to resume after."""

    id: int
    kind: str
    data: dict[str, Any]


class Run:
    """One run, by its id. Got from `submit`, or from `Session.run` for an id that was kept."""

    def __init__(self, endpoint: Endpoint, run_id: str) -> None:
        self.id = run_id
        self._endpoint = endpoint

    def info(self) -> dict[str, Any]:
        """All that the server tells of it: status, times, result or error, progress, changes, usage."""
        return dict(self._call("get_run"))

    def status(self) -> str:
        """`queued`, `running`, or how it ended."""
        return str(self.info()["status"])

    def result(self, timeout: float | None = None) -> Any:
        """What the method returned, once it has. Raises the error that the run ended with.

        `timeout` is seconds to wait, None for ever; then `errors.Timeout`, which is a `TimeoutError`, is raised, and
        the run goes on.
        """
        run = self.wait(timeout)
        if run["error"] is not None:
            raise from_answer(run["error"])
        return run["result"]

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """As `info`, once the run has ended. Raises `errors.Timeout` as `result` does."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL if until is None else min(LONG_POLL, max(0.0, until - time.monotonic()))
            run = dict(self._call("wait_run", left + POLL_MARGIN, timeout=left))
            if run["status"] not in UNFINISHED:
                return run
            if until is not None and time.monotonic() >= until:
                raise Timeout(f"the run {self.id} has not ended after {timeout:g} s", {"run_id": self.id})

    def cancel(self) -> None:
        """End it. One that has ended stays as it is."""
        self._call("cancel_run")

    def log(self) -> str:
        """What it printed so far."""
        found: list[str] = []
        offset = 0
        while True:
            piece = self._call("get_log", offset=offset, limit=PIECE)
            if not piece["text"]:
                return "".join(found)
            found.append(piece["text"])
            offset = piece["offset"]

    def events(self, after: int = 0) -> Iterator[Event]:
        """What happens to it, as it happens, until it has ended; `after` is the id of the last event seen before.

        Comes back where the connection breaks off.
        """
        tries = 0
        while True:
            try:
                for event in self._stream(after):
                    after, tries = event.id, 0
                    yield event
                    if event.kind == "state" and event.data["status"] not in UNFINISHED:
                        return
            except TransportError:
                tries += 1
                if tries > TRIES:
                    raise
            time.sleep(PAUSE)

    def _stream(self, after: int) -> Iterator[Event]:
        endpoint = self._endpoint
        path = f"{endpoint.path.removesuffix('/jsonrpc')}/runs/{self.id}/events"
        headers = {**endpoint.headers, "Accept": "text/event-stream", "Last-Event-ID": str(after)}
        headers.pop("Content-Type", None)
        reply = endpoint.transport.request("GET", path, headers, timeout=SILENCE, repeatable=True, stream=True)
        try:
            if reply.status != 200:
                raise _refused(json_object(reply))
            with translated(repeatable=True):
                yield from _parsed(reply.stream(2**14, decode_content=True))
        finally:
            reply.close()

    def _call(self, method: str, wait: float | None = None, **params: Any) -> Any:
        asked = {"run_id": self.id, **params}
        return self._endpoint.call(f"dataproc.{method}", asked, timeout=wait, repeatable=True)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"


def _parsed(blocks: Iterator[bytes]) -> Iterator[Event]:
    held = b""
    for block in blocks:
        *whole, held = (held + block).split(b"\n\n")
        for text in whole:
            members = dict(line.split(": ", 1) for line in text.decode().split("\n") if ": " in line)
            if "id" in members:
                yield Event(int(members["id"]), members["event"], json.loads(members["data"]))


def _refused(answer: dict[str, Any]) -> DataprocError:
    return from_answer(answer["error"])


def submit(endpoint: Endpoint, call: Mapping[str, Any], ours: Mapping[str, Any]) -> Run:
    """`dataproc.submit`."""
    given = {name: value for name, value in ours.items() if value is not None}
    told = endpoint.call("dataproc.submit", {**call, **given}, repeatable="idempotency_key" in given)
    return Run(endpoint, str(told["run_id"]))
