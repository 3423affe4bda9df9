"""Servers that share a bucket and a PostgreSQL: what holds on SQLite holds here; and a database that goes away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, Shell, call, headers, until
from tests.integration import test_cluster as shared
from tests.integration.test_cluster import FILES, RPC, Client, Cluster
from tests.postgresql import PASSWORD, PostgreSQL, serving
from tests.s3 import S3

ADMIN = ("--scopes", "admin,session.open,dataproc.exec,files.read,files.write")


@dataclass
class OnPostgreSQL(Cluster):
    """The same, on a database of `server`."""

    server: PostgreSQL | None = None
    url: str = ""

    def __post_init__(self) -> None:
        assert self.server is not None
        self.url = self.url or self.server.database()
        super().__post_init__()

    def shell(self, name: str, **env: str) -> Shell:
        """The command with this cluster's settings."""
        return super().shell(name, **{"DATAPROC_DATABASE_URL": self.url, **env})

    def revision(self, session_id: str) -> str | None:
        """What the database says."""
        assert self.server is not None
        found = self.server.run(
            f"SELECT revision FROM leases WHERE session_id = '{session_id}'", self.url.rpartition("/")[2]
        )
        return found[0][0] if found else None


@pytest.fixture
def cluster(tmp_path: Path, s3: S3, postgresql: PostgreSQL) -> Iterator[OnPostgreSQL]:
    """A bucket, a database, a key, and no server yet."""
    with ExitStack() as stack:
        yield OnPostgreSQL(tmp_path, s3, stack, server=postgresql)


test_any_server_answers_for_any_session = shared.test_any_server_answers_for_any_session
test_kill_between_upload_and_commit = shared.test_kill_between_upload_and_commit
test_a_frozen_server_cannot_commit = shared.test_a_frozen_server_cannot_commit


def test_servers_start_at_once_on_an_empty_database(tmp_path: Path, s3: S3, postgresql: PostgreSQL) -> None:
    """One makes the tables, the other waits; both serve."""
    url = postgresql.database()
    env = {"DATAPROC_DATABASE_URL": url, "DATAPROC_HOST": "127.0.0.1"}
    with ExitStack() as stack:
        served = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            served.append(stack.enter_context(Shell(tmp_path / name, env).serve()))
        for each in served:
            assert httpx.get(f"{each.url}/readyz", timeout=DEADLINE).status_code == 200


def _run(url: str, client: Client) -> Any:
    asked = call("dataproc.exec", module="test-module", method="append")
    answer = httpx.post(url + RPC, json=asked, headers={"Xdata-Session-Token": client.token}, timeout=DEADLINE)
    return answer.json()


def test_a_database_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Calls are told so while it is away; what was acknowledged is there; no server is restarted; no password shows."""
    with ExitStack() as stack:
        server = stack.enter_context(serving())
        (tmp_path / "one").mkdir()
        shell = Shell(
            tmp_path / "one", {"DATAPROC_DATABASE_URL": server.database(), "DATAPROC_CREDENTIAL_CACHE": "0.2"}
        )
        key = shell.key("admin", *ADMIN)
        served = stack.enter_context(shell.serve())
        url = served.url
        opened: list[str] = []
        refused: list[Any] = []
        done = threading.Event()

        def opening() -> None:
            while not done.is_set():
                asked = call("session.open_session")
                answer = httpx.post(
                    url + "/api/v1/session/jsonrpc", json=asked, headers=headers(key), timeout=DEADLINE
                ).json()
                if "result" in answer:
                    opened.append(answer["result"]["access_token"])
                else:
                    refused.append(answer["error"])

        callers = [threading.Thread(target=opening) for _ in range(2)]
        for each in callers:
            each.start()
        try:
            until(lambda: len(opened) > 30)
            server.kill()
            until(lambda: len(refused) > 20)
            ready = httpx.get(f"{url}/readyz", timeout=DEADLINE)
            away = shell.run("key", "list")
            server.start()
            before = len(opened)
            until(lambda: len(opened) > before + 10)
        finally:
            done.set()
            for each in callers:
                each.join(DEADLINE)
        assert {(error["code"], error["data"]["retryable"]) for error in refused} == {(-32012, True)}
        assert ready.status_code == 503
        assert away.returncode == 4
        assert "does not answer" in away.stderr
        with httpx.Client(base_url=url, timeout=DEADLINE) as client:
            found = [client.get(FILES, headers={"Xdata-Session-Token": token}).status_code for token in opened]
        assert set(found) == {200}
        last = Client(url, opened[-1], "")
        assert _run(url, last)["result"] == 1
        metrics = httpx.get(f"{url}/metrics", headers=headers(key), timeout=DEADLINE)
        assert metrics.status_code == 200
        doctor = shell.run("doctor", "-o", "json")
        told = [metrics.text, ready.text, away.stderr, away.stdout, doctor.stdout, doctor.stderr, str(refused)]
        told.append(served.log.read_text())
        assert "database" in told[-1]
        assert not [text for text in told if PASSWORD in text]


def test_a_database_that_is_away_at_the_start(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """The server does not start, and says in one line why, without the password."""
    shell = Shell(tmp_path, {"DATAPROC_DATABASE_URL": postgresql.url("nothing")})
    refused = shell.run("serve")
    assert refused.returncode == 4
    assert 'database "nothing" does not exist' in refused.stderr.strip().splitlines()[-1]
    assert PASSWORD not in refused.stderr
    assert shell.run("serve", DATAPROC_DATABASE_URL="postgresql+psycopg://me:p@ss:word@h/d").returncode == 2


def test_a_server_that_stops_frees_what_it_had(cluster: OnPostgreSQL) -> None:
    """After SIGTERM no connection of it is left, and its node is gone from the table."""
    assert cluster.server is not None
    one = cluster.serve("one")
    cluster.session(one)
    name = cluster.url.rpartition("/")[2]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    assert cluster.server.run(count)[0][0] in range(1, 7)
    assert one.end(signal.SIGTERM) == 0
    until(lambda: cluster.server is not None and cluster.server.run(count)[0][0] == 0)
    assert cluster.server.run("SELECT * FROM nodes", name) == []
