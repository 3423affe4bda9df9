"""Promise: no session takes more of the disk than it may, whichever way it writes, and it can always delete."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from tests.security.conftest import RpcError, serving

MiB = 2**20
BYTES, FILES = 8 * MiB, 100


@pytest.fixture(scope="module")
def server(uid):
    """A server with small quotas."""
    limits: dict[str, Any] = {"SESSION_BYTES": BYTES, "SESSION_FILES": FILES, "RUN_GRACE": 20}
    with serving(uid, ["glutton", "chatterbox"], **limits) as running:
        yield running


@pytest.mark.parametrize(
    "how", ["plainly", "deep down", "by mapping", "without a name", "unlinked", "moved", "beyond paths"]
)
def test_a_run_that_takes_too_much_is_ended(server, how):
    """A run that goes on after it took more than the quota is ended within seconds; other sessions do not notice."""
    session, bystander = server.open_session(), server.open_session()
    assert bystander.exec("chatterbox.echo", value="1") == "1"
    begun = time.monotonic()
    error = session.error("glutton.remain", how=how, size=2 * BYTES)
    assert (error.code, error.data["quota"], error.data["limit"]) == (-32009, "session_bytes", BYTES)
    assert error.data["used"] > BYTES
    assert time.monotonic() - begun < 10
    assert bystander.exec("chatterbox.echo", value="1") == "1"


def test_a_run_that_is_quicker_than_any_look(server):
    """A run that returns before anybody looked has exceeded the quota all the same."""
    error = server.open_session().error("glutton.write", size=BYTES + MiB)
    assert (error.code, error.data["quota"], error.data["used"]) == (-32009, "session_bytes", BYTES + MiB)


@pytest.mark.parametrize("folders", [False, True])
def test_files_and_directories_are_counted(server, folders):
    """More files, or directories, than the quota end the run."""
    error = server.open_session().error("glutton.many", number=FILES + 1, folders=folders)
    assert (error.code, error.data["quota"], error.data["limit"]) == (-32009, "session_files", FILES)


def test_the_session_stays_usable_to_delete(server):
    """Above the quota runs may read and delete, but not add; once there is room again, all is as before."""
    session = server.open_session()
    session.error("glutton.write", size=BYTES + MiB)
    assert session.exec("chatterbox.echo", value="1") == "1"
    assert session.error("glutton.write", size=MiB, path="more").code == -32009
    assert session.exec("glutton.clear") is True
    assert session.exec("glutton.write", size=BYTES - MiB) == BYTES - MiB


def test_what_lies_too_deep_is_told_of_until_it_is_gone(server):
    """Directories that no path leads to end the runs that make or keep them; other sessions are looked after."""
    session, other = server.open_session(), server.open_session()
    error = session.error("glutton.nest", depth=30)
    assert (error.code, error.data["quota"], error.data["limit"]) == (-32009, "session_depth", 4095)
    assert session.error("glutton.remain", how="plainly", size=MiB).data["quota"] == "session_depth"
    assert other.error("glutton.remain", how="plainly", size=2 * BYTES).data["quota"] == "session_bytes"
    files = f"{server.url}/api/v1/dataproc/files"
    headers = {"Xdata-Session-Token": session.token}
    assert server.http.delete(f"{files}/{'n' * 200}?recursive=true", headers=headers).status_code == 204
    assert session.exec("chatterbox.echo", value="1") == "1"


def test_a_thread_that_writes_after_its_run(server, until):
    """A worker that goes on to write when its run is over is ended, before the disk is full."""
    session = server.open_session()
    session.exec("glutton.leave_behind", size=BYTES // 4)
    looks: list[int] = []

    def taken() -> int:
        looks.append(sum(file.stat().st_size for file in session.files.iterdir()))
        return looks[-1]

    until(lambda: taken() > BYTES)
    until(lambda: taken() == looks[-40:][0])  # it writes more often than in 40 looks
    assert taken() < 8 * BYTES
    assert session.exec("glutton.clear") is True


def test_holes_take_nothing(server):
    """A sparse file counts with what it takes on the disk."""
    assert server.open_session().exec("glutton.sparse", size=20 * MiB) == 20 * MiB


def test_an_upload_above_the_quota(server):
    """An upload that does not fit is 507, at once where its length is told, and else when it is too much."""
    session = server.open_session()
    url, who = f"{server.url}/api/v1/dataproc/files/big", {"Xdata-Session-Token": session.token}
    for body in (bytes(BYTES + 1), iter([bytes(MiB)] * 9)):
        answer = server.http.put(url, content=body, headers=who)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["data"]["quota"]) == (507, -32009, "session_bytes")
    assert server.http.get(url, headers=who).status_code == 404
    assert server.http.put(url, content=bytes(BYTES - 1), headers=who).status_code == 201
    assert server.http.put(url, content=bytes(BYTES - 2), headers=who).status_code == 204  # in the place of the other
    assert server.http.put(f"{url}2", content=b"12345", headers=who).status_code == 507
    assert server.http.delete(url, headers=who).status_code == 204
    assert server.http.put(f"{url}2", content=b"12345", headers=who).status_code == 201


def test_an_upload_in_the_place_of_a_link(server):
    """It replaces the link alone: the bytes of the file that the link leads to are no room for it."""
    session = server.open_session()
    session.exec("glutton.write", size=BYTES - MiB)
    session.exec("glutton.link", name="link", target="big")
    url, who = f"{server.url}/api/v1/dataproc/files/link", {"Xdata-Session-Token": session.token}
    assert server.http.put(url, content=bytes(2 * MiB), headers=who).status_code == 507
    assert server.http.put(url, content=b"1", headers=who).status_code == 204


def test_directories_of_an_upload_are_counted(server):
    """The directories that an upload would make count before they are made."""
    session = server.open_session()
    url, who = f"{server.url}/api/v1/dataproc/files/", {"Xdata-Session-Token": session.token}
    answer = server.http.put(f"{url}{'d/' * FILES}f", content=b"", headers=who)
    assert (answer.status_code, answer.json()["error"]["data"]["quota"]) == (507, "session_files")
    assert list(session.files.iterdir()) == []
    assert server.http.put(f"{url}{'d/' * (FILES - 2)}f", content=b"", headers=who).status_code == 201
    assert server.http.put(f"{url}{'d/' * (FILES - 2)}f", content=b"1", headers=who).status_code == 204
    assert server.http.put(f"{url}d/one", content=b"", headers=who).status_code == 201
    assert server.http.put(f"{url}d/two", content=b"", headers=who).status_code == 507


def test_the_quota_of_a_key(own_server):
    """All sessions of a key together are held to its quota."""
    server = own_server("glutton", KEY_BYTES=BYTES)
    one, other = server.open_session(), server.open_session()
    assert one.exec("glutton.write", size=BYTES - MiB)
    error = other.error("glutton.write", size=2 * MiB)
    assert (error.code, error.data["quota"], error.data["used"]) == (-32009, "key_bytes", BYTES + MiB)
    assert one.exec("glutton.clear") is True
    assert other.exec("glutton.write", size=2 * MiB) == 2 * MiB


def test_many_sessions_are_no_way_round_the_quota_of_a_key(own_server, restart, until):
    """Sessions that are each far below their quota are held to the key's together: at once, one by one, restarted."""
    server = own_server("glutton", KEY_BYTES=BYTES, SESSION_BYTES=BYTES)
    sessions = [server.open_session() for _ in range(8)]
    with ThreadPoolExecutor(len(sessions)) as threads:
        answers = list(threads.map(lambda session: _written(session, 2 * MiB), sessions))
    assert answers.count(None) <= 4
    assert set(answers) == {None, "key_bytes"}
    assert _written(server.open_session(), MiB) == "key_bytes"
    until(lambda: _noted(server) > BYTES)  # a kill loses the last second
    server.process.kill()
    server.stop()
    again = restart(server)
    fresh = again.open_session()
    assert _written(fresh, MiB) == "key_bytes"
    url, who = f"{again.url}/api/v1/dataproc/files/big", {"Xdata-Session-Token": fresh.token}
    assert again.http.put(url, content=bytes(MiB), headers=who).status_code == 507
    for session in sessions:
        assert replace(session, server=again).exec("glutton.clear") is True
    assert _written(fresh, MiB, "more") is None


def _noted(server):
    with closing(sqlite3.connect(f"file:{server.storage}/dataproc.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT coalesce(sum(bytes), 0) FROM session_usage").fetchone()[0]


def _written(session, size, path="big"):
    """The quota that a run is refused by; None where it may write so much."""
    try:
        session.exec("glutton.write", size=size, path=path)
    except RpcError as error:
        return error.data.get("quota", error.code)
    return None


def test_large_files_hold_up_nobody(uid):
    """Files that take long to hash, and were made in an instant, take neither threads from others nor a stop's time."""
    with serving(uid, ["glutton", "chatterbox"], CLOSE_WAIT=1, WORKER_FILE_SIZE=2**40) as server:
        session, bystander = server.open_session(), server.open_session()
        for _ in range(8):
            session.exec("glutton.sparse", size=9 * 2**30)
        begun = time.monotonic()
        assert bystander.exec("chatterbox.echo", value="1") == "1"
        server.stop()
        assert time.monotonic() - begun < 10
