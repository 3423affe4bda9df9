"""The REST facade where several servers share a bucket and a database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, Served
from tests.integration.test_cluster import Cluster
from tests.s3 import S3

BASE = "/cra/serviceGateway/services"


@pytest.fixture
def cluster(tmp_path: Path, s3: S3) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, s3, stack)


def test_any_server_serves_a_kept_session(cluster: Cluster) -> None:
    """Pages are those of the server that has the session, whichever is asked, until it is closed at any."""
    one, two = cluster.serve("one"), cluster.serve("two")
    login = {"username": cluster.key["apikey"], "password": cluster.key["secret"]}
    token = httpx.post(f"{one.url}{BASE}/Logon", data=login, timeout=DEADLINE).json()["userToken"]
    sent = {"Authorization": f"Bearer {token}"}

    def ask(served: Served, path: str, session: str = "", **query: Any) -> httpx.Response:
        named = {**sent, "session": session} if session else sent
        return httpx.get(f"{served.url}{BASE}{path}", params=query, headers=named, timeout=DEADLINE)

    view = "/products/tabular/views/weather/data"
    session = ask(one, view, close="false", numRows=1).json()["session"]
    pages = [ask(served, view, session, numRows=3, sort="C.D").json() for served in (one, two, one)]
    assert pages[0] == pages[1] == pages[2]
    assert pages[0]["totalRowCount"] == 1461
    kept = [[file for _, _, files in os.walk(cluster.folder / name) for file in files] for name in ("one", "two")]
    assert [sum(file.endswith(".table") for file in files) for files in kept] == [1, 0]
    assert ask(two, "/keepalive", session).status_code == 200
    strange = httpx.get(f"{two.url}{BASE}{view}", headers={"session": session}, timeout=DEADLINE)
    assert strange.status_code == 401
    assert ask(two, "", session, close="true").status_code == 200
    assert [ask(served, view, session).status_code for served in (one, two)] == [404, 404]
