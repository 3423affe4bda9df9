"""PostgreSQL keeps what every database promises, and what its own hard times may cost."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, insert, select, text, update

from dataproc.catalogue.shares import Shares
from dataproc.clock import ManualClock
from dataproc.database import Database, RunStore, UnusableDatabase
from dataproc.database.catalogue import add_dataset
from dataproc.database.runs import Wanted
from dataproc.database.tables import keys
from dataproc.errors import InvalidParams, StorageUnavailable
from dataproc.runs import RunStatus
from tests.contracts.test_database import DatabaseContract, a_run, add, eventually, key_row, names

if TYPE_CHECKING:
    from tests.postgresql import PostgreSQL

PASSWORD = "a-password-of-the-database"


@pytest.fixture
async def database(postgresql: PostgreSQL) -> AsyncIterator[Database]:
    """An empty one on the shared server."""
    database = await Database.open(postgresql.database(), ManualClock())
    yield database
    await database.close()


class TestPostgreSQL(DatabaseContract):
    """The contract."""

    @pytest.fixture
    async def database(self, postgresql: PostgreSQL) -> AsyncIterator[Database]:
        database = await Database.open(postgresql.database(), ManualClock())
        yield database
        await database.close()


async def test_now_is_the_databases_time(database: Database, postgresql: PostgreSQL) -> None:
    """In UTC, whatever zone its server is in; this machine's clock does not matter."""
    (theirs,) = postgresql.run("SELECT now()")[0]
    assert abs((database.now() - theirs).total_seconds()) < 10
    assert database.now().tzname() == "UTC"


async def test_a_read_is_of_one_moment(database: Database) -> None:
    """What is committed between two questions of a work is not seen by the second."""
    begun, go_on = threading.Event(), threading.Event()

    def twice(connection: Connection) -> list[list[str]]:
        first = names(connection)
        begun.set()
        assert go_on.wait(10)
        return [first, names(connection)]

    reading = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(begun.wait, 10)
    await database.write(add("a"))
    go_on.set()
    assert await reading == [[], []]
    assert await database.read(names) == ["a"]


async def test_two_servers_share_one_name_at_once(database: Database) -> None:
    """Whichever is second finds what the first has made, and says so in its own words."""
    url = database._engine.url.render_as_string(hide_password=False)
    other = await Database.open(url, ManualClock())
    for number in range(20):
        name = f"set-{number}"
        row = {"name": name, "folder": name, "key_columns": "[]", "session_id": None, "created_at": 1}
        for owner in ("ann", "bob"):
            await database.write(partial(add_dataset, row={**row, "key_id": owner, "folder": f"{owner}/{name}"}))
        asked = (
            Shares(database).share("dataset", "ann", name, "eve"),
            Shares(other).share("dataset", "bob", name, "eve"),
        )
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "NoneType"]
    await other.close()


async def test_a_deadlock_of_two_servers_costs_nobody_anything(database: Database, postgresql: PostgreSQL) -> None:
    """Each wants what the other has: both writes are done in the end."""
    url = database._engine.url.render_as_string(hide_password=False)
    other = await Database.open(url, ManualClock())
    await database.write(lambda connection: connection.execute(insert(keys), [key_row("a"), key_row("b")]) and None)
    both = threading.Barrier(2)

    def crossing(first: str, second: str) -> Any:
        met = False

        def work(connection: Connection) -> int:
            nonlocal met
            connection.execute(update(keys).where(keys.c.id == first).values(created_at=keys.c.created_at + 1))
            if not met:
                met = True
                both.wait(10)
            step = update(keys).where(keys.c.id == second).values(created_at=keys.c.created_at + 1)
            return connection.execute(step).rowcount

        return work

    done = await asyncio.gather(database.write(crossing("a", "b")), other.write(crossing("b", "a")))
    assert [*done] == [1, 1]
    assert await database.read(lambda connection: list(connection.scalars(select(keys.c.created_at)))) == [3, 3]
    await other.close()


