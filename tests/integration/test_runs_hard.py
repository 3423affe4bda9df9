"""Runs in hard times: servers that are killed, databases that are locked, several servers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.integration.test_runs import appears, ended, parsed, rpc, submit, token
from tests.security.conftest import Server, Session, restart, serving, until  # noqa: F401 - a fixture
from tests.soak import soak


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(None, ["worker", "echo"], SANDBOX="auto") as running:
        yield running


@pytest.mark.timeout(600)
def test_kills_cost_no_promise() -> None:
    """Killed 20 times under load: no answered id is unknown, nothing is lost, nothing runs twice under a key."""
    soak(20, seed=5)


def test_a_locked_database_delays_records_not_runs(server: Server) -> None:
    """While somebody holds the database, calls are answered; a submit is answered once its record is durable."""
    session = server.open_session()
    session.exec("echo.echo", value=0)
    database = server.storage / "dataproc.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        assert [session.exec("echo.echo", value=n) for n in range(20)] == list(range(20))
        submitting = pool.submit(submit, session, "echo.echo", value=1)
        threading.Event().wait(2)
        assert not submitting.done()
        other.execute("ROLLBACK")
        run_id = submitting.result(30)
    assert ended(session, run_id)["status"] == "completed"
    assert len(rpc(session, "list_runs")["runs"]) == 22


def test_a_stop_leaves_what_waits_for_the_next_start(restart: Callable[[Server], Server]) -> None:  # noqa: F811
    """SIGTERM interrupts what runs, lets watchers go, and what was queued runs after the next start."""
    with serving(None, ["worker"], SANDBOX="auto", CONCURRENT_RUNS=1, CLOSE_WAIT=1) as server:
        session = server.open_session()
        running = submit(session, "worker.until", name="a")
        appears(session, "a.started")
        queued = submit(session, "worker.once", name="b")
        where = f"{server.url}/api/v1/dataproc/runs/{queued}/events"
        with server.http.stream("GET", where, headers=token(session)) as watching:
            pieces = watching.iter_text()
            seen = next(pieces) + next(pieces)
            server.process.terminate()
            seen += "".join(pieces)
        assert server.process.wait(20) == 0
        assert [data["status"] for _, _, data in parsed(seen)] == ["queued"]
        fresh = Session(restart(server), session.token, session.id)
        assert ended(fresh, running)["status"] == "interrupted"
        assert ended(fresh, queued)["status"] == "completed"
        assert (fresh.files / "b").read_text() == "run\n"


def test_a_run_is_cancelled_by_way_of_another_server(
    restart: Callable[[Server], Server],  # noqa: F811
    until: Callable[..., Any],  # noqa: F811
) -> None:
    """Whichever server is asked, the one that has the run ends it; one that waits for its turn, too."""
    with serving(None, ["worker"], SANDBOX="auto", CONCURRENT_RUNS=1) as server:
        session = server.open_session()
        elsewhere = Session(restart(server), session.token, session.id)
        running = submit(session, "worker.until", name="a")
        appears(session, "a.started")
        queued = submit(session, "worker.once", name="b")
        assert rpc(elsewhere, "cancel_run", run_id=queued) is True
        assert ended(elsewhere, queued)["status"] == "cancelled"
        assert rpc(elsewhere, "cancel_run", run_id=running) is True
        assert rpc(elsewhere, "cancel_run", run_id=running) is True
        assert ended(session, running)["status"] == "cancelled"
        assert not (session.files / "b").exists()
        with closing(sqlite3.connect(server.storage / "dataproc.db")) as database:
            until(lambda: database.execute("SELECT count(*) FROM run_cancels").fetchone() == (0,))
