"""The event log of a run: states, progress and output in one order, numbered from 1, to be read at any time.

Events that are more than states are kept in a file beside the run's log, written before anybody is shown one, so that
a number means the same event for ever. Output stands in the log alone: its events say from where to where. A silent
run has no file: its states stand in its record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataproc.runs import Run, RunStatus
from dataproc.types import rfc3339

SOON, LATER = 0.008, 1.0  # seconds for which output and progress are gathered: with watchers, and without
A_WATCHER = 0.0005  # seconds more for each watcher: many of them must not cost the run anything
CROWDED = 2000  # events of a run after which they are gathered for longer
PIECE = 2**16  # bytes of output in one event
AT_HAND = 64  # the newest events, kept in memory for those who keep up
DROPPED = 2**20  # bytes of the events file, above which progress of a run is told and no longer kept


@dataclass(frozen=True, slots=True)
class Event:
    """One event. kind: `state`, `progress` or `log`."""

    id: int
    kind: str
    data: dict[str, Any]


class Folder:
    """Where logs and event logs of runs are: `<folder>/<last two digits>/<run>.log` and `.events`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, run: str) -> Path:
        """What the run printed."""
        return self.path / run[-2:] / f"{run}.log"

    def events(self, run: str) -> Path:
        """Its event log."""
        return self.path / run[-2:] / f"{run}.events"

    def read(self, run: Run, after: int) -> list[Event]:
        """The events of a run after that number, as they are kept (see `shown`); for a run that has ended, all."""
        kept = list(self._kept(run.id)) or _states(run)
        end = 0
        for event in kept:
            if event.kind == "log":
                end = event.data["to"]
        if run.status.ended and kept[-1].data.get("status") != run.status.value:
            kept += self._missing(run, kept[-1].id, end)
        return [event for event in kept if event.id > after]

    def _missing(self, run: Run, last: int, end: int) -> list[Event]:
        """What a server that died did not come to write down: output at the end, and how the run ended."""
        found = []
        with contextlib.suppress(OSError):
            size = self.log(run.id).stat().st_size
            while end < size:
                to = min(size, end + PIECE)
                last += 1
                found.append(Event(last, "log", {"from": end, "to": to}))
                end = to
        return [*found, Event(last + 1, "state", _state(run.status, run))]

    def _kept(self, run: str) -> Iterator[Event]:
        try:
            text = self.events(run).read_bytes()
        except OSError:
            return
        for line in text.split(b"\n")[:-1]:  # a line without an end was being written when the server died
            with contextlib.suppress(ValueError, TypeError):
                yield Event(*json.loads(line))

    def text(self, run: str, offset: int, limit: int) -> tuple[str, int, bool]:
        """Output from a byte on, at most so many bytes; where to go on; whether that is the end of what there is."""
        try:
            with self.log(run).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(min(offset, size))
                found = file.read(limit)
        except FileNotFoundError:
            return "", offset, True
        whole = offset + len(found) >= size
        if not whole:
            found = found[: _whole_characters(found)] or found
        return found.decode("utf-8", "replace"), min(offset, size) + len(found), whole

    def forget(self, older_than: float) -> None:
        """Delete logs that were last written to so many seconds ago."""
        before = time.time() - older_than
        with contextlib.suppress(FileNotFoundError):
            for folder in os.scandir(self.path):
                for file in os.scandir(folder) if folder.is_dir(follow_symlinks=False) else ():
                    if file.stat(follow_symlinks=False).st_mtime < before:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(file)

    def shown(self, run: str, event: Event) -> Event:
        """The event as a watcher gets it: with the text of its output."""
        if event.kind != "log" or "text" in event.data:
            return event
        begin, end = event.data["from"], event.data["to"]
        try:
            with self.log(run).open("rb") as file:
                file.seek(begin)
                text = file.read(end - begin)
        except OSError:
            text = b""
        return Event(event.id, "log", {"text": text.decode("utf-8", "replace"), "offset": begin})


def _state(status: RunStatus, run: Run) -> dict[str, Any]:
    moment = run.created_at if status is RunStatus.QUEUED else run.ended_at if status.ended else run.started_at
    told: dict[str, Any] = {"status": status.value, "at": None if moment is None else rfc3339(moment)}
    if status.ended and run.error is not None:
        told["error"] = run.told_error
    return told


def _states(run: Run) -> list[Event]:
    """The states of a run that nothing else was told of."""
    states = [RunStatus.QUEUED]
    if run.started_at is not None:
        states.append(RunStatus.RUNNING)
    return [Event(number, "state", _state(status, run)) for number, status in enumerate(states, 1)]


