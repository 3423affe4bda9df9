"""What is counted for a key: each session once, whoever watches it, and without waiting for the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dataproc.errors import StorageUnavailable
from dataproc.storage import Tree, Usage
from dataproc.storage.folders import Folders
from dataproc.storage.usage.counting import count_missing, walked
from dataproc.storage.usage.limits import Limits
from dataproc.storage.usage.observing import Observed
from dataproc.storage.usage.quotas import Quotas
from dataproc.storage.usage.usages import MemoryUsages

LIMITS = Limits(10**9, 10**6, 100_000, 100, 0, 600.0)
SESSIONS = [f"5e551011-0000-4000-8000-{number:012}" for number in range(4)]


@dataclass
class Store(MemoryUsages):
    """Usages that may be out of reach: whoever asks then waits, or is refused."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    down: bool = False

    async def _answer(self) -> None:
        if self.down:
            raise StorageUnavailable("the database does not answer; try again")
        await self.open.wait()

    async def note(self, taken: Mapping[str, Usage]) -> None:
        await self._answer()
        await super().note(taken)

    async def of(self, session_id: str) -> Usage:
        await self._answer()
        return await super().of(session_id)

    async def sums(self, keys: Collection[str], but: Collection[str]) -> dict[str, Usage]:
        await self._answer()
        return await super().sums(keys, but)


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[list[Tree]]:
    folders = Folders(tmp_path / "storage", None, False)
    yield [folders.make(session) for session in SESSIONS]
    folders.trash.close()


@pytest.fixture
def store() -> Store:
    made = Store(keys=dict.fromkeys(SESSIONS, "key"))
    made.open.set()
    return made


@pytest.fixture
async def servers(tmp_path: Path, store: Store) -> AsyncIterator[tuple[Quotas, Quotas]]:
    async with AsyncExitStack() as stack:
        made = [Quotas(LIMITS, tmp_path, store) for _ in range(2)]
        for each in made:
            stack.push_async_callback(each.close)
        yield made[0], made[1]
        store.down = False


async def run(quotas: Quotas, number: int, tree: Tree, size: int) -> int | None:
    """A run that writes so much; what its key takes, where that is too much."""
    async with Observed(quotas, await quotas.watch(SESSIONS[number], tree, "key")) as seen:
        (tree.files / "a").write_bytes(bytes(size))
        error = (await seen.end())[1]
    return None if error is None else int(error.data["used"])


def taken(quotas: Quotas) -> int:
    """What a server takes the key's use for."""
    error = quotas.keys.exceeded("key", Usage(10**12, 0))
    assert error is not None
    return int(error.data["used"]) - 10**12


async def test_a_session_counts_once(servers: tuple[Quotas, Quotas], trees: list[Tree]) -> None:
    """A session that both servers watch is no more than it is, whoever writes, and in whatever order they look."""
    here, there = servers
    for size in (5000, 45_000, 20_000):
        assert await run(here, 0, trees[0], size) is None
        assert await run(there, 0, trees[0], size + 1) is None
        assert await run(here, 1, trees[1], size) is None
        for each in (here, there, here, there):
            await each.keys.refresh()
        await here.usage(SESSIONS[0], trees[0])
        here.exceeded(await here.watch(SESSIONS[0], trees[0], "key"))
        assert (taken(here), taken(there)) == (2 * size + 1, 2 * size + 1)
        for number in (0, 1):
            assert await run(here, number, trees[number], 0) is None


async def test_what_is_watched_no_longer_still_counts(servers: tuple[Quotas, Quotas], trees: list[Tree]) -> None:
    """A session that rests here counts at every moment: before, during and after the hand-over to what is noted."""
    here, there = servers
    assert await run(here, 0, trees[0], 60_000) is None
    assert await run(here, 1, trees[1], 1) is None
    here.left(SESSIONS[0])
    assert taken(here) == 60_001
    await here.keys.refresh()
    assert taken(here) == 60_001
    assert await run(here, 0, trees[0], 50_000) is None  # and counts once when it is back
    assert taken(here) == 50_001
    assert await run(there, 2, trees[2], 60_000) == 60_000 + 60_001  # as noted: the last second is not known there
    await here.keys.note()
    await there.keys.refresh()
    assert taken(there) == 60_000 + 50_001


async def test_an_end_elsewhere(servers: tuple[Quotas, Quotas], trees: list[Tree], store: Store) -> None:
    """A session that another server ended counts no more, though it is watched here."""
    here, _ = servers
    assert await run(here, 0, trees[0], 60_000) is None
    assert await run(here, 1, trees[1], 1) is None
    await here.keys.note()
    del store.keys[SESSIONS[0]]
    await here.keys.refresh()
    assert taken(here) == 1


async def test_decisions_do_not_wait(servers: tuple[Quotas, Quotas], trees: list[Tree], store: Store) -> None:
    """Once a session is watched, its runs are judged without the store, however long that takes to answer."""
    here, there = servers
    assert await run(there, 1, trees[1], 50_000) is None
    await there.keys.note()
    assert await run(here, 0, trees[0], 10) is None
    store.open.clear()
    asking = asyncio.create_task(here.keys.refresh())
    await asyncio.sleep(0)
    assert await asyncio.wait_for(run(here, 0, trees[0], 60_000), 10) == 110_000
    assert not asking.done()
    store.open.set()
    await asking
    assert taken(here) == 110_000


async def test_a_store_that_fails(servers: tuple[Quotas, Quotas], trees: list[Tree], store: Store) -> None:
    """Runs go on by what is known; what was to be noted is noted, and what was to be known is known, afterwards."""
    here, there = servers
    assert await run(there, 1, trees[1], 50_000) is None
    await there.keys.note()
    store.down = True
    assert await run(here, 0, trees[0], 60_000) is None
    with pytest.raises(StorageUnavailable):
        await here.keys.refresh()
    store.down = False
    await here.keys.refresh()
    assert taken(here) == 110_000
    assert store.noted[SESSIONS[0]] == Usage(60_000, 1)
    assert await run(here, 0, trees[0], 60_001) == 110_001


async def test_notes_come_within_the_second(servers: tuple[Quotas, Quotas], trees: list[Tree], store: Store) -> None:
    """What is written, by a run or between runs, is noted soon."""
    here, _ = servers
    keeping = asyncio.create_task(here.keep())
    await run(here, 0, trees[0], 10)
    async with asyncio.timeout(30):
        for size in (10, 20, 5):
            (trees[0].files / "a").write_bytes(bytes(size))
            while store.noted.get(SESSIONS[0]) != Usage(size, 1):  # noqa: ASYNC110 - as others see it
                await asyncio.sleep(0.01)
    keeping.cancel()


async def test_uncounted_sessions(trees: list[Tree], store: Store) -> None:
    """Sessions without a note are counted, what is noted stays, and one that cannot be looked at stops nothing."""
    (trees[0].files / "d").mkdir()
    (trees[0].files / "d" / "a").write_bytes(bytes(100))
    (trees[2].locks / "a").write_bytes(bytes(7))
    store.noted[SESSIONS[1]] = Usage(5, 5)

    async def measure(session: str) -> Usage:
        if session == SESSIONS[3]:
            raise StorageUnavailable("a disk that fails")
        return walked(trees[SESSIONS.index(session)])

    await count_missing(store, measure)
    assert store.noted == dict(zip(SESSIONS, [Usage(100, 2), Usage(5, 5), Usage(7, 1)], strict=False))
