"""What a ledger of leases promises to the nodes that share it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dataproc.clock import ManualClock
from dataproc.database import Database
from dataproc.database.leases import DatabaseLeases
from dataproc.storage.object_store.leases import Leases, Ledger, MemoryLeases
from dataproc.types import Dropped, Elsewhere, Lease

SESSION = "5e551011-0000-4000-8000-000000000001"


async def taken(leases: Leases) -> Lease:
    """The lease of the session, which must be free."""
    lease = await leases.take(SESSION)
    assert isinstance(lease, Lease)
    return lease


class LeasesContract:
    """`node(name)` is one life of a server; leases last 15 s of `clock`."""

    clock: ManualClock

    def node(self, name: str) -> Leases:
        raise NotImplementedError

    async def test_one_has_it_until_it_runs_out(self) -> None:
        """Another is told who has it and for how long, and gets it, under a higher number, when that time is over."""
        here, there = self.node("here"), self.node("there")
        first = await taken(here)
        assert (first.fence, first.revision, first.published) == (1, None, None)
        self.clock.advance(5)
        told = await there.take(SESSION)
        assert isinstance(told, Elsewhere)
        assert 9 < told.seconds <= 10
        assert await there.find(SESSION) == told
        assert await here.find(SESSION) is None
        self.clock.advance(10.1)
        assert (await taken(there)).fence == 2
        assert isinstance(await here.take(SESSION), Elsewhere)

    async def test_what_the_files_are_now(self) -> None:
        """The current revision is told to anybody, without a lease; a session without files has none."""
        here, there = self.node("here"), self.node("there")
        assert await there.revision(SESSION) is None
        first = await taken(here)
        assert await there.revision(SESSION) is None
        assert await here.commit(SESSION, first.fence, "1-1")
        assert await there.revision(SESSION) == "1-1"
        await here.drop(SESSION)
        assert await there.revision(SESSION) is None

    async def test_who_has_it_goes_on(self) -> None:
        """Taking again, and renewing, keep the number and move the end."""
        here, there = self.node("here"), self.node("there")
        first = await taken(here)
        self.clock.advance(10)
        assert await here.renew({SESSION: first.fence, "unknown-session": 1}) == {
            SESSION: pytest.approx(first.until + 10)
        }
        self.clock.advance(10)
        assert isinstance(await there.take(SESSION), Elsewhere)
        assert (await taken(here)).fence == first.fence

    async def test_who_lost_it_changes_nothing(self) -> None:
        """Commits, renewals and releases under an old number have no effect."""
        here, there = self.node("here"), self.node("there")
        first = await taken(here)
        assert await here.commit(SESSION, first.fence, "1-1")
        self.clock.advance(16)
        second = await taken(there)
        assert second.revision == "1-1"
        assert not await here.commit(SESSION, first.fence, "1-2")
        assert not await here.commit(SESSION, second.fence, "2-2")
        assert not await here.publish(SESSION, first.fence, "1-1")
        assert await here.renew({SESSION: first.fence}) == {}
        await here.release({SESSION: first.fence})
        assert isinstance(await here.take(SESSION), Elsewhere)
        assert (await taken(there)).revision == "1-1"

    async def test_late_but_not_lost(self) -> None:
        """Under a lease that ran out, but that nobody took, a commit counts."""
        here = self.node("here")
        first = await taken(here)
        self.clock.advance(100)
        assert await here.commit(SESSION, first.fence, "1-1")
        assert await here.publish(SESSION, first.fence, "1-1")
        again = await taken(here)
        assert (again.revision, again.published) == ("1-1", "1-1")

    async def test_released_is_free_at_once(self) -> None:
        """Another takes it without waiting, under a higher number."""
        here, there = self.node("here"), self.node("there")
        first = await taken(here)
        await here.release({SESSION: first.fence})
        assert await there.find(SESSION) is None
        assert (await taken(there)).fence == 2

    async def test_dropped_is_nobodys(self) -> None:
        """No node gets it, whoever had it commits nothing, and it is listed until it is forgotten."""
        here, there = self.node("here"), self.node("there")
        first = await taken(here)
        await there.drop(SESSION)
        await there.drop(SESSION)
        self.clock.advance(3)
        assert isinstance(await here.take(SESSION), Dropped)
        assert not await here.commit(SESSION, first.fence, "1-1")
        assert await here.dropped() == [Dropped(SESSION, pytest.approx(3))]  # type: ignore[arg-type]
        await here.forget(SESSION)
        assert await there.dropped() == []

    async def test_never_taken_and_dropped(self) -> None:
        """A session that nobody had is dropped as well."""
        here = self.node("here")
        await here.drop(SESSION)
        assert isinstance(await here.take(SESSION), Dropped)


class TestMemoryLeases(LeasesContract):
    """The double."""

    @pytest.fixture(autouse=True)
    def _ledger(self) -> None:
        self.clock, self.ledger = ManualClock(), Ledger()

    def node(self, name: str) -> Leases:
        return MemoryLeases(self.ledger, self.clock, 15, name)


class TestDatabaseLeases(LeasesContract):
    """Rows of a database."""

    @pytest.fixture(autouse=True)
    async def _ledger(self, database_url: str) -> AsyncIterator[None]:
        self.clock = ManualClock()
        self.database = await Database.open(database_url, self.clock)
        yield
        await self.database.close()

    def node(self, name: str) -> Leases:
        return DatabaseLeases(self.database, 15, name, f"http://{name}")

    async def test_the_next_life_of_a_node(self) -> None:
        """What a server had before it was killed, it has again at once, under a higher number."""
        first = await taken(self.node("here"))
        assert (await taken(self.node("here"))).fence == first.fence + 1

    async def test_where_it_is(self) -> None:
        """Others are told where the holder takes requests."""
        await taken(self.node("here"))
        told = await self.node("there").find(SESSION)
        assert told is not None
        assert (told.node, told.url) == ("here", "http://here")
