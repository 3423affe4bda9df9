"""The server's end of one zygote: describe its module, have it fork workers, learn of their deaths."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import deque
from typing import Any

from dataproc.engine import frames
from dataproc.engine.decoder import Decoder
from dataproc.engine.worker import Worker

CONTROL_LIMIT = 16 * 2**20
TAIL = 16 * 2**10  # bytes of what a zygote printed that are kept for the message when it dies


class ZygoteProcess:
    """A zygote that the keeper has started; `gone` once it and all below it have ended."""

    def __init__(self, number: int, control: socket.socket, log: int) -> None:
        self.number = number
        self.workers: dict[int, Worker] = {}
        self.idle_since = time.monotonic()  # when it last had a worker
        self.status: int | None = None
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._described: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._decoder = Decoder(CONTROL_LIMIT)
        self._tail: deque[int] = deque(maxlen=TAIL)
        self._control, self._log = control, log
        control.setblocking(False)
        os.set_blocking(log, False)
        self._loop.add_reader(control, self._readable)
        self._loop.add_reader(log, self._printed)
        self.kill_by: Any = None  # set by the pool: asks the keeper

    @property
    def alive(self) -> bool:
        """Whether it can be asked for anything."""
        return not self.gone.done()

    @property
    def last_words(self) -> str:
        """The end of what it printed."""
        if self.alive:
            self._printed()
        return bytes(self._tail).decode("utf-8", "replace").strip()

    def tell(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Send a frame. A zygote that takes none is stuck, and ended: the server never waits for one."""
        try:
            frames.send(self._control, message, descriptors)
        except OSError:
            self.destroy()

    async def describe(self, within: float) -> dict[str, Any]:
        """The module's description, or why it is broken. ChildProcessError if the zygote dies or hangs over it."""
        self.tell({"op": "describe"})
        waits: list[asyncio.Future[Any]] = [self._described, self.gone]
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if self._described.done():
            return self._described.result()
        if self.alive:
            self.destroy()
            raise ChildProcessError(f"its import did not end within {within:g} s\n{self.last_words}")
        raise ChildProcessError(f"its process died at import ({how(self.status)})\n{self.last_words}")

    def spawn(self, worker: Worker, message: dict[str, Any], descriptors: list[int]) -> None:
        """Have a worker forked for a session."""
        self.workers[worker.number] = worker
        self.tell({"op": "spawn", "worker": worker.number, **message}, descriptors)

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to a worker: SIGKILL to its whole tree."""
        self.tell({"op": "kill", "worker": worker, "signal": number})

    def destroy(self) -> None:
        """End it, and with it all below it."""
        if self.alive and self.kill_by is not None:
            self.kill_by(self.number)

    def _readable(self) -> None:
        try:
            data = self._control.recv(2**18)
            for message in self._decoder.feed(data):
                self._heard(message)
        except BlockingIOError:
            return
        except (OSError, frames.FrameError, KeyError, TypeError):
            data = b""
        if not data:
            self._loop.remove_reader(self._control)
            self.destroy()

    def _heard(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "described" if not self._described.done():
                self._described.set_result(message)
            case "exit":
                if (worker := self.workers.pop(message["worker"], None)) is not None:
                    self.idle_since = time.monotonic()
                    worker.ended(int(message["status"]))
            case "failed":
                if (worker := self.workers.pop(message["worker"], None)) is not None:
                    worker.reason = str(message["reason"])[:500]
                    worker.ended(signal.SIGKILL)

    def _printed(self) -> None:
        try:
            data = os.read(self._log, 65536)
        except BlockingIOError:
            return
        self._tail.extend(data)
        if not data:
            self._loop.remove_reader(self._log)

    def ended(self, status: int) -> None:
        """The keeper's word that it is gone, and all its workers with it."""
        if self.gone.done():
            return
        self._printed()
        self.status = status
        self.gone.set_result(None)
        for worker in list(self.workers.values()):
            worker.ended(signal.SIGKILL)
        self.workers.clear()
        self._loop.remove_reader(self._control)
        self._loop.remove_reader(self._log)
        self._control.close()
        os.close(self._log)


def how(status: int | None) -> str:
    """A wait status in words."""
    if status is None:
        return "unknown"
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
