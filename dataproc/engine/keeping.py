"""The server's end of the keeper: started once, asked for zygotes and mounts, listened to for news of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from dataproc.engine import frames
from dataproc.errors import InternalError

START_TIMEOUT = 30.0


class KeeperGoneError(InternalError):
    """The keeper has ended, and all workers with it."""


class KeeperProcess:
    """A running keeper. Events (`zygote_exit`, `memory`, `company`, and `gone` of our own) go to `on_event`."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[list[int]]] = {}
        self.namespaces = False
        self.why = ""

    async def start(self, *, namespaces: bool) -> None:
        """Start it; afterwards `namespaces` tells whether it has its own, and `why` not."""
        self._loop = asyncio.get_running_loop()
        self._socket, other = socket.socketpair()
        command = [sys.executable, "-I", "-m", "dataproc.engine.keeper", str(other.fileno())]
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - ours, and started in a few milliseconds, once
            [*command, "auto" if namespaces else "off"],
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is the server's to handle
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        )
        other.close()
        self._hello: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, self._readable)
        await asyncio.wait_for(self._hello, START_TIMEOUT)

    async def ask(self, message: dict[str, Any], descriptors: list[int] | None = None) -> list[int]:
        """Send a request and wait for its answer: descriptors. OSError with the keeper's words."""
        number = next(self._numbers)
        answer: asyncio.Future[list[int]] = self._loop.create_future()
        self._waiting[number] = answer
        self.tell({**message, "id": message.get("id", number), "reply": number}, descriptors)
        return await answer

    def tell(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Send what needs no answer."""
        try:
            frames.send(self._socket, message, descriptors)
        except OSError as error:
            raise KeeperGoneError("the keeper of the workers has ended; it is being started again") from error

    def _readable(self) -> None:
        try:
            got = frames.receive(self._socket)
        except (OSError, frames.FrameError):
            got = None
        if got is None:
            self._gone()
            return
        message, descriptors = got
        if (number := message.get("reply")) is not None:
            self._answered(self._waiting.pop(number, None), message, descriptors)
        elif message["event"] == "hello":
            self.namespaces, self.why = message["namespaces"], message["why"]
            self._hello.set_result(None)
        else:
            self._on_event(message)

    def _answered(
        self, answer: asyncio.Future[list[int]] | None, message: dict[str, Any], descriptors: list[int]
    ) -> None:
        if answer is None or answer.done():
            for descriptor in descriptors:
                os.close(descriptor)
        elif "error" in message:
            answer.set_exception(OSError(message["error"]))
        else:
            answer.set_result(descriptors)

    def _gone(self) -> None:
        self._loop.remove_reader(self._socket)
        lost = KeeperGoneError("the keeper of the workers has ended; it is being started again")
        if not self._hello.done():
            self._hello.set_exception(lost)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(lost)
        self._waiting.clear()
        self._socket.close()
        self._reaping = self._loop.create_task(self._reap())
        self._on_event({"event": "gone"})

    async def stop(self) -> None:
        """Close its socket: it ends, and with its PID namespace everything below it. Waits until that is done."""
        self._on_event = lambda event: None
        self._loop.remove_reader(self._socket)
        self._socket.close()
        await self._reap()

    async def _reap(self) -> None:
        try:
            await asyncio.wait_for(asyncio.to_thread(self._process.wait), 10)
        except TimeoutError:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
