"""A run while it is under way in this process: what is known of it, who runs it, and how to end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dataproc.admission import Place
from dataproc.engine.output import Output
from dataproc.engine.words import Task
from dataproc.engine.worker import Worker
from dataproc.events import EventLog, Folder
from dataproc.registry import MethodInfo, ModuleEntry
from dataproc.runs import Completed, Outcome, Run, RunStatus, Usage, error_of, told_of
from dataproc.storage.changes import Touched
from dataproc.storage.manifest import Late
from dataproc.types import JsonObject, Principal, new_id


def nobody_waits() -> None:
    """What is called when a call begins, of nearly all calls."""


@dataclass(frozen=True, slots=True)
class Call:
    """One validated request. session: the id of a live session; module and method: names; timeout: seconds or None.

    begun: called when it is under way, which is when its session waits for it.
    """

    principal: Principal
    session: str
    module: str
    method: str
    params: JsonObject
    input: JsonObject
    output: JsonObject
    timeout: float | None
    request_id: str
    run_id: str = field(default_factory=new_id)
    begun: Callable[[], None] = nobody_waits


class UnderWay:
    """One run, from its call to its record. Made for every call, so it does little until somebody asks.

    recorded: it has a durable record, or is about to. submitted, closes: as in `Run`. ending: how it is being ended.
    refused: it ended before it began. shelved: its record waits for the next start of a server.
    shared: other runs wrote in its session meanwhile. late: gives its changes with the hashes of large files.
    """

    __slots__ = (
        "_events", "_folder", "attempt", "call", "changes", "closes", "created", "done", "ended", "ending", "entry",
        "give_up", "late", "method", "node", "outcome", "place", "progress", "recorded", "refused", "shared",
        "shelved", "started", "submitted", "task", "touched", "usage", "worker",
    )  # fmt: skip

    def __init__(self, call: Call, entry: ModuleEntry, method: MethodInfo, created: datetime, folder: Folder) -> None:
        self.call, self.entry, self.method, self.created, self._folder = call, entry, method, created, folder
        self.node = ""
        self.attempt = 1
        self.recorded = self.submitted = self.closes = self.refused = self.shelved = self.shared = False
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self.outcome: Outcome | None = None
        self.ending: Outcome | None = None
        self.progress: dict[str, Any] | None = None
        self.changes: dict[str, Any] | None = None
        self.touched: Touched | None = None
        self.late: Late | None = None
        self.usage: Usage | None = None
        self.worker: Worker | None = None
        self.place: Place | None = None
        self.task: Task
        self.give_up: Callable[[Place], None]
        self.done: asyncio.Future[None] | None = None
        self._events: EventLog | None = None

    @property
    def status(self) -> RunStatus:
        """Where it stands."""
        if self.outcome is not None:
            return self.outcome.status
        return RunStatus.QUEUED if self.started is None else RunStatus.RUNNING

    def output(self, limit: int) -> Output:
        """Where its output is kept; a second attempt goes on in the log of the first."""
        output = Output(self._folder.path, self.call.run_id, limit, self._printed)
        if self.attempt > 1:
            output.kept = _size(output.path)
        return output

    def hear(self, report: dict[str, Any]) -> None:
        """A report of progress."""
        self.progress = report
        self.events.progress(report)

    def _printed(self, kept: int) -> None:
        self.events.output(kept)

    @property
    def events(self) -> EventLog:
        """Its event log, from the first use on."""
        if self._events is None:
            self._events = EventLog(self._folder, self.as_run())
        return self._events

    def tell(self) -> None:
        """It has come to another state: tell those who watch."""
        if self._events is not None or self.attempt > 1:
            self.events.state(self.as_run())

    def over(self) -> None:
        """It is no longer under way: tell those who wait."""
        if self._events is not None:
            self._events.close()
        if self.done is not None and not self.done.done():
            self.done.set_result(None)

    async def wait(self, seconds: float | None) -> bool:
        """Wait for its end and its record; whether it came in time."""
        if self.done is None:
            self.done = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self.done], timeout=seconds)
        return bool(done)

    def end(self, outcome: Outcome, *, at_once: bool = False) -> None:
        """Begin to end it so, wherever it is: in the line, on its way to a worker, or with one."""
        if self.ending is None:
            self.ending = outcome
        if self.worker is not None:
            self.worker.end(outcome, at_once=at_once)
        elif self.place is not None:
            self.give_up(self.place)

    def again(self) -> None:
        """Its process died, and it may be tried once more."""
        self.started = self.worker = self.progress = None
        self.attempt += 1
        self.tell()

    def as_run(self) -> Run:
        """The record as it stands now."""
        call, outcome = self.call, self.outcome
        error = None if outcome is None else error_of(outcome)
        completed = outcome if isinstance(outcome, Completed) else None
        printed = getattr(self, "task", None)
        return Run(
            id=call.run_id, key=call.principal.key, session=call.session, module=self.entry.name,
            method=self.method.name, created_at=self.created, module_version=self.entry.version, params=call.params,
            input=call.input, output=call.output, status=self.status, started_at=self.started, ended_at=self.ended,
            result=None if completed is None else completed.result, error=None if error is None else told_of(error),
            messages=() if completed is None else completed.messages, progress=self.progress, changes=self.changes,
            usage=self.usage, log_bytes=0 if printed is None else printed.output.kept + printed.output.dropped,
            node=self.node, attempt=self.attempt, timeout=call.timeout, submitted=self.submitted, closes=self.closes,
            request_id=call.request_id,
        )  # fmt: skip


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
