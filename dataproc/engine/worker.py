"""The server's end of one worker: send it a run, wait for what becomes of it, and end it when in doubt.

What a worker says is hostile input: bounded frames, and anything unexpected costs it its life. That it has died is
told by its zygote, never by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dataproc.engine import frames
from dataproc.engine.output import Output
from dataproc.errors import ExecFailed, InvalidParams, TooLarge
from dataproc.runs import Cancelled, Completed, Crashed, Failed, Outcome, TimedOut, Usage

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SCM_CREDENTIALS
WIDE_PIPE = 2**20
DRAIN_PAUSE = 0.005  # seconds between looks at output that is only counted: a flood waits, the server does not
READS = 16  # of output, before others get their turn
MOST_TOLD = 1000  # characters of a progress message
LAST_WORDS = 2.0  # seconds for a death to be reported after the socket closed, or after SIGKILL


class Owner(Protocol):
    """Who forked the worker and can end it."""

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to a worker: SIGKILL to its whole tree."""
        ...

    def destroy(self) -> None:
        """End the zygote, and with it all its workers."""
        ...


def _nobody(report: dict[str, Any]) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run as a worker is told of it. timeout and grace in seconds; hears: takes its reports of progress."""

    run: str
    method: str
    params: dict[str, Any]
    timeout: float
    grace: float
    output: Output
    inputs: dict[str, str]
    outputs: dict[str, str]
    hears: Callable[[dict[str, Any]], None] = _nobody


class Worker:
    """A confined process that serves one session in one module."""

    def __init__(self, number: int, owner: Owner, stream: socket.socket, log: int, limit: int) -> None:
        self.number, self.owner = number, owner
        self.idle_since = 0.0
        self.pid = 0  # as this process sees it
        self.usage: Usage | None = None  # of its last run, as it says itself
        self.reason = ""  # why it is being killed, where that is not its own doing
        self.layers: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._log: int | None = log
        self._spent = False  # libraries in it count on processes that were ended with its last run
        self._decoder = frames.Decoder(limit)
        self._ending: Outcome | None = None  # decided by us while the process is being ended
        self._task: Task | None = None
        self._done: asyncio.Future[Outcome] | None = None
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self.ready: asyncio.Future[int] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._stream = stream
        stream.setblocking(False)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._loop.add_reader(stream, self._hello)
        os.set_blocking(log, False)
        self._loop.add_reader(log, self._printed)
        self._transport: asyncio.WriteTransport | None = None

    @property
    def alive(self) -> bool:
        """Whether it can take a run."""
        return not (self.gone.done() or self._spent or self._ending is not None or self._transport is None)

    def _hello(self) -> None:
        """The first frame, which comes with the kernel's word for who sent it."""
        try:
            data, ancillary, _, _ = self._stream.recvmsg(65536, socket.CMSG_SPACE(CREDENTIALS.size))
            (message,) = self._decoder.feed(data)
            pid = next(CREDENTIALS.unpack(part)[0] for _, kind, part in ancillary if kind == socket.SCM_CREDENTIALS)
        except (OSError, ValueError, StopIteration, frames.FrameError):
            self._loop.remove_reader(self._stream)
            self._doubt("it did not come up")
            return
        self._loop.remove_reader(self._stream)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        self.layers = tuple(str(layer) for layer in message.get("layers", ()))
        self._connecting = self._loop.create_task(self._connect(pid))

    async def _connect(self, pid: int) -> None:
        self.pid = pid
        await self._loop.create_unix_connection(lambda: _Stream(self), sock=self._stream)
        if not self.ready.done():
            self.ready.set_result(pid)

    async def run(self, task: Task) -> Outcome:
        """Give it a run and wait for the end, whichever it is. Afterwards look at `alive`."""
        self._task, self._done, self.usage = task, self._loop.create_future(), None
        message = {"op": "run", "run": task.run, "method": task.method, "params": task.params}
        self.send({**message, "input": task.inputs, "output": task.outputs})
        limit = self._loop.call_later(task.timeout, self.end, TimedOut(task.timeout))
        try:
            outcome = await self._done
        finally:
            limit.cancel()
            self._printed()
            task.output.close()
            self._task = self._done = None
        return outcome

    async def describe(self) -> dict[str, Any]:
        """What the module says of itself, in a worker that imports it here."""
        self._answer = self._loop.create_future()
        self.send({"op": "describe"})
        return await self._answer

    def send(self, message: dict[str, Any]) -> None:
        """One frame to the worker."""
        if self._transport is not None:
            self._transport.write(frames.encode(message))

    def end(self, outcome: Outcome, *, at_once: bool = False) -> None:
        """Begin the kill ladder: the flag to stop, SIGTERM, SIGKILL after the method's grace, the zygote at last."""
        if self._ending is None and not self.gone.done():
            self._ending = outcome
            grace = self._task.grace if self._task is not None and not at_once else 0
            self._ladder = self._loop.create_task(self._climb(grace))

    def cancel(self, reason: str) -> None:
        """End the run for its caller."""
        self.end(Cancelled(reason))

    async def _climb(self, grace: float) -> None:
        if grace:
            self.send({"op": "cancel"})
            self.owner.signal(self.number, signal.SIGTERM)
            if await self._ends_within(grace):
                return
        self.kill()
        if not await self._ends_within(LAST_WORDS):
            self.owner.destroy()

    async def _ends_within(self, seconds: float) -> bool:
        waits: list[asyncio.Future[Any]] = [self.gone]
        if self._done is not None:
            waits.append(self._done)
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        self.owner.signal(self.number, signal.SIGKILL)

    def ended(self, status: int) -> None:
        """The zygote's word that it and its whole tree are gone; `status` as of waitpid(2)."""
        if self.gone.done():
            return
        self.gone.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(ChildProcessError(f"the worker process did not come up (status {status})"))
            self.ready.exception()
        self._finish(self._ending or self._crash(status))
        self._close()

    def _crash(self, status: int) -> Crashed:
        if os.WIFSIGNALED(status):
            return Crashed(signal=os.WTERMSIG(status), reason=self.reason)
        return Crashed(exit_code=os.waitstatus_to_exitcode(status), reason=self.reason)

    def _finish(self, outcome: Outcome) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(outcome)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ChildProcessError("the worker process died"))

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        else:
            self._loop.remove_reader(self._stream)
            self._stream.close()
        if self._log is not None:
            self._printed()
            self._loop.remove_reader(self._log)
            os.close(self._log)
            self._log = None

    def hear(self, data: bytes) -> None:
        """Bytes from the worker."""
        try:
            for message in self._decoder.feed(data):
                self._heard(message)
        except (frames.FrameError, KeyError, TypeError, ValueError, AttributeError) as error:
            self._doubt(f"it broke the protocol: {error}")

    def _heard(self, message: dict[str, Any]) -> None:
        if "done" in message and self._done is not None and self._task is not None:
            if not self._done.done():
                self.usage = usage_of(message.get("usage"))
                self._done.set_result(self._ending or outcome_of(message, self._task))
                if self._ending is not None:
                    self.kill()
        elif "spent" in message:
            self._spent = True
        elif "progress" in message:
            if self._task is not None:
                self._task.hears(progress_of(message["progress"]))
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
        else:
            raise ValueError("a frame that nobody asked for")

    def lost(self) -> None:
        """The worker closed its socket: it is dead, or as good as dead."""
        if not self.gone.done():
            self._loop.call_later(LAST_WORDS / 4, self._doubt, "it closed its socket")

    def _doubt(self, reason: str) -> None:
        if not self.gone.done():
            self.reason = self.reason or reason
            self.end(Crashed(signal=signal.SIGKILL, reason=self.reason), at_once=True)

    def _printed(self) -> None:
        """Output is there: keep it with the run, or count it."""
        if self._log is None:
            return
        try:
            for _ in range(READS):
                if not (data := os.read(self._log, WIDE_PIPE)):
                    self._loop.remove_reader(self._log)  # every writer has gone
                    return
                if self._task is not None:
                    self._task.output.write(data)
                if self._task is None or self._task.output.full:
                    self._flooded()
                    return
        except BlockingIOError:
            return

    def _flooded(self) -> None:
        """What comes now is only counted: look from time to time instead of at every byte."""
        if self._log is not None:
            self._loop.remove_reader(self._log)  # uvloop does not say whether there was one
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._log, fcntl.F_SETPIPE_SZ, WIDE_PIPE)
            self._loop.call_later(DRAIN_PAUSE, self._again)

    def _again(self) -> None:
        if self._log is not None:
            self._loop.add_reader(self._log, self._printed)


