"""What every database promises to the rest of the house. An adapter subclasses `DatabaseContract`."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

import dataproc.database
from dataproc.clock import ManualClock, SystemClock
from dataproc.database import Database, NewerSchemaError, RunStore
from dataproc.database.tables import SCHEMA, keys, metadata
from dataproc.errors import NotFound, StorageUnavailable
from dataproc.runs import Run, RunStatus, Usage
from dataproc.types import first_id_of


def key_row(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "apikey": name,
        "secret_digest": bytes(32),
        "scopes": "",
        "grants": "",
        "created_at": 1,
    }


def add(name: str) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(insert(keys), [key_row(name)])
        return 1

    return work


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(select(keys.c.name).order_by(keys.c.name)))


def a_run(run_id: str = "run-1", **members: Any) -> Run:
    clock = ManualClock()
    return Run(run_id, "k", "session-1", "module", "method", clock.now(), **members)


async def eventually(question: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not await question():  # noqa: ASYNC110 - a database tells nobody what was written
            await asyncio.sleep(0.01)


class DatabaseContract:
    """The rules; `database` is an open one."""

    @pytest.fixture
    async def database(self) -> AsyncIterator[Database]:
        raise NotImplementedError

    async def test_what_is_written_is_read(self, database: Database) -> None:
        """`write` returns what the work returns, when readers can see it."""
        assert await database.write(add("a")) == 1
        assert await database.read(names) == ["a"]

    async def test_a_failing_work_spares_its_neighbours(self, database: Database) -> None:
        """Of works that are committed together, one that fails is undone alone, whole, and its caller told."""

        def half(connection: Connection) -> None:
            add("half")(connection)
            raise ValueError("no")

        works = [add("a"), half, add("a2"), add("a"), add("b")]
        results = await asyncio.gather(*map(database.write, works), return_exceptions=True)
        assert [type(each) for each in results] == [int, ValueError, int, IntegrityError, int]
        assert await database.read(names) == ["a", "a2", "b"]

    async def test_many_writers_lose_nothing(self, database: Database) -> None:
        """A thousand concurrent writes are all there."""
        await asyncio.gather(*(database.write(add(f"{n:04}")) for n in range(1000)))
        assert await database.read(names) == [f"{n:04}" for n in range(1000)]

    async def test_a_caller_who_goes_away_disturbs_nobody(self, database: Database) -> None:
        """A cancelled write harms neither its neighbours nor the writer."""
        gone = asyncio.create_task(database.write(add("gone")))
        stays = asyncio.create_task(database.write(add("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == 1
        assert await database.write(add("next")) == 1

    async def test_behind_is_written_within_a_second(self, database: Database) -> None:
        """A work that nobody waits for is committed soon."""
        database.behind(add("behind"))

        async def there() -> bool:
            return await database.read(names) == ["behind"]

        await eventually(there, 1.0)

    async def test_behind_comes_along_with_a_write(self, database: Database) -> None:
        """A commit that is due anyway takes what lies there."""
        database.behind(add("behind"))
        await database.write(add("write"))
        assert await database.read(names) == ["behind", "write"]

    async def test_a_crowd_behind_is_all_written(self, database: Database) -> None:
        """More works than one transaction holds."""
        for n in range(1500):
            database.behind(add(f"{n:04}"))

        async def there() -> bool:
            return len(await database.read(names)) == 1500

        await eventually(there)

    async def test_a_failing_work_behind_spares_its_neighbours(self, database: Database) -> None:
        """It is dropped and logged; what lies beside it is written, once."""

        def fails(connection: Connection) -> None:
            raise ValueError("no")

        for work in (add("a"), fails, add("b")):
            database.behind(work)
        await database.write(add("c"))
        assert await database.read(names) == ["a", "b", "c"]

    async def test_time_follows_the_monotonic_clock(self, database: Database) -> None:
        """A jump of the wall clock moves nothing while the server runs."""
        clock = database.clock
        assert isinstance(clock, ManualClock)
        before = database.now()
        clock.jump(86400)
        assert database.now() == before
        clock.advance(1.5)
        assert database.now() - before == timedelta(seconds=1.5)

    async def test_a_record_comes_back_as_it_was(self, database: Database) -> None:
        """All members of a run survive, hostile texts too."""
        store, clock = RunStore(database), ManualClock()
        run = a_run(
            params={"a": [1, 2.5, None, "ü\0\ud800"]},
            input={"t": {"path": "x.csv"}},
            status=RunStatus.FAILED,
            started_at=clock.now(),
            ended_at=clock.now() + timedelta(microseconds=1),
            result={"b": True},
            messages=("one",),
            progress={"fraction": 0.5, "message": ""},
            changes={"created": [], "modified": [], "deleted": ["x"], "shared": False},
            usage=Usage(1.5, 2**40, 1, 2),
            attempt=2,
            timeout=1.5,
            submitted=True,
            closes=True,
            request_id="r",
            error={"code": -32005, "message": "\ud800", "data": {}},
            log_bytes=2**40,
            node="n",
        )
        await store.record(run)
        assert await store.get("run-1") == run
        with pytest.raises(NotFound):
            await store.get("run-2")

    async def test_finish_writes_over_and_anew(self, database: Database) -> None:
        """The end of a run is written whether or not its beginning was."""
        store = RunStore(database)
        await store.record(a_run("run-1"))
        for run_id in ("run-1", "run-2"):
            done = a_run(run_id, status=RunStatus.COMPLETED, result=run_id)
            await store.finish(done)
            assert await store.get(run_id) == done

    async def test_records_behind_are_all_written(self, database: Database) -> None:
        """Thousands of records are there within a second or two, and none twice."""
        store = RunStore(database)
        for n in range(3000):
            store.behind(partial(a_run, f"run-{n}", status=RunStatus.COMPLETED))
            if n % 500 == 0:
                await asyncio.sleep(0)

        async def there() -> bool:
            query = text("SELECT count(*) FROM runs")
            return await database.read(lambda connection: connection.execute(query).scalar_one()) == 3000

        await eventually(there)

    async def test_a_restart_judges_its_own_unfinished_runs(self, database: Database) -> None:
        """Queued and running ones of this node are interrupted; ended ones and other nodes' are not."""
        store = RunStore(database)
        for run_id, status, node in (
            ("a", RunStatus.QUEUED, "here"),
            ("b", RunStatus.RUNNING, "here"),
            ("c", RunStatus.COMPLETED, "here"),
            ("d", RunStatus.RUNNING, "there"),
        ):
            await store.record(a_run(run_id, status=status, node=node))
        assert await store.unfinished_nodes() == {"here", "there"}
        judged = await store.interrupt(await store.left_by({"here"}))
        assert {run.id for run in judged} == {"a", "b"}
        found = [await store.get(each) for each in "abcd"]
        assert [run.status.value for run in found] == ["interrupted", "interrupted", "completed", "running"]
        assert found[0].error is not None
        assert found[0].error["data"]["name"] == "interrupted"
        assert found[0].ended_at == database.now()

    async def test_old_records_are_forgotten(self, database: Database) -> None:
        """By the time at which they ended, a bounded number at a time; unfinished ones never."""
        store, clock = RunStore(database), database.clock
        assert isinstance(clock, ManualClock)
        ids = [first_id_of(database.now()) + str(n) for n in range(5)]
        for run_id in ids[:3]:
            await store.record(a_run(run_id, status=RunStatus.COMPLETED, ended_at=database.now()))
        await store.record(a_run(ids[3]))
        clock.advance(100)
        await store.record(a_run(ids[4], status=RunStatus.COMPLETED, ended_at=database.now()))
        assert [await store.forget(99, 2) for _ in range(3)] == [2, 1, 0]
        assert [(await store.get(each)).id for each in ids[3:]] == ids[3:]

    async def test_a_closed_database_says_so(self, database: Database) -> None:
        """Who comes after the close is told to try again elsewhere, and does not hang."""
        await database.close()
        with pytest.raises(StorageUnavailable):
            await database.write(add("late"))
        with pytest.raises(StorageUnavailable):
            await database.read(names)