def _whole_characters(text: bytes) -> int:
    """How many of these bytes end with a whole character, as far as that can be told from its last four."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte & 0xC0 != 0x80:
            long = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return len(text) if back >= long else len(text) - back
    return len(text)


class EventLog:
    """The event log of a run that is under way here. Costs nothing until something is told or watched."""

    __slots__ = (
        "_at_hand", "_changed", "_file", "_flushing", "_folder", "_kept", "_last", "_lost", "_progress", "_run",
        "_size", "_state", "_told", "watchers",
    )  # fmt: skip

    def __init__(self, folder: Folder, run: Run) -> None:
        self._folder, self._run = folder, run
        self._at_hand: deque[Event] | None = None  # None: nothing but states so far
        self._file: int | None = None
        self._flushing: asyncio.TimerHandle | None = None
        self._progress: dict[str, Any] | None = None
        self._changed: asyncio.Future[None] | None = None
        self._told = self._kept = self._last = self._size = 0  # bytes of output: told of, and there; number; file
        self._state = ""  # the last that was told
        self._lost = False
        self.watchers = 0

    def state(self, run: Run) -> None:
        """The run is in another state."""
        self._run = run
        again = run.attempt > 1 and run.status is RunStatus.QUEUED
        if self._at_hand is not None or again or self._progress is not None:
            self._begin()
            self.flush()
            if self._state != run.status.value:
                self._tell("state", _state(run.status, run))
            self._wake()

    def output(self, kept: int) -> None:
        """So many bytes of output are in the log."""
        self._kept = kept
        if self._flushing is None:
            self._soon()

    def progress(self, report: dict[str, Any]) -> None:
        """How far the run is. Each report is an event, until there have been very many."""
        self._progress = report
        if self._last <= CROWDED:
            self._begin()
            self._gather()
        if self._flushing is None:
            self._soon()

    def watch(self) -> None:
        """Somebody watches from now on; `watchers` is to be counted down in the end."""
        self.watchers += 1
        self._begin()
        self.flush()

    def since(self, after: int) -> list[Event]:
        """The events after that number, as far as they have been told."""
        at_hand = self._at_hand
        if at_hand is None or after >= self._last:
            return []
        if not at_hand or after < at_hand[0].id - 1:
            return self._folder.read(self._run, after)
        return [event for event in at_hand if event.id > after]

    async def changed(self, wait: float) -> bool:
        """Wait until more has been told, at most so many seconds; whether it has."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._changed], timeout=wait)
        return bool(done)

    def _soon(self) -> None:
        wait = SOON + A_WATCHER * self.watchers if self.watchers else LATER
        if self._last > CROWDED:
            wait = max(wait, LATER / 4)
        self._flushing = asyncio.get_running_loop().call_later(wait, self._flush_and_wake)

    def _flush_and_wake(self) -> None:
        self._begin()
        self.flush()
        self._wake()

    def flush(self) -> None:
        """Tell what has been gathered."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._gather()

    def _gather(self) -> None:
        while self._told < self._kept:
            to = self._boundary(min(self._kept, self._told + PIECE))
            self._tell("log", {"from": self._told, "to": to})
            self._told = to
        if self._progress is not None:
            report, self._progress = self._progress, None
            self._tell("progress", report)

    def _boundary(self, to: int) -> int:
        """Where output may be cut: not within a character, as far as that is known."""
        if to == self._kept:
            return to
        with contextlib.suppress(OSError), self._folder.log(self._run.id).open("rb") as file:
            file.seek(to - 3)
            tail = file.read(4)
            for back, byte in enumerate(reversed(tail)):
                if byte & 0xC0 != 0x80:  # no byte within a character
                    return to - back
        return to

    def _begin(self) -> None:
        """The first event beside the states: from now on all of them are kept."""
        if self._at_hand is not None:
            return
        self._at_hand = deque(maxlen=AT_HAND)
        earlier = list(self._folder._kept(self._run.id)) if self._run.submitted else []
        if earlier:
            self._last = earlier[-1].id
            self._state = next((event.data["status"] for event in reversed(earlier) if event.kind == "state"), "")
            self._told = max((event.data["to"] for event in earlier if event.kind == "log"), default=0)
            self._kept = max(self._kept, self._told)
            return
        for event in _states(self._run):
            self._tell(event.kind, event.data)

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        assert self._at_hand is not None
        self._last += 1
        if kind == "state":
            self._state = data["status"]
        event = Event(self._last, kind, data)
        self._keep(event)
        self._at_hand.append(self._folder.shown(self._run.id, event) if self.watchers else event)

    def _keep(self, event: Event) -> None:
        """Append to the file; a full disk loses events, never the run."""
        if self._lost or (event.kind == "progress" and self._size > DROPPED):
            return
        try:
            if self._file is None:
                path = self._folder.events(self._run.id)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                if os.fstat(self._file).st_size:
                    os.write(self._file, b"\n")  # a server that died may have left half a line
            line = json.dumps([event.id, event.kind, event.data], separators=(",", ":")).encode() + b"\n"
            written = os.write(self._file, line)
            self._size += written
            self._lost = written < len(line)
        except OSError:
            self._lost = True

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    def close(self) -> None:
        """The run is no longer under way."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._wake()
