"""The reaper on a real database and real directories: sessions are seen to their end, each once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

from dataproc import reaper
from dataproc.database.statements import postpone_idleness
from dataproc.database.tables import runs, sessions
from dataproc.errors import NotFound, SessionEnded, StorageUnavailable
from dataproc.reaper import AT_ONCE, Reaper
from dataproc.runs import Run, RunStatus
from dataproc.sessions import Sessions
from dataproc.storage import Workspaces, open_workspaces
from dataproc.telemetry import Metrics
from dataproc.types import first_id_of, new_id
from tests.houses import House, open_house

DEADLINE = 20.0


class Runs:
    """What has runs under way: a test begins and ends them by hand."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._ended: dict[str, asyncio.Event] = {}
        self.asked: Counter[str] = Counter()
        self.waiting = asyncio.Event()
        self.calling = False

    def begin(self, session_id: str) -> None:
        self._sessions.enter(session_id)
        self._ended[session_id] = asyncio.Event()

    def finish(self, session_id: str) -> None:
        self._sessions.leave(session_id)
        self._ended.pop(session_id).set()

    async def quiesce(self, session_id: str, wait: float) -> None:
        self.asked[session_id] += 1
        if ended := self._ended.get(session_id):
            self.waiting.set()
            await ended.wait()


