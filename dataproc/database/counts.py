"""How many sessions each key holds open, without asking the database at each opening."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dataproc.database.core import Database
from dataproc.database.statements import count_open
from dataproc.errors import Overloaded

TRUSTED = 30.0  # seconds; other servers open and end sessions too
RETRIED = 1.0  # seconds; a count that refuses is not older


def too_many(used: int, limit: int) -> Overloaded:
    """The error of a key that has as many sessions open as it may."""
    return Overloaded(
        f"the key has {used} sessions open, and may have {limit}: close some first",
        limit=limit,
        used=used,
        retry_after=60,
    )


@dataclass(slots=True)
class _Count:
    open: int = 0
    opening: int = 0
    counted_at: float = float("-inf")


class OpenCounts:
    """Exact for what this process opens; what other processes do is seen when it counts anew."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[str, _Count] = {}
        self._counting = asyncio.Lock()

    async def reserve(self, key: str, limit: int) -> None:
        """Take a place for a session of that key. Raises Overloaded where `limit` are open."""
        count = self._counts.setdefault(key, _Count())
        if not self._believed(count, limit):
            async with self._counting:
                if not self._believed(count, limit):
                    count.open = await self._database.read(lambda connection: count_open(connection, key))
                    count.counted_at = self._database.clock.monotonic()
        used = count.open + count.opening
        if used >= limit:
            raise too_many(used, limit)
        count.opening += 1

    def _believed(self, count: _Count, limit: int) -> bool:
        age = self._database.clock.monotonic() - count.counted_at
        return age < (TRUSTED if count.open + count.opening < limit else RETRIED)

    def settle(self, key: str, opened: bool) -> None:
        """Give the place back, or fill it."""
        count = self._counts[key]
        count.opening -= 1
        count.open += opened

    def opened(self, key: str) -> None:
        """A session of that key was opened without a place."""
        self._counts.setdefault(key, _Count()).open += 1

    def ended(self, key: str) -> None:
        """A session of that key was ended here."""
        if count := self._counts.get(key):
            count.open -= 1
