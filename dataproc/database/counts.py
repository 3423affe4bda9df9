"""How many sessions each key holds open, without asking the database at each opening."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dataproc.database.core import Database
from dataproc.database.statements import count_open
from dataproc.errors import Overloaded
from dataproc.telemetry import METRICS

TRUSTED = 30.0  # seconds; other servers open and end sessions too
RETRIED = 1.0  # seconds; a count that refuses is not older


def refuse_above(limit: int, used: int, setting: str) -> None:
    """Raises Overloaded where `used` sessions are open and the setting allows `limit`."""
    if used >= limit:
        METRICS.rejected("open_sessions")
        whose = "the key has" if setting.endswith("_KEY") else "the server has"
        raise Overloaded(
            f"{whose} {used} sessions open, and may have {limit} ({setting}): close some first",
            bound="open_sessions",
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
        self._counts: dict[str | None, _Count] = {}  # None: of all keys
        self._counting = asyncio.Lock()

    async def reserve(self, key: str, limit: int, total: int) -> None:
        """Take a place for a session of that key. Raises Overloaded where `limit` of it are open, or `total` in all."""
        own, all_of_them = await self._counted(key, limit), await self._counted(None, total)
        refuse_above(limit, own.open + own.opening, "DATAPROC_MAX_SESSIONS_PER_KEY")
        refuse_above(total, all_of_them.open + all_of_them.opening, "DATAPROC_MAX_SESSIONS")
        own.opening += 1
        all_of_them.opening += 1

    async def _counted(self, key: str | None, limit: int) -> _Count:
        count = self._counts.setdefault(key, _Count())
        if not self._believed(count, limit):
            async with self._counting:
                if not self._believed(count, limit):
                    count.open = await self._database.read(lambda connection: count_open(connection, key))
                    count.counted_at = self._database.clock.monotonic()
        return count

    def _believed(self, count: _Count, limit: int) -> bool:
        age = self._database.clock.monotonic() - count.counted_at
        return age < (TRUSTED if count.open + count.opening < limit else RETRIED)

    def settle(self, key: str, opened: bool) -> None:
        """Give the place back, or fill it."""
        for count in (self._counts[key], self._counts[None]):
            count.opening -= 1
            count.open += opened

    def opened(self, key: str) -> None:
        """A session of that key was opened without a place."""
        for owner in (key, None):
            self._counts.setdefault(owner, _Count()).open += 1

    def ended(self, key: str) -> None:
        """A session of that key was ended here."""
        for owner in (key, None):
            if count := self._counts.get(owner):
                count.open -= 1
