"""The quota of a key over all its sessions: after restarts, after kills, and on servers that share a database."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, REPOSITORY, Served, Shell, call, headers, until
from tests.integration.test_cluster import Cluster
from tests.s3 import S3

MiB = 2**20
KEY_BYTES = 8 * MiB
QUOTA = {"DATAPROC_KEY_BYTES": str(KEY_BYTES)}
FILES = "/api/v1/dataproc/files/"
RPC = "/api/v1/dataproc/jsonrpc"
SESSIONS = "/api/v1/session/jsonrpc"


@dataclass
class House:
    """One key, on one storage folder with its database; any number of servers on it."""

    shell: Shell
    stack: ExitStack
    key: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        modules = self.shell.folder / "modules"
        shutil.copytree(REPOSITORY / "tests/modules/glutton", modules / "glutton")
        self.shell.env["DATAPROC_MODULES_DIR"] = str(modules)
        self.key = self.shell.key()

    def serve(self, **env: str) -> Served:
        """A server with a quota for keys, up."""
        served = self.stack.enter_context(self.shell.serve(**{**QUOTA, **env}))
        assert served.url
        return served

    def ask(self, statement: str, *values: str) -> list[Any]:
        """What the database says to a statement, behind our back."""
        return _asked_of(self.shell.folder / "storage/dataproc.db", statement, *values)

    def noted(self, session: Session, size: int) -> None:
        """Wait until the database has it."""
        question = "SELECT bytes FROM session_usage WHERE session_id = ?"
        until(lambda: self.ask(question, session.id) == [(size,)])

    def session(self, served: Served) -> Session:
        """A new session of the key, opened there."""
        return opened(served, self.key)


@dataclass(frozen=True)
class Session:
    """A session through one server."""

    url: str
    token: str
    id: str

    def at(self, served: Served) -> Session:
        """The same through another server."""
        return Session(served.url, self.token, self.id)

    def put(self, size: int, path: str = "a") -> str:
        """Upload a file of that size: the quota that refuses it, or nothing."""
        who = {"Xdata-Session-Token": self.token}
        answer = httpx.put(self.url + FILES + path, content=bytes(size), headers=who, timeout=DEADLINE)
        if answer.status_code in (201, 204):
            return ""
        assert answer.status_code == 507, answer.text
        return str(answer.json()["error"]["data"]["quota"])

    def delete(self, path: str = "a") -> int:
        """Delete a file: the status."""
        who = {"Xdata-Session-Token": self.token}
        return httpx.delete(self.url + FILES + path, headers=who, timeout=DEADLINE).status_code

    def write(self, size: int, path: str = "run") -> str:
        """A run that writes a file of that size: the quota that ends it, or nothing."""
        asked = call("dataproc.exec", module="glutton", method="write", params={"size": size, "path": path})
        answer = self._asked(RPC, asked)
        if "result" in answer:
            return ""
        assert answer["error"]["code"] == -32009, answer
        return str(answer["error"]["data"]["quota"])

    def usage(self) -> int:
        """The bytes that `get_session` shows."""
        return int(self._asked(SESSIONS, call("session.get_session", token=self.token))["result"]["usage"]["bytes"])

    def close(self) -> None:
        """End it."""
        assert "result" in self._asked(SESSIONS, call("session.close_session", token=self.token))

    def _asked(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        who = {"Xdata-Session-Token": self.token}
        answer: dict[str, Any] = httpx.post(self.url + path, json=asked, headers=who, timeout=DEADLINE).json()
        return answer


def _asked_of(file: Path, statement: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        return database.execute(statement, values).fetchall()


def opened(served: Served, key: dict[str, Any]) -> Session:
    """A new session of the key."""
    asked = call("session.open_session")
    answer = httpx.post(served.url + SESSIONS, json=asked, headers=headers(key), timeout=DEADLINE).json()["result"]
    return Session(served.url, answer["access_token"], answer["session_id"])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A key, and no server yet."""
    with ExitStack() as stack:
        yield House(Shell(tmp_path), stack)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_forgets_no_session(house: House, how: int) -> None:
    """After a stop, or a kill, the first upload and run are judged with sessions that nobody has used since."""
    one = house.serve()
    old = house.session(one)
    assert old.put(6 * MiB) == ""
    if how == signal.SIGKILL:
        house.noted(old, 6 * MiB)
    one.end(how)
    two = house.serve()
    assert house.session(two).put(3 * MiB) == "key_bytes"
    assert house.session(two).write(MiB) == ""
    assert house.session(two).write(2 * MiB) == "key_bytes"
    assert old.at(two).usage() == 6 * MiB