class _Stream(asyncio.Protocol):
    """Hands a worker's bytes on."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.worker._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.worker.hear(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.worker.lost()


def progress_of(report: dict[str, Any]) -> dict[str, Any]:
    """A report of progress as it is shown. Raises for one that is none."""
    fraction = float(report["fraction"])
    if not 0 <= fraction <= 1:
        raise ValueError("progress beyond its bounds")
    return {"fraction": fraction, "message": str(report["message"])[:MOST_TOLD]}


def usage_of(told: Any) -> Usage | None:
    """What a worker says that its run used: microseconds, bytes, bytes, bytes. None where it says nothing of use."""
    match told:
        case [int(cpu), int(peak), int(read), int(written)] if all(0 <= each < 2**62 for each in told):
            return Usage(cpu / 1e6, peak, read, written)
    return None


def outcome_of(message: dict[str, Any], task: Task) -> Outcome:
    """What a worker's last frame of a run says. Raises for one that says nothing known."""
    match message:
        case {"done": "returned", "result": result, "messages": list(messages)}:
            return Completed(result, tuple(str(text) for text in messages))
        case {"done": "refused", "errors": list(errors)}:
            first = f"{'.'.join(map(str, errors[0]['loc']))}: {errors[0]['msg']}" if errors else "refused"
            return Failed(InvalidParams(first, errors=errors))
        case {"done": "raised", "type": str(kind), "message": str(text), **more}:
            known = {name: more[name] for name in ("traceback", "exit_code") if more.get(name) not in (None, "")}
            how = "returned what is no JSON" if more.get("not_json") else "raised"
            return Failed(ExecFailed(f"{task.method} {how}: {kind}: {text}", type=kind, message=text, **known))
        case {"done": "too_large", "size": int(size), "limit": int(limit)}:
            told = f"a result of {size} bytes, the limit is {limit} (DATAPROC_RESULT_MAX); write it to a session file"
            return Failed(TooLarge(told, limit=limit, size=size))
        case {"done": "broken", "reason": str(reason)}:
            return Failed(ExecFailed(f"the module cannot be imported: {reason}", type="ModuleBroken", message=reason))
    raise ValueError(f"an unknown end of a run: {json.dumps(message)[:80]}")