class World:
    """One server's reaper, with what it needs."""

    def __init__(self, house: House, storage: Path) -> None:
        self.house = house
        settings = house.settings.model_copy(update={"storage_url": str(storage)})
        self.workspaces: Workspaces = open_workspaces(settings)
        self.runs = Runs(house.sessions)
        self.reaper = Reaper(house.sessions, house.runs, self.runs, self.workspaces, settings, Metrics())

    async def session(self, name: str = "a", **options: object) -> tuple[str, Path]:
        """An open session with a file in its directory."""
        _, opened = await self.house.opened(name, **options)
        async with self.workspaces.of(opened.session.id).checkout() as tree:
            (tree.files / "kept.txt").write_text("x")
        return opened.session.id, tree.files

    async def state(self, session_id: str) -> str:
        found = await self.house.database.read(_states)
        return found[session_id]

    async def interrupt_runs(self) -> None:
        """No run on record is under way any more."""
        step = update(runs).values(status="interrupted")
        await self.house.database.write(lambda connection: connection.execute(step))

    async def until(self, question: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not await question():  # noqa: ASYNC110 - the background tells nobody what it did
                await asyncio.sleep(0.01)


def _states(connection: Connection) -> dict[str, str]:
    return {row.id: row.state for row in connection.execute(select(sessions.c.id, sessions.c.state))}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_house(tmp_path, max_sessions_per_key=100_000) as house:
        world = World(house, tmp_path / "storage")
        yield world
        await world.reaper.stop()


async def test_an_end_is_whole_when_it_returns(world: World) -> None:
    """The directory is out of reach and the tombstone is there."""
    session_id, files = await world.session()
    await world.reaper.end(session_id, "closed")
    assert not files.exists()
    assert await world.state(session_id) == "ended"


async def test_ending_what_is_over_is_no_error(world: World) -> None:
    """Unknown and ended sessions."""
    session_id, _ = await world.session()
    await world.reaper.end("00000000-0000-4000-8000-000000000000", "closed")
    await world.reaper.end(session_id, "closed")
    await world.reaper.end(session_id, "closed")
    assert world.runs.asked == {session_id: 1}


async def test_an_end_waits_for_the_runs(world: World) -> None:
    """While a run is under way its directory stays; no new one begins."""
    session_id, files = await world.session()
    world.runs.begin(session_id)
    ending = asyncio.create_task(world.reaper.end(session_id, "closed"))
    await asyncio.wait_for(world.runs.waiting.wait(), DEADLINE)
    assert (files / "kept.txt").exists()
    assert await world.state(session_id) == "closing"
    with pytest.raises(SessionEnded):
        world.runs.begin(session_id)
    world.runs.finish(session_id)
    await asyncio.wait_for(ending, DEADLINE)
    assert not files.exists()


async def test_many_who_end_it_wait_for_one_end(world: World) -> None:
    """Nobody returns early; one that goes away does not stop it."""
    session_id, files = await world.session()
    world.runs.begin(session_id)
    callers = [asyncio.create_task(world.reaper.end(session_id, "closed")) for _ in range(5)]
    await asyncio.wait_for(world.runs.waiting.wait(), DEADLINE)
    callers[0].cancel()
    assert not any(each.done() for each in callers[1:])
    world.runs.finish(session_id)
    await asyncio.wait_for(asyncio.gather(*callers[1:]), DEADLINE)
    assert not files.exists()
    assert world.runs.asked == {session_id: 1}


async def test_due_sessions_end_in_the_background(world: World) -> None:
    """When the clock has run out, soon, with its reason."""
    session_id, files = await world.session(expires_in=10)
    await world.reaper.start()
    world.house.clock.advance(10)

    async def ended() -> bool:
        return await world.state(session_id) == "ended"

    await world.until(ended)
    assert not files.exists()


async def test_a_session_that_is_not_due_is_left_alone(world: World) -> None:
    """A jump of the wall clock does not make it due."""
    session_id, files = await world.session(expires_in=10)
    world.house.clock.jump(1000)
    await world.reaper.look()
    await world.reaper.settle()
    assert await world.state(session_id) == "open"
    assert files.exists()


async def test_a_key_revoked_by_another_process_ends_its_sessions(world: World, tmp_path: Path) -> None:
    """The command line beside a running server takes a key back; the server sees to its sessions."""
    session_id, files = await world.session()
    await world.reaper.start()
    async with open_house(tmp_path) as other:
        await other.keys.revoke((await other.keys.list())[0].id)

    async def ended() -> bool:
        return await world.state(session_id) == "ended"

    await world.until(ended)
    assert not files.exists()


async def test_an_end_that_a_crash_interrupted_is_finished(world: World, tmp_path: Path) -> None:
    """A session left closing, and a one-shot session, end after the next start."""
    closing, files = await world.session("a")
    shot, _ = await world.session("b", one_shot=True)
    await world.house.sessions.begin_end(closing, "closed")
    async with open_house(tmp_path) as later:
        after = World(later, tmp_path / "storage")
        await after.reaper.start()

        async def ended() -> bool:
            return {await after.state(closing), await after.state(shot)} == {"ended"}

        await after.until(ended)
        await after.reaper.stop()
    assert not files.exists()


async def test_an_end_that_failed_is_tried_again(world: World) -> None:
    """A store that does not answer is told to the caller, and the next look finishes the end."""
    session_id, files = await world.session()
    discard = world.workspaces.discard
    answers = False

    class Flaky:
        async def discard(self, session_id: str) -> None:
            if not answers:
                raise StorageUnavailable("no")
            await discard(session_id)

    reaper = Reaper(world.house.sessions, world.house.runs, world.runs, Flaky(), world.house.settings, Metrics())
    with pytest.raises(StorageUnavailable):
        await reaper.end(session_id, "closed")
    assert await world.state(session_id) == "closing"
    answers = True
    await reaper.look()
    await reaper.settle()
    assert await world.state(session_id) == "ended"
    assert not files.exists()


async def test_kept_files_go_after_a_crash_too(world: World, tmp_path: Path) -> None:
    """A server that was stopped between giving the files up and deleting them: the next one deletes them."""
    async with open_house(tmp_path, world.house.clock, grace_period=50) as house:
        first = World(house, tmp_path / "storage")
        kept, files = await first.session("b")
        await first.reaper.end(kept, "closed")
        assert files.exists()
        await first.reaper.look()
        await first.reaper.settle()
        assert files.exists()
        world.house.clock.advance(50)
        assert await house.sessions.begin_scrap(kept)
    later = World(world.house, tmp_path / "storage")
    await later.reaper.look()
    await later.reaper.settle()
    assert not files.exists()
    assert await world.house.sessions.late(10) == []


async def test_one_that_is_busy_holds_up_no_other(world: World) -> None:
    """Of many that are due at once, those without runs end while one waits for its run."""
    ids = [(await world.session(f"key-{number}", expires_in=10))[0] for number in range(5)]
    world.runs.begin(ids[0])
    world.house.clock.advance(10)
    await world.reaper.look()

    async def others_ended() -> bool:
        return [await world.state(each) for each in ids] == ["closing", *["ended"] * 4]

    await world.until(others_ended)
    world.runs.finish(ids[0])
    await world.reaper.settle()
    assert await world.state(ids[0]) == "ended"


async def test_one_that_fails_holds_up_no_other(world: World) -> None:
    """The others of its batch end; the next look takes it up."""
    ids = [(await world.session(f"key-{number}", expires_in=10))[0] for number in range(4)]
    discard, broken = world.workspaces.discard, {ids[2]}

    class Flaky:
        async def discard(self, session_id: str) -> None:
            if session_id in broken:
                raise StorageUnavailable("no")
            await discard(session_id)

    reaper = Reaper(world.house.sessions, world.house.runs, world.runs, Flaky(), world.house.settings, Metrics())
    world.house.clock.advance(10)
    await reaper.look()
    await reaper.settle()
    assert [await world.state(each) for each in ids] == ["ended", "ended", "closing", "ended"]
    broken.clear()
    await reaper.look()
    await reaper.settle()
    assert [await world.state(each) for each in ids] == ["ended"] * 4


async def test_a_run_on_another_node_is_waited_for(world: World) -> None:
    """Whoever noticed the end: the directory stays until that node's run is over."""
    ids = [(await world.session(f"key-{number}", expires_in=10)) for number in range(2)]
    now = world.house.clock.now()
    for session_id, _ in ids:
        run = Run(new_id(), "k", session_id, "m", "f", now, status=RunStatus.RUNNING, started_at=now, node="other")
        await world.house.runs.record(run)
    world.house.clock.advance(10)
    await world.reaper.look()
    await world.reaper.settle()
    await world.reaper.end(ids[1][0], "closed")
    assert [await world.state(each) for each, _ in ids] == ["closing", "closing"]
    assert all((files / "kept.txt").exists() for _, files in ids)
    await world.interrupt_runs()
    await world.reaper.look()
    await world.reaper.settle()
    assert [await world.state(each) for each, _ in ids] == ["ended", "ended"]


@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_one_with_a_run_on_record_is_not_idle(world: World, status: RunStatus) -> None:
    """A run that waits for the next start of its server, or is under way on another, stops the idle clock."""
    session_id, _ = await world.session(idle_timeout=10)
    run = Run(new_id(), "k", session_id, "m", "f", world.house.clock.now(), status=status, node="other")
    await world.house.runs.record(run)
    world.house.clock.advance(10)
    assert await world.house.sessions.due(10) == []
    assert await world.house.sessions.begin_end(session_id, "idle") is None
    await world.interrupt_runs()
    assert await world.house.sessions.due(10) == [(session_id, "idle")]


async def test_a_session_wound_meanwhile_is_spared(world: World) -> None:
    """It was found due, and used before its end began: it goes on taking calls."""
    session_id, files = await world.session(idle_timeout=10)
    world.house.clock.advance(10)
    due = await world.house.sessions.due(10)
    assert [each.id for each in due] == [session_id]
    await world.house.database.write(
        lambda connection: postpone_idleness(connection, [session_id], world.house.database.now())
    )
    assert await world.house.sessions.begin_end_all(due) == []
    world.runs.begin(session_id)
    world.runs.finish(session_id)
    assert await world.state(session_id) == "open"
    assert files.exists()


async def test_thousands_at_once_do_not_block_the_loop(world: World) -> None:
    """They end in bounded batches, and the loop goes on turning between them."""
    principal, _ = await world.house.opened(expires_in=10)
    await asyncio.gather(*(world.house.sessions.open(principal, expires_in=10) for _ in range(3 * AT_ONCE)))
    world.house.clock.advance(10)
    await world.reaper.start()
    longest, loop = 0.0, asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE):
        while (await world.house.sessions.count()) != {"open": 0, "closing": 0}:
            before = loop.time()
            await asyncio.sleep(0.01)
            longest = max(longest, loop.time() - before)
    assert longest < 1.0


