"""The server's end of one worker: send it a run, wait for what becomes of it, and end it when in doubt.

What a worker says is hostile input: bounded frames, and anything unexpected costs it its life. That it has died is
told by its zygote, never by itself.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import struct
from typing import Any, Protocol

from dataproc.engine import frames
from dataproc.engine.decoder import Decoder
from dataproc.engine.output import Drain
from dataproc.engine.words import Task, order_of, outcome_of, progress_of, usage_of
from dataproc.runs import Crashed, Outcome, TimedOut, Usage

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SCM_CREDENTIALS
LAST_WORDS = 2.0  # seconds for a death to be reported after the socket closed, or after SIGKILL


class Owner(Protocol):
    """Who forked the worker and can end it."""

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to a worker: SIGKILL to its whole tree."""
        ...

    def destroy(self) -> None:
        """End the zygote, and with it all its workers."""
        ...


class Worker:
    """A confined process that serves one session in one module."""

    def __init__(self, number: int, owner: Owner, stream: socket.socket, log: int, limit: int) -> None:
        self.number, self.owner = number, owner
        self.idle_since = 0.0
        self.due = math.inf  # when its run is to end, by the loop's clock; the pool looks at it
        self.pid = 0  # as this process sees it
        self.usage: Usage | None = None  # of its last run, as it says itself
        self.reason = ""  # why it is being killed, where that is not its own doing
        self.layers: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._log = Drain(log)
        self._spent = False  # libraries in it count on processes that were ended with its last run
        self._decoder = Decoder(limit)
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
        self._log.output = task.output
        self._write(order_of(task))
        self.due = self._loop.time() + task.timeout
        try:
            outcome = await self._done
        finally:
            self.due = math.inf
            self._log.catch_up()
            self._log.output = None
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
        self._write(frames.encode(message))

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def end(self, outcome: Outcome, *, at_once: bool = False) -> None:
        """Begin the kill ladder: the flag to stop, SIGTERM, SIGKILL after the method's grace, the zygote at last."""
        if self._ending is None and not self.gone.done():
            self._ending = outcome
            grace = self._task.grace if self._task is not None and not at_once else 0
            self._ladder = self._loop.create_task(self._climb(grace))

    def time_out(self) -> None:
        """End the run: it had its time."""
        if self._task is not None:
            self.end(TimedOut(self._task.timeout))

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
        self._log.close()

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
