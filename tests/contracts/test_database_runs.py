"""Records of runs among several servers, and on a disk that is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dataproc.clock import ManualClock
from dataproc.database import Database, RunStore
from dataproc.database.cancels import Cancels
from dataproc.database.idempotency import Claim, IdempotencyKeys
from dataproc.database.nodes import Nodes
from dataproc.database.runs import Wanted
from dataproc.errors import NotFound, StorageUnavailable
from dataproc.runs import Run, RunStatus
from dataproc.types import new_id

CLAIM = Claim("session", "key", b"d" * 32)


def a_run(**chosen: object) -> Run:
    known = {"id": new_id(), "key": "k", "session": "s", "module": "m", "method": "f", "node": "one"}
    return Run(**{**known, "created_at": datetime(2026, 1, 1, tzinfo=UTC), "submitted": True, **chosen})  # type: ignore[arg-type]


@asynccontextmanager
async def two_servers(url: str) -> AsyncIterator[tuple[Database, Database]]:
    clock = ManualClock()
    one, two = [await Database.open(url, clock) for _ in range(2)]
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
async def servers(database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """Two servers' views of one database."""
    async with two_servers(database_url) as servers:
        yield servers


@pytest.fixture
async def on_a_file(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """The same on SQLite."""
    async with two_servers(f"sqlite:///{tmp_path}/x.db") as servers:
        yield servers


async def test_a_key_is_claimed_once_by_all_servers(servers: tuple[Database, Database]) -> None:
    """Of many claims at once on two servers one succeeds; the others are told its run, which is on record."""
    keys = [IdempotencyKeys(each, 86400) for each in servers]
    runs = [a_run() for _ in range(20)]
    found = await asyncio.gather(*(keys[n % 2].claim(CLAIM, run) for n, run in enumerate(runs)))
    (winner,) = [run for run, known in zip(runs, found, strict=True) if known is None]
    assert {known.run for known in found if known is not None} == {winner.id}
    assert [run.id for run in await RunStore(servers[1]).page(Wanted(key="k"), 100)] == [winner.id]


async def test_a_cancel_is_asked_of_the_server_that_has_the_run(servers: tuple[Database, Database]) -> None:
    """Asked by any server, once or twice, also after another took the run over; what nobody can do is taken back."""
    cancels, runs = [Cancels(each) for each in servers], RunStore(servers[0])
    mine, theirs = a_run(), a_run(node="two")
    for run in (mine, theirs):
        await runs.record(run)
        await asyncio.gather(*(each.ask(run.id) for each in cancels))
    assert await cancels[0].asked_of("one") == [mine.id]
    await cancels[0].done([mine.id])
    assert await cancels[0].asked_of("one") == []
    adopted = await runs.adopt(theirs, "one", 1)
    assert adopted is not None
    assert await cancels[0].asked_of("one") == [theirs.id]
    await cancels[0].forget()
    assert await cancels[0].asked_of("one") == [theirs.id]
    await runs.interrupt([adopted])
    await cancels[0].forget()
    assert await cancels[0].asked_of("one") == []


async def test_a_key_lives_for_its_time(servers: tuple[Database, Database]) -> None:
    """After its time a key is new, and old ones are deleted."""
    keys, clock = IdempotencyKeys(servers[0], 100), servers[0].clock
    assert isinstance(clock, ManualClock)
    assert await keys.claim(CLAIM, a_run()) is None
    clock.advance(99)
    assert await keys.find(CLAIM) is not None
    assert await keys.forget(10) == 0
    clock.advance(1)
    assert await keys.find(CLAIM) is None
    assert await keys.claim(CLAIM, a_run()) is None
    clock.advance(100)
    assert await keys.forget(10) == 1


async def test_runs_of_a_dead_server_are_taken_up_once(servers: tuple[Database, Database]) -> None:
    """A server that is heard keeps its runs, whatever clocks say; of one that is not, one other takes each."""
    one, two = (RunStore(each) for each in servers)
    nodes, clock = Nodes(servers[0]), servers[0].clock
    assert isinstance(clock, ManualClock)
    run = a_run()
    await one.record(run)
    await nodes.beat("one")
    watching = Nodes(servers[1])
    assert await watching.dead(await two.unfinished_nodes(), 30) == set()
    clock.jump(86400)
    assert await watching.dead({"one"}, 30) == set()
    clock.advance(29)
    await nodes.beat("one")
    clock.advance(2)
    assert await watching.dead({"one"}, 30) == set()
    clock.advance(31)
    assert await watching.dead({"one"}, 30) == {"one"}
    (found,) = await two.left_by({"one"})
    taken = await asyncio.gather(one.adopt(found, "three", 1), two.adopt(found, "two", 1))
    assert len([each for each in taken if each is not None]) == 1
    assert await one.left_by({"one"}) == []
    await nodes.leave("one")
    assert await Nodes(servers[1]).dead({"one"}, 30) == {"one"}


async def test_a_full_disk_loses_no_record(on_a_file: tuple[Database, Database]) -> None:
    """A record that cannot be written is refused; one that nobody waits for is written when there is room again."""
    database = on_a_file[0]
    store = RunStore(database)

    async def bound(pages: str) -> None:
        await database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").all())

    await bound("1")  # no more than there are
    large = {"text": "x" * 2**20}
    waited_for, late = a_run(params=large), a_run(params=large, status=RunStatus.COMPLETED)
    with pytest.raises(StorageUnavailable):
        await store.record(waited_for)
    store.finish_late(late)
    assert (await store.get(late.id)) == late
    await bound("1000000")
    await store.settle()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await RunStore(on_a_file[1]).get(late.id) == late
                break
            except NotFound:
                await asyncio.sleep(0)