@pytest.mark.parametrize(("calling", "hurry"), [(False, 60.0), (True, 0.0)])
async def test_nobody_is_spared_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, calling: bool, hurry: float
) -> None:
    """Pauses between ends are made only while others call, and not by a reaper that would fall behind for ever."""
    monkeypatch.setattr(reaper, "PACE", 400.0)  # the last batch, which is not full, is paced again
    monkeypatch.setattr(reaper, "HURRY", hurry)
    principal, _ = await world.house.opened(expires_in=10)
    await asyncio.gather(*(world.house.sessions.open(principal, expires_in=10) for _ in range(3 * AT_ONCE)))
    world.house.clock.advance(10)
    world.runs.calling = calling

    async def over() -> bool:
        return await world.house.sessions.count() == {"open": 0, "closing": 0}

    await world.reaper.start()
    try:
        await world.until(over)
    finally:
        world.runs.calling = False


async def test_callers_are_spared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others call, each end waits for a time in proportion to what the one before took."""
    monkeypatch.setattr(reaper, "PACE", 200.0)
    for name in "abc":
        await world.session(name, expires_in=10)
    world.house.clock.advance(10)
    world.runs.calling = True
    await world.reaper.look()
    begun = asyncio.get_running_loop().time()
    await world.reaper.settle()
    assert asyncio.get_running_loop().time() - begun > 0.2  # three ends take a few milliseconds
    assert set(world.runs.asked.values()) == {1}
    assert len(world.runs.asked) == 3


async def test_a_stop_finishes_what_is_under_way(world: World) -> None:
    """Ends that have begun are whole when the stop returns."""
    session_id, files = await world.session()
    world.runs.begin(session_id)
    ending = asyncio.create_task(world.reaper.end(session_id, "closed"))
    await asyncio.wait_for(world.runs.waiting.wait(), DEADLINE)
    stopping = asyncio.create_task(world.reaper.stop())
    await asyncio.sleep(0)
    world.runs.finish(session_id)
    await asyncio.wait_for(stopping, DEADLINE)
    await ending
    assert await world.state(session_id) == "ended"
    assert not files.exists()


async def test_old_records_go(world: World) -> None:
    """Tombstones after a month, records of runs after three; what is younger stays."""
    session_id, _ = await world.session()
    await world.reaper.end(session_id, "closed")
    clock = world.house.clock
    run_id = first_id_of(clock.now())
    done = Run(run_id, "k", session_id, "m", "f", clock.now(), status=RunStatus.COMPLETED, ended_at=clock.now())
    await world.house.runs.record(done)
    clock.advance(31 * 86400)
    await world.reaper.forget()
    assert await world.house.database.read(_states) == {}
    assert (await world.house.runs.get(run_id)).id == run_id
    clock.advance(60 * 86400)
    await world.reaper.forget()
    with pytest.raises(NotFound):
        await world.house.runs.get(run_id)