def test_an_end_makes_room(house: House) -> None:
    """Whoever ends a session that was not used since the start has its room soon, and nothing is left on record."""
    one = house.serve()
    old, other = house.session(one), house.session(one)
    assert old.put(6 * MiB) == ""
    one.end(signal.SIGTERM)
    two = house.serve()
    fresh = other.at(two)
    assert fresh.put(3 * MiB) == "key_bytes"
    old.at(two).close()
    until(lambda: fresh.put(3 * MiB) == "")
    assert house.ask("SELECT count(*) FROM session_usage WHERE session_id = ?", old.id) == [(0,)]


def test_deleting_makes_room(house: House) -> None:
    """What is deleted over HTTP, in a session that was not used since the start, makes room at once."""
    one = house.serve()
    old = house.session(one)
    assert old.put(6 * MiB) == ""
    one.end(signal.SIGTERM)
    two = house.serve()
    fresh = house.session(two)
    assert fresh.put(3 * MiB) == "key_bytes"
    assert old.at(two).delete() == 204
    assert fresh.put(3 * MiB) == ""
    assert fresh.put(6 * MiB, "b") == "key_bytes"


def test_sessions_that_nobody_counted(house: House) -> None:
    """Sessions of which nothing is noted are counted in the background once there is a quota, and kept on record."""
    one = house.serve(DATAPROC_KEY_BYTES=str(2**40))
    old = house.session(one)
    assert old.put(6 * MiB) == ""
    one.end(signal.SIGTERM)
    house.ask("DELETE FROM session_usage")
    two = house.serve()
    house.noted(old, 6 * MiB)
    assert house.session(two).put(3 * MiB) == "key_bytes"


def test_without_a_quota_it_is_noted_all_the_same(house: House) -> None:
    """A quota that is set later finds what was written before counted, without a walk."""
    with house.shell.serve() as unlimited:
        old = house.session(unlimited)
        assert old.put(6 * MiB) == ""
        assert old.write(MiB) == ""
    assert house.ask("SELECT bytes, files FROM session_usage WHERE session_id = ?", old.id) == [(7 * MiB, 2)]


def test_two_servers_on_one_folder(house: House) -> None:
    """A session that two servers have under watch counts once, and both know what the other's sessions take."""
    one, two = house.serve(), house.serve()
    shared = house.session(one)
    assert shared.put(3 * MiB) == ""
    assert shared.at(two).put(MiB, "b") == ""
    house.noted(shared, 4 * MiB)
    here, there = house.session(one), house.session(two)
    assert here.put(3 * MiB) == ""
    until(lambda: there.put(2 * MiB) == "key_bytes" or there.delete() != 204)
    assert there.put(MiB) == ""
    shared.at(two).close()
    until(lambda: here.put(4 * MiB, "c") == "")


def test_servers_on_one_bucket(tmp_path: Path, s3: S3) -> None:
    """Two servers share the quota of a key within seconds; a kill of one loses nothing; an end makes room."""
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, s3, stack)
        one, two = cluster.serve("one", **QUOTA), cluster.serve("two", **QUOTA)
        here, there = opened(one, cluster.key), opened(two, cluster.key)
        assert there.put(1) == ""
        assert here.put(6 * MiB) == ""
        until(lambda: there.put(3 * MiB) == "key_bytes" or there.put(1) != "")
        one.end(signal.SIGKILL)
        assert there.put(3 * MiB) == "key_bytes"
        here.at(two).close()
        until(lambda: there.put(3 * MiB) == "")


def test_uncounted_sessions_in_a_bucket(tmp_path: Path, s3: S3) -> None:
    """In object storage the index of the current revision says what a session takes, without fetching it."""
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, s3, stack)
        one = cluster.serve("one", **QUOTA)
        old = opened(one, cluster.key)
        assert old.put(6 * MiB, "d/a") == ""
        one.end(signal.SIGTERM)
        (before,) = _asked_of(tmp_path / "shared.db", "SELECT bytes, files FROM session_usage")
        _asked_of(tmp_path / "shared.db", "DELETE FROM session_usage")
        two = cluster.serve("two", **QUOTA)
        fresh = opened(two, cluster.key)
        until(lambda: fresh.put(3 * MiB) == "key_bytes" or fresh.delete() != 204)
        noted = _asked_of(tmp_path / "shared.db", "SELECT bytes, files FROM session_usage WHERE session_id = ?", old.id)
        assert noted == [before] == [(6 * MiB, 2)]


def test_many_at_once(house: House) -> None:
    """Uploads at the same time into many sessions, each of which would fit alone, do not fit together."""
    served = house.serve()
    sessions = [house.session(served) for _ in range(6)]
    together, answers = threading.Barrier(len(sessions)), []

    def upload(session: Session) -> None:
        together.wait(DEADLINE)
        answers.append(session.put(3 * MiB))

    threads = [threading.Thread(target=upload, args=[session]) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert answers.count("key_bytes") == len(sessions) - answers.count("")
    assert 1 <= answers.count("") <= 2
    assert sum(session.usage() for session in sessions) <= KEY_BYTES
