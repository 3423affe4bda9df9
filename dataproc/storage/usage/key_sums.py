"""What the sessions of each key take together: those that are watched here as they are seen, the others as noted.

Each session counts once. While it is watched here what others noted of it is left out, and it leaves what is counted
here only together with a fresh look at what is noted. So the sums grow and shrink in one place, in one thread; the
store is asked when a session comes under watch, and every other second, never by who waits for a decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from dataproc.errors import DataprocError, QuotaExceeded
from dataproc.storage.usage.limits import NOTHING, Limits, over
from dataproc.storage.usage.usages import Usages
from dataproc.types import Usage

NOTED = 0.5  # seconds between two notes of what sessions take, where keys have a quota,
RARELY = 10.0  # and where they have none
REFRESHED = 2.0  # seconds between two looks at what was noted elsewhere

_log = structlog.get_logger("dataproc.storage")


class KeySums:
    """The sums of all keys that are in use here, against the limits; and the notes of what sessions take."""

    def __init__(self, limits: Limits, usages: Usages) -> None:
        self.limited = limits.key_bytes is not None or limits.key_files is not None
        self._limits = limits
        self._usages = usages
        self._counted: dict[str, tuple[str, Usage]] = {}  # by session: its key, and its use when last looked at
        self._sums: dict[str, Usage] = {}  # the same by key, summed up
        self._others: dict[str, Usage] = {}  # by key: all its other sessions, as noted
        self._reserved: dict[str, int] = {}  # by key: bytes of uploads under way
        self._resting: set[str] = set()  # counted, and no longer watched
        self._unnoted: dict[str, Usage] = {}
        self._lock = asyncio.Lock()  # sessions begin and cease to be counted, and notes are written, one after another
        self._refreshed = 0.0

    # -------------------------------------------------------------------------------------------- without waiting

    def knows(self, session: str) -> bool:
        """Whether `join` is not needed."""
        return not self.limited or (session in self._counted and session not in self._resting)

    def count(self, session: str, usage: Usage) -> None:
        """A session takes so much now."""
        self._unnoted[session] = usage
        if (known := self._counted.get(session)) is not None:
            key, before = known
            self._counted[session] = key, usage
            self._sums[key] = self._sums[key] + usage - before

    def rest(self, session: str) -> None:
        """A session is no longer watched here, and lives on."""
        if session in self._counted:
            self._resting.add(session)

    def drop(self, session: str) -> None:
        """A session takes nothing any more."""
        self._unnoted.pop(session, None)
        if session not in self._counted:
            self._refreshed = 0.0  # it is among the others: look again soon
        self._uncount(session)

    def _uncount(self, session: str) -> None:
        self._resting.discard(session)
        if (known := self._counted.pop(session, None)) is not None:
            key, usage = known
            self._sums[key] -= usage

    def reserve(self, key: str, size: int) -> None:
        """An upload takes so many bytes more, or gives them back, before a look at its session can see them."""
        self._reserved[key] = self._reserved.get(key, 0) + size
        if not self._reserved[key]:
            del self._reserved[key]

    def reserved(self, key: str) -> int:
        """The bytes of the key's uploads under way here."""
        return self._reserved.get(key, 0)

    def exceeded(self, key: str, more: Usage = NOTHING) -> QuotaExceeded | None:
        """The quota that the key's sessions would be above, if they took so much more."""
        limits = self._limits
        if not self.limited:
            return None
        taken = self._sums.get(key, NOTHING) + self._others.get(key, NOTHING) + more
        if limits.key_bytes is not None and taken.bytes > limits.key_bytes:
            return over("key_bytes", limits.key_bytes, taken.bytes)
        if limits.key_files is not None and taken.files > limits.key_files:
            return over("key_files", limits.key_files, taken.files)
        return None

    # ------------------------------------------------------------------------------------------- before the first use

    async def join(self, session: str, key: str, usage: Callable[[], Usage]) -> None:
        """A session of that key is watched here from now on. Asks the store; where that fails, `keep` does later."""
        async with self._lock:
            if session not in self._counted:
                try:
                    await self._load(session, key)
                except DataprocError as error:
                    _log.warning("storage.usage_not_known", key=key, reason=error.message)
                self._counted[session] = key, NOTHING
                self._sums.setdefault(key, NOTHING)
            self._resting.discard(session)
            self.count(session, usage())

    async def _load(self, session: str, key: str) -> None:
        if key in self._others:
            noted = await self._usages.of(session)
            left = self._others[key] - noted
            self._others[key] = Usage(max(0, left.bytes), max(0, left.files))  # it may have been noted since the look
        else:
            sums = await self._usages.sums([key], [*self._counted, session])
            self._others[key] = sums.get(key, NOTHING)

    # --------------------------------------------------------------------------------------------- in the background

    async def keep(self) -> None:
        """Until cancelled: note what sessions take, and look at what was noted elsewhere."""
        while True:
            await asyncio.sleep(NOTED if self.limited else RARELY)
            try:
                await self.note()
                if self.limited and time.monotonic() - self._refreshed >= REFRESHED:
                    await self.refresh()
            except Exception as error:
                _log.warning("storage.usage_not_noted", reason=f"{type(error).__name__}: {error}")

    async def note(self) -> None:
        """Have it noted what changed since last time. Raises StorageUnavailable; the next time tries again."""
        async with self._lock:
            await self._note()

    async def _note(self) -> None:
        taken, self._unnoted = self._unnoted, {}
        try:
            if taken:
                await self._usages.note(taken)
        except BaseException:
            self._unnoted = {**taken, **self._unnoted}
            raise

    async def refresh(self) -> None:
        """Take in what was noted elsewhere, and what was ended there. Raises StorageUnavailable."""
        async with self._lock:
            await self._note()
            self._refreshed = time.monotonic()
            resting = set(self._resting)
            live = self._counted.keys() - resting
            keys = {key for key, _ in self._counted.values()}
            sums = await self._usages.sums(keys, live) if keys else {}
            ended = await self._usages.over(live) if live else set()
            self._others = {key: sums.get(key, NOTHING) for key in keys}
            for session in resting | ended:
                self._uncount(session)
            self._sums = {key: self._sums[key] for key in keys}