async def test_a_write_waits_for_another_but_not_for_ever(postgresql: PostgreSQL) -> None:
    """A row that is locked for longer than the busy time is an error of the store; afterwards it works again."""
    url = postgresql.database()
    patient = await Database.open(url, ManualClock())
    impatient = await Database.open(url, ManualClock(), busy_timeout=0.1)
    await patient.write(add("a"))
    locked, let_go = threading.Event(), threading.Event()

    def touch(connection: Connection) -> int:
        return connection.execute(update(keys).values(created_at=2)).rowcount

    def hold(connection: Connection) -> int:
        touch(connection)
        locked.set()
        assert let_go.wait(10)
        return 1

    holding = asyncio.create_task(patient.write(hold))
    assert await asyncio.to_thread(locked.wait, 10)
    with pytest.raises(StorageUnavailable):
        await impatient.write(touch)
    assert await impatient.read(names) == ["a"]
    let_go.set()
    assert await holding == 1
    assert await impatient.write(touch) == 1
    await patient.close()
    await impatient.close()


async def test_a_commit_whose_answer_was_lost_is_not_written_twice(database: Database) -> None:
    """Records that were written behind are each there once, those too that came meanwhile."""
    store, lost = RunStore(database), True

    def lose(connection: Connection) -> None:
        nonlocal lost
        if lost:
            lost = False
            store.behind(lambda: a_run("run-2", status=RunStatus.COMPLETED))
            connection.commit()  # it has been done,
            raise StorageUnavailable("and nobody was told")

    store.behind(lambda: a_run("run-1", status=RunStatus.COMPLETED))
    database.behind(lose)

    async def there() -> bool:
        return await database.read(_count) == 2

    await eventually(there, 10)


def _count(connection: Connection) -> int:
    return connection.execute(text("SELECT count(*) FROM runs")).scalar_one()


async def test_a_text_that_cannot_be_kept_is_its_callers_error(database: Database) -> None:
    """PostgreSQL has no NUL in texts; reading and writing say so, and neighbours in the transaction are spared."""
    with pytest.raises(InvalidParams, match="NUL"):
        await database.write(add("a\0"))
    done = await asyncio.gather(*map(database.write, [add("a"), add("b\0"), add("c")]), return_exceptions=True)
    assert [type(each) for each in done] == [int, InvalidParams, int]
    with pytest.raises(InvalidParams, match="NUL"):
        await RunStore(database).page(Wanted(module="a\0"), 10)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("postgresql+psycopg://me:hu@sh:hush@127.0.0.1/db", "write %40"),
        ("hush", "no URL"),
        ("mysql://me:hush@127.0.0.1/db", "neither"),
        ("postgresql+psycopg2://me:hush@127.0.0.1/db", "neither"),
        ("postgresql+psycopg://me:hush@127.0.0.1:1/db?nonsense=hush", "nonsense"),
        ("postgresql+psycopg://me:hush@127.0.0.1:1/db?connect_timeout=hush", "connect_timeout"),
    ],
)
async def test_a_url_that_is_none_is_the_operators_error(wrong: str, told: str) -> None:
    """It says what is wrong, and nothing of the password."""
    with pytest.raises(UnusableDatabase, match=told) as refused:
        await Database.open(wrong, ManualClock())
    assert "hush" not in str(refused.value)
    assert "sh:" not in str(refused.value)


async def test_who_is_not_let_in_is_told_why(postgresql: PostgreSQL) -> None:
    """A wrong password, a database that is not there, a server that is not there: in the server's words."""
    good = postgresql.url("postgres")
    for wrong, told in (
        (good.replace(PASSWORD, "wrong-one"), "password authentication failed"),
        (postgresql.url("nothing"), "does not exist"),
        (postgresql.url("postgres", _nobodys_port()), "refused"),
    ):
        with pytest.raises(StorageUnavailable, match=told) as refused:
            await Database.open(wrong, ManualClock())
        assert PASSWORD not in str(refused.value)
        assert "wrong-one" not in str(refused.value)


def _nobodys_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_a_role_without_rights_is_told_so(postgresql: PostgreSQL) -> None:
    """A role that may make no tables is not the owner of its database, the usual mistake."""
    url = postgresql.database()
    postgresql.run("DO $$ BEGIN CREATE ROLE guest LOGIN PASSWORD 'guest'; EXCEPTION WHEN OTHERS THEN END $$")
    with pytest.raises(UnusableDatabase, match="permission denied for schema public"):
        await Database.open(url.replace(f"tester:{PASSWORD}", "guest:guest"), ManualClock())


