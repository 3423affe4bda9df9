"""What a store of sessions' usage promises to the servers that share it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select

from dataproc.clock import ManualClock
from dataproc.database.tables import session_usage
from dataproc.database.usage import DatabaseUsages
from dataproc.storage.usage.usages import MemoryUsages, Usages
from dataproc.types import Principal, Usage
from tests.houses import open_house


class UsagesContract:
    """`usages` is a store without notes, `opened` a new session of a key, `ended` what becomes of one."""

    usages: Usages

    async def opened(self, key: str) -> str:
        raise NotImplementedError

    async def ended(self, session: str) -> None:
        raise NotImplementedError

    def key(self, name: str) -> str:
        raise NotImplementedError

    async def test_sums_by_key(self) -> None:
        """What is noted last counts, for the session's key, but for sessions that are left out."""
        one, two, other = await self.opened("a"), await self.opened("a"), await self.opened("b")
        await self.usages.note({one: Usage(5, 1), two: Usage(7, 2), other: Usage(100, 3)})
        await self.usages.note({one: Usage(6, 1)})
        a, b = self.key("a"), self.key("b")
        assert await self.usages.sums([a, b], []) == {a: Usage(13, 3), b: Usage(100, 3)}
        assert await self.usages.sums([a], [one, "unknown"]) == {a: Usage(7, 2)}
        assert await self.usages.sums([a], [one, two]) == {}
        assert await self.usages.sums([], []) == {}
        assert await self.usages.of(one) == Usage(6, 1)

    async def test_an_end_gives_it_back(self) -> None:
        """A session that is over takes nothing, is told to be over, and cannot be noted again."""
        session, stays = await self.opened("a"), await self.opened("a")
        await self.usages.note({session: Usage(5, 1), stays: Usage(1, 1)})
        assert await self.usages.over([session, stays, "unknown"]) == set()
        await self.ended(session)
        assert await self.usages.over([session, stays, "unknown"]) == {session}
        await self.usages.note({session: Usage(5, 1), "unknown": Usage(5, 1)})
        assert await self.usages.sums([self.key("a")], []) == {self.key("a"): Usage(1, 1)}
        assert await self.usages.of(session) == Usage()

    async def test_missing(self) -> None:
        """Sessions without a note are found in pages; to add changes nothing where there is one."""
        sessions = sorted([await self.opened("a") for _ in range(5)])
        first = await self.usages.missing("", 3)
        assert first + await self.usages.missing(first[-1], 3) == sessions
        await self.usages.note({sessions[0]: Usage(5, 1)})
        await self.usages.add({sessions[0]: Usage(9, 9), sessions[1]: Usage(7, 2)})
        await self.ended(sessions[2])
        assert await self.usages.missing("", 10) == sessions[3:]
        assert await self.usages.sums([self.key("a")], []) == {self.key("a"): Usage(12, 3)}


class TestMemoryUsages(UsagesContract):
    """The double."""

    @pytest.fixture(autouse=True)
    def _usages(self) -> None:
        self.usages = self.memory = MemoryUsages()

    def key(self, name: str) -> str:
        return name

    async def opened(self, key: str) -> str:
        session = str(uuid.uuid4())
        self.memory.keys[session] = key
        return session

    async def ended(self, session: str) -> None:
        del self.memory.keys[session]


class TestDatabaseUsages(UsagesContract):
    """Rows of a database."""

    @pytest.fixture(autouse=True)
    async def _usages(self, database_url: str) -> AsyncIterator[None]:
        self.callers: dict[str, Principal] = {}
        self.clock = ManualClock()
        async with open_house(database_url, self.clock) as self.house:
            self.usages = DatabaseUsages(self.house.database)
            self.url = database_url
            yield

    def key(self, name: str) -> str:
        return self.callers[name].key

    async def opened(self, key: str) -> str:
        if key not in self.callers:
            self.callers[key] = await self.house.caller(await self.house.keys.create(key))
        return (await self.house.sessions.open(self.callers[key])).session.id

    async def ended(self, session: str, grace: float = 0) -> None:
        await self.house.sessions.begin_end(session, "closed")
        await self.house.sessions.finish_end(session, grace)

    async def rows(self) -> int:
        counted = select(func.count()).select_from(session_usage)
        return await self.house.database.read(lambda connection: connection.execute(counted).scalar_one())

    async def test_nothing_is_left_of_an_end(self) -> None:
        """The row goes with the session's end, whichever of the two ways it ends."""
        one, two = await self.opened("a"), await self.opened("a")
        await self.usages.note({one: Usage(5, 1), two: Usage(5, 1)})
        await self.ended(one)
        closing = await self.house.sessions.begin_end(two, "closed")
        assert await self.usages.sums([self.key("a")], []) == {}
        assert closing is not None
        await self.house.sessions.finish_end_all([closing])
        assert await self.rows() == 0

    async def test_what_is_kept_counts(self) -> None:
        """A session that can be restored takes what it took, until its files are deleted."""
        session = await self.opened("a")
        await self.usages.note({session: Usage(5, 1)})
        await self.ended(session, grace=60)
        assert await self.usages.over([session]) == set()
        assert await self.usages.sums([self.key("a")], []) == {self.key("a"): Usage(5, 1)}
        self.clock.advance(61)
        assert await self.house.sessions.begin_scrap(session)
        await self.house.sessions.finish_scrap(session)
        assert await self.rows() == 0

    async def test_two_servers_note_at_once(self) -> None:
        """Notes of the same sessions by two servers both succeed, in whatever order they come."""
        sessions = [await self.opened("a") for _ in range(50)]
        async with open_house(self.url) as beside:
            other = DatabaseUsages(beside.database)
            for size in range(1, 9):
                here = dict.fromkeys(sessions, Usage(size, 1))
                there = dict.fromkeys(reversed(sessions), Usage(size, 1))
                await asyncio.gather(self.usages.note(here), other.note(there), self.usages.add(here), other.add(there))
        assert await self.usages.sums([self.key("a")], []) == {self.key("a"): Usage(8 * 50, 50)}
