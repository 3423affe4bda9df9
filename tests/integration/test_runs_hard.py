"""Runs in hard times: servers that are killed, databases that are locked, several servers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.integration.test_runs import ended, rpc, submit
from tests.security.conftest import Server, serving
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