class TestHardTimes:
    """A server of the test's own, which is hurt."""

    @pytest.fixture
    def server(self) -> Iterator[PostgreSQL]:
        from tests.postgresql import serving

        with serving() as server:
            yield server

    @pytest.fixture
    async def database(self, server: PostgreSQL) -> AsyncIterator[Database]:
        database = await Database.open(server.database(), ManualClock())
        yield database
        await database.close()

    async def test_a_server_that_is_killed_and_comes_back(self, server: PostgreSQL, database: Database) -> None:
        """Callers are told so while it is away; all that was acknowledged is there, and what lay behind is written."""
        acknowledged: list[str] = []
        refused = 0

        async def write(name: str) -> None:
            nonlocal refused
            try:
                await database.write(add(name))
                acknowledged.append(name)
            except StorageUnavailable:
                refused += 1

        async def writer(who: int) -> None:
            for number in range(60):
                await write(f"{who}-{number:03}")

        writing = asyncio.gather(*map(writer, range(8)))
        await eventually(_more_than(acknowledged, 50))
        database.behind(add("behind"))
        server.kill()
        with pytest.raises(StorageUnavailable, match="does not answer"):
            await database.read(names)
        await writing
        assert refused
        server.start()

        async def all_there() -> bool:
            try:
                return {*acknowledged, "behind"} <= set(await database.read(names))
            except StorageUnavailable:  # it is recovering
                return False

        await eventually(all_there, 20)
        assert await database.write(add("after")) == 1

    async def test_a_server_that_is_stuck(self, server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
        """Calls do not hang with it, be they many, and work when it goes on."""
        monkeypatch.setattr("dataproc.database.postgresql.PING", 0.2)
        monkeypatch.setattr("dataproc.database.postgresql.ANSWER", 0.5)
        database = await Database.open(f"{server.database()}?connect_timeout=2", ManualClock())
        await database.write(add("before"))
        begun, go_on = threading.Event(), threading.Event()

        def halfway(connection: Connection) -> int:
            add("half")(connection)
            begun.set()
            assert go_on.wait(10)
            return add("way")(connection)

        writing = asyncio.create_task(database.write(halfway))
        assert await asyncio.to_thread(begun.wait, 10)
        server.freeze(signal.SIGSTOP)
        go_on.set()
        try:
            async with asyncio.timeout(10):
                crowd = [database.read(names) for _ in range(40)]
                questions = writing, database.write(add("meanwhile")), *crowd
                ended = await asyncio.gather(*questions, return_exceptions=True)
                assert [type(each) for each in ended] == [StorageUnavailable] * 42
        finally:
            server.freeze(signal.SIGCONT)

        async def answers() -> bool:
            try:
                return await database.write(add("after")) == 1
            except StorageUnavailable:  # for a second it is not asked again
                return False

        await eventually(answers)
        assert await database.read(names) == ["after", "before"]
        await database.close()

    async def test_no_connection_is_left(self, server: PostgreSQL, database: Database) -> None:
        """Where others have taken them all, callers are told so, until one is free."""
        import psycopg

        url = database._engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
        later = await Database.open(server.database(), ManualClock())
        later._engine.dispose()
        with ExitStack() as crowd:
            with suppress(psycopg.OperationalError):
                while True:
                    crowd.enter_context(psycopg.connect(url))
            with pytest.raises(StorageUnavailable):
                await later.write(add("refused"))
            with pytest.raises(StorageUnavailable, match=r"too many clients|remaining connection slots"):
                await Database.open(server.url("postgres"), ManualClock())
        assert await database.write(add("a")) == 1

        async def answers() -> bool:
            try:
                return await later.write(add("taken")) == 1
            except StorageUnavailable:  # connections end a moment after they were closed
                return False

        await eventually(answers)
        await later.close()


def _more_than(found: list[str], number: int) -> Any:
    async def question() -> bool:
        return len(found) > number

    return question