class TestSqlite(DatabaseContract):
    """SQLite in a file, the default."""

    @pytest.fixture
    async def database(self, tmp_path: Path) -> AsyncIterator[Database]:
        database = await Database.open(f"sqlite:///{tmp_path}/new/x.db", ManualClock())
        yield database
        await database.close()

    async def test_close_writes_what_lies_behind(self, tmp_path: Path, database: Database) -> None:
        """Nothing that was handed over is lost by a clean stop."""
        database.behind(add("behind"))
        await database.close()
        again = await Database.open(f"sqlite:///{tmp_path}/new/x.db", ManualClock())
        assert await again.read(names) == ["behind"]
        await again.close()

    async def test_only_the_owner_can_read_it(self, tmp_path: Path, database: Database) -> None:
        """The file, its journals and a folder that was made for it are private, whatever the umask."""
        await database.write(add("a"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
        assert {"x.db", "x.db-wal", "x.db-shm"} <= modes.keys()
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700

    async def test_a_write_waits_for_another_process_but_not_for_ever(self, tmp_path: Path, database: Database) -> None:
        """Locked for longer than the busy time is an error of the store; afterwards it works again."""
        url = f"sqlite:///{tmp_path}/new/x.db"
        impatient = await Database.open(url, SystemClock(), busy_timeout=0.05)
        other = sqlite3.connect(tmp_path / "new/x.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        impatient.behind(add("behind"))
        with pytest.raises(StorageUnavailable):
            await impatient.write(add("refused"))
        assert await impatient.read(names) == []  # reading goes on
        other.execute("COMMIT")
        other.close()
        assert await impatient.write(add("taken")) == 1

        async def there() -> bool:
            return await impatient.read(names) == ["behind", "taken"]

        await eventually(there)
        await impatient.close()

    async def test_a_full_disk_is_the_stores_error(self, tmp_path: Path, database: Database) -> None:
        """No work of the transaction is acknowledged, and the writer goes on when there is room again."""

        def fill(connection: Connection) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        await database.write(fill)
        big = [key_row(f"{n}" * 500) for n in range(200)]
        with pytest.raises(StorageUnavailable):
            await database.write(lambda connection: connection.execute(insert(keys), big))
        await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1000000") and None)
        await database.write(add("after"))
        assert await database.read(names) == ["after"]

    async def test_a_file_that_is_no_database_is_the_stores_error(self, tmp_path: Path) -> None:
        """It is not overwritten."""
        (tmp_path / "y.db").write_bytes(b"something else" * 1000)
        with pytest.raises(StorageUnavailable):
            await Database.open(f"sqlite:///{tmp_path}/y.db", ManualClock())
        assert (tmp_path / "y.db").read_bytes() == b"something else" * 1000

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
    async def test_a_database_in_memory_is_refused(self, url: str) -> None:
        """Threads could not share it; the error says what to write."""
        with pytest.raises(ValueError, match="name a file"):
            await Database.open(url, ManualClock())

    @pytest.mark.parametrize(("fsync", "level"), [(False, 1), (True, 2)])
    async def test_fsync_is_a_setting(self, tmp_path: Path, fsync: bool, level: int) -> None:
        """`synchronous` is NORMAL, or FULL where a power cut must be survived; foreign keys are always on."""
        database = await Database.open(f"sqlite:///{tmp_path}/z.db", ManualClock(), fsync=fsync)

        def pragmas(connection: Connection) -> list[object]:
            asked = ("journal_mode", "synchronous", "foreign_keys")
            return [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in asked]

        assert await database.read(pragmas) == ["wal", level, 1]
        await database.close()


class TestMigrations:
    """The tables come to this release's version by themselves."""

    async def test_they_make_what_the_tables_say(self, database_url: str) -> None:
        """A database made by migrations has the tables, columns and indexes of `tables.py`, and no others."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        await (await Database.open(database_url, ManualClock())).close()
        engine = create_engine(database_url)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        engine.dispose()

    def test_the_newest_is_the_one_that_is_named(self) -> None:
        """`SCHEMA`, by which a start knows that nothing is to be done, is the last migration."""
        folder = Path(dataproc.database.__file__).parent / "migrations"
        assert ScriptDirectory(folder).get_current_head() == SCHEMA

    async def test_a_newer_database_is_refused(self, database_url: str) -> None:
        """An older release touches nothing, and says what to do."""
        await (await Database.open(database_url, ManualClock())).close()
        engine = create_engine(database_url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(NewerSchemaError, match=r"schema 9999.*newer dataproc"):
            await Database.open(database_url, ManualClock())
        with engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
        engine.dispose()

    def test_processes_that_start_at_once_make_them_once(self, database_url: str) -> None:
        """Several first starts on one fresh database all succeed."""
        script = "import asyncio, sys; from dataproc.clock import SystemClock; from dataproc.database import Database\n"
        script += "async def main():\n db = await Database.open(sys.argv[1], SystemClock())\n await db.close()\n"
        script += "sys.stdin.read(1)\nasyncio.run(main())"
        starts = [
            subprocess.Popen(
                [sys.executable, "-c", script, database_url], stdin=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(4)
        ]
        for each in starts:
            assert each.stdin is not None
            each.stdin.write(b"g")
            each.stdin.close()
            each.stdin = None
        outcomes = [(each.communicate(timeout=60)[1], each.returncode) for each in starts]
        assert outcomes == [(b"", 0)] * 4
        engine = create_engine(database_url)
        assert set(metadata.tables) < set(inspect(engine).get_table_names())
        engine.dispose()
