"""Who runs now and who waits: a bounded number of runs, and a bounded queue that is fair between keys."""

from __future__ import annotations

import asyncio
from collections import deque

from dataproc.errors import Overloaded
from dataproc.settings import Settings

USUAL = 0.05  # seconds that a run takes, until some have been seen
LONGEST_WAIT = 60.0  # the most that `retry_after` says


class Admission:
    """Hands out `concurrent_runs` slots. Keys that wait take turns; within a key the first comes first."""

    def __init__(self, settings: Settings) -> None:
        self.slots = settings.concurrent_runs
        self.queue_limit = settings.queue_limit
        self.key_limit = max(1, int(settings.queue_limit * settings.queue_share)) if settings.queue_limit else 0
        self.running = self.waiting = 0
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}  # in the order of their turns
        self._usual = USUAL

    async def enter(self, key: str) -> None:
        """Take a slot, or wait for one. Overloaded where the queue, or the key's share of it, is full."""
        if self.running < self.slots and not self.waiting:
            self.running += 1
            return
        line = self._lines.get(key, ())
        self._refuse_above(self.queue_limit, self.waiting, "DATAPROC_QUEUE_LIMIT", "calls wait")
        self._refuse_above(self.key_limit, len(line), "DATAPROC_QUEUE_SHARE", "calls of this key wait")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(key, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(None)  # the slot was given and nobody is there to use it
            else:
                self._step_out(key, turn)
            raise

    def leave(self, took: float | None) -> None:
        """Give a slot back, to whoever's turn it is. took: seconds of the run, for the estimate of a wait."""
        if took is not None:
            self._usual += (took - self._usual) / 16
        self.running -= 1
        if self.waiting:
            key = next(iter(self._lines))
            line = self._lines.pop(key)
            turn = line.popleft()
            if line:
                self._lines[key] = line  # to the end of the turns
            self.waiting -= 1
            self.running += 1
            turn.set_result(None)

    def _step_out(self, key: str, turn: asyncio.Future[None]) -> None:
        self.waiting -= 1
        line = self._lines[key]
        line.remove(turn)
        if not line:
            del self._lines[key]

    def _refuse_above(self, limit: int, used: int, setting: str, what: str) -> None:
        if used >= limit:
            after = round(min(LONGEST_WAIT, max(1.0, self._usual * (self.waiting + 1) / self.slots)), 1)
            raise Overloaded(
                f"{used} {what}, the limit is {limit} ({setting}); try again in {after:g} s",
                limit=limit,
                used=used,
                retry_after=after,
            )
