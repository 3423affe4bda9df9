"""Answers of the database that are believed for a moment, and the ids that stopped being true meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dataproc.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Answer(Generic[V]):
    """What the database said, and for how many seconds at most it may be believed (None: as long as any)."""

    value: V
    good_for: float | None = None


class Fresh(Generic[K, V]):
    """A bounded cache. An answer's time counts from before it was asked for; who ask at once share one question."""

    def __init__(self, clock: Clock, seconds: float, size: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._size = size
        self._entries: dict[K, tuple[V, float]] = {}
        self._asking: dict[K, asyncio.Task[V]] = {}

    def get(self, key: K) -> V | None:
        """The answer, if there is one that may still be believed."""
        entry = self._entries.get(key)
        if entry is None or entry[1] <= self._clock.monotonic():
            return None
        return entry[0]

    def drop(self, key: K) -> None:
        """Believe nothing about `key`, not even what is being asked just now."""
        self._entries.pop(key, None)
        self._asking.pop(key, None)

    async def ask(self, key: K, question: Callable[[], Awaitable[Answer[V]]]) -> V:
        """Ask the database; errors of the question are the caller's and are not kept."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, question))
        return await asyncio.shield(task)

    async def _ask(self, key: K, question: Callable[[], Awaitable[Answer[V]]]) -> V:
        asked = self._clock.monotonic()
        task = asyncio.current_task()
        try:
            answer = await question()
        except BaseException:
            self._settled(key, task)
            raise
        if self._settled(key, task):
            seconds = self._seconds if answer.good_for is None else min(self._seconds, answer.good_for)
            self._put(key, answer.value, asked + seconds)
        return answer.value

    def _settled(self, key: K, task: asyncio.Task[V] | None) -> bool:
        """Whether the answer is still the one that is waited for: `drop` may have come between."""
        if self._asking.get(key) is not task:
            return False
        del self._asking[key]
        return True

    def _put(self, key: K, value: V, until: float) -> None:
        self._entries.pop(key, None)  # so that it is the newest again
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, until)


class Gone:
    """Ids of sessions, tokens and keys that ended in this process lately, and secrets that were replaced.

    Whoever believes a cached answer looks here first, so an end is seen at once without searching the caches. It is
    bounded: what it forgets has long left the caches, whose answers live a second.
    """

    SIZE = 20_000

    def __init__(self) -> None:
        self._ids: dict[Hashable, float] = {}
        self.turn = 0  # goes up with each end that the database has taken

    def __contains__(self, each: Hashable) -> bool:
        return each in self._ids

    def add(self, each: Hashable) -> None:
        """`each` is over from now on."""
        if len(self._ids) >= self.SIZE:
            del self._ids[next(iter(self._ids))]
        self._ids[each] = math.inf

    def taken(self, each: Hashable) -> None:
        """The database has it that `each` is over: what is read from now on and says otherwise is newer."""
        self.turn += 1
        if each in self._ids:
            self._ids[each] = self.turn

    def discard(self, each: Hashable) -> None:
        """`each` is not over after all."""
        self._ids.pop(each, None)

    def revive(self, each: Hashable, turn: int) -> None:
        """`each` lives, as was read after `turn`: another server brought it back, unless it was ended later."""
        if self._ids.get(each, -1) <= turn:
            self._ids.pop(each, None)
