"""A run: the durable record of one call, and the ways in which it can end. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from dataproc.errors import (
    DataprocError,
    ExecCancelled,
    ExecCrashed,
    ExecTimeout,
    Interrupted,
)
from dataproc.types import Json


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"  # recorded, no worker yet
    RUNNING = "running"  # a worker has it
    COMPLETED = "completed"  # the method returned
    FAILED = "failed"  # the method raised, or went over a quota
    CRASHED = "crashed"  # its process died
    TIMED_OUT = "timed_out"  # ended by its time limit
    CANCELLED = "cancelled"  # ended by its caller
    INTERRUPTED = "interrupted"  # the server stopped under it

    @property
    def ended(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING)


NEXT: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset(RunStatus) - {RunStatus.QUEUED},
    RunStatus.RUNNING: frozenset(RunStatus) - {RunStatus.QUEUED, RunStatus.RUNNING},
} | {status: frozenset[RunStatus]() for status in RunStatus if status.ended}


@dataclass(frozen=True, slots=True)
class Completed:
    """The method returned `result`; `messages` tell what was changed on the way (a NaN written as null)."""

    result: Json
    messages: tuple[str, ...] = ()
    status = RunStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class Failed:
    """Their fault: the method raised, refused its params, exited, or returned what is no JSON."""

    error: DataprocError
    status = RunStatus.FAILED


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process died under the run; one of `signal` and `exit_code` is known, or `reason` says what bound it met."""

    signal: int | None = None
    exit_code: int | None = None
    reason: str = ""
    status = RunStatus.CRASHED


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Ended by its time limit, in seconds."""

    timeout: float
    status = RunStatus.TIMED_OUT


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Ended by its caller."""

    reason: str = "cancelled"
    status = RunStatus.CANCELLED


@dataclass(frozen=True, slots=True)
class WasInterrupted:
    """The server stopped under it."""

    status = RunStatus.INTERRUPTED


Outcome = Completed | Failed | Crashed | TimedOut | Cancelled | WasInterrupted


def told_of(error: DataprocError) -> dict[str, Any]:
    """An error as a record keeps it."""
    return {"code": error.code, "message": error.message, "data": error.members()}


def error_of(outcome: Outcome) -> DataprocError | None:
    """What the caller is told, or None for a run that completed."""
    match outcome:
        case Completed():
            return None
        case Failed(error):
            return error
        case Crashed(signal, exit_code, reason):
            how = reason or (f"signal {signal}" if signal is not None else f"exit code {exit_code}")
            known = {"signal": signal, "exit_code": exit_code}
            return ExecCrashed(
                f"the worker process died under the run ({how}); files written before are kept, and the next call "
                "gets a new process",
                **{name: value for name, value in known.items() if value is not None},
            )
        case TimedOut(timeout):
            return ExecTimeout(
                f"the run did not end within its time limit of {timeout:g} s; ask for more with `timeout`, or do "
                "less in one call",
                timeout=timeout,
            )
        case Cancelled(reason):
            return ExecCancelled(f"the run was ended before it was done: {reason}")
        case WasInterrupted():
            return Interrupted("the server stopped under the run; files written before are kept. Call again")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used, as its worker tells: a hint, since the worker runs the module's code.

    cpu_time: seconds, of children that ended too. peak_memory: bytes, the worker process's most in its life so far.
    bytes_read, bytes_written: what reached the disk; the page cache hides the rest.
    """

    cpu_time: float
    peak_memory: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Run:
    """The durable record of one call. Times are aware UTC, durations seconds.

    timeout: what the caller asked for. submitted: it runs whether or not somebody waits. closes: its session is to be
    ended after it. progress, changes: as they are shown. attempt: counts from 1.
    """

    id: str
    key: str
    session: str
    module: str
    method: str
    created_at: datetime
    module_version: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    input: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    status: RunStatus = RunStatus.QUEUED
    started_at: datetime | None = None
    ended_at: datetime | None = None
    result: Json = None
    error: dict[str, Any] | None = None
    messages: tuple[str, ...] = ()
    progress: dict[str, Any] | None = None
    changes: dict[str, Any] | None = None
    usage: Usage | None = None
    log_bytes: int = 0
    node: str = ""
    attempt: int = 1
    timeout: float | None = None
    submitted: bool = False
    closes: bool = False
    request_id: str = ""

    @property
    def told_error(self) -> dict[str, Any] | None:
        """The error that it ended with, as its caller is told it: with the ids of the run and of its request."""
        if self.error is None:
            return None
        ids = {"run_id": self.id} | ({"request_id": self.request_id} if self.request_id else {})
        return {**self.error, "data": {**self.error["data"], **ids}}

    def evolve(self, status: RunStatus | None = None, **changes: Any) -> Run:
        """The record after a step; a transition that is not in `NEXT` is a fault of ours."""
        if status is not None:
            if status not in NEXT[self.status]:
                raise ValueError(f"a run cannot go from {self.status} to {status}")
            changes["status"] = status
        return replace(self, **changes)

    def requeued(self, node: str, attempt: int) -> Run:
        """The record of a run that is taken up again from the start, by that node."""
        return replace(self, node=node, status=RunStatus.QUEUED, started_at=None, attempt=attempt)
