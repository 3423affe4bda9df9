"""Servers that share one bucket and one database: killed at the worst moments, and with a store that fails."""

from __future__ import annotations

import re
import signal
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.conftest import DEADLINE, REPOSITORY, Served, Shell, call, headers, until
from tests.s3 import S3, Gate

RPC = "/api/v1/dataproc/jsonrpc"
FILES = "/api/v1/dataproc/files/"
LEASE = 2.0


@dataclass
class Cluster:
    """Servers over one bucket, each with a folder of its own."""

    folder: Path
    s3: S3
    stack: ExitStack
    bucket: str = ""
    key: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bucket = self.s3.bucket()
        self.key = self.shell("keys").key()

    def shell(self, name: str, **env: str) -> Shell:
        """The command with this cluster's settings."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        shared = {
            "DATAPROC_STORAGE_URL": f"s3://{self.bucket}/p",
            "DATAPROC_DATABASE_URL": f"sqlite:///{self.folder}/shared.db",
            "DATAPROC_CACHE_DIR": str(folder / "cache"),
            "DATAPROC_MODULES_DIR": str(REPOSITORY / "modules"),
            "DATAPROC_LEASE": str(LEASE),
            "DATAPROC_CLUSTER_SECRET": "the-secret-of-this-cluster",
            "DATAPROC_CREDENTIAL_CACHE": "0.2",
        }
        return Shell(folder, {**shared, **self.s3.env, **env})

    def serve(self, name: str, **env: str) -> Served:
        """A server, up; ended at the end of the test."""
        served = self.stack.enter_context(self.shell(name, **env).serve())
        assert served.url
        return served

    def session(self, served: Served) -> Client:
        """A client of a new session, opened there."""
        opened = httpx.post(
            served.url + "/api/v1/session/jsonrpc",
            json=call("session.open_session"),
            headers=headers(self.key),
            timeout=DEADLINE,
        ).json()["result"]
        return Client(served.url, opened["access_token"], opened["session_id"])

    def revision(self, session_id: str) -> str | None:
        """What the database says."""
        with closing(sqlite3.connect(self.folder / "shared.db")) as database:
            row = database.execute("SELECT revision FROM leases WHERE session_id = ?", [session_id]).fetchone()
        return row and row[0]

    def objects(self, session_id: str) -> dict[str, bytes]:
        """All objects of a session, by their keys below it, but for those that are swept meanwhile."""
        fs, top = self.s3.fs(), f"{self.bucket}/p/sessions/{session_id[:2]}/{session_id}/"
        found = {}
        for path in fs.find(top):
            with suppress(FileNotFoundError):
                found[path.removeprefix(top)] = fs.cat_file(path)
        return found


@dataclass(frozen=True)
class Client:
    """A session, seen through one server."""

    url: str
    token: str
    id: str

    def at(self, served: Served) -> Client:
        """The same session through another server."""
        return Client(served.url, self.token, self.id)

    def append(self) -> Any:
        """Run a method that appends a line to a file: the answer."""
        asked = call("dataproc.exec", module="test-module", method="append")
        who = {"Xdata-Session-Token": self.token}
        answer = httpx.post(self.url + RPC, json=asked, headers=who, timeout=DEADLINE).json()
        return answer.get("result", answer.get("error"))

    def put(self, path: str, data: bytes) -> int:
        """The status of an upload; 0 where the connection broke."""
        return self._file("PUT", path, data).status_code

    def get(self, path: str) -> bytes | int:
        """A file, or the status."""
        found = self._file("GET", path)
        return found.content if found.status_code == 200 else found.status_code

    def _file(self, method: str, path: str, data: bytes | None = None) -> httpx.Response:
        who = {"Xdata-Session-Token": self.token}
        try:
            return httpx.request(method, self.url + FILES + path, content=data, headers=who, timeout=DEADLINE)
        except httpx.TransportError:
            return httpx.Response(0)

    def close(self) -> Any:
        """End the session."""
        who = {"Xdata-Session-Token": self.token}
        asked = call("session.close_session", token=self.token)
        return httpx.post(self.url + "/api/v1/session/jsonrpc", json=asked, headers=who, timeout=DEADLINE).json()


@contextmanager
def meanwhile(work: Any, *args: Any) -> Iterator[list[Any]]:
    """`work` in a thread, while the block runs; what it returned is in the list afterwards."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work(*args)), daemon=True)
    thread.start()
    yield results
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_any_server_answers_for_any_session(cluster: Cluster) -> None:
    """What one server wrote the other reads at once, by asking the holder; both append to the same file."""
    one, two = cluster.serve("one"), cluster.serve("two")
    here = cluster.session(one)
    there = here.at(two)
    assert here.put("a/b.txt", b"from one") == 201
    assert there.get("a/b.txt") == b"from one"
    assert there.put("a/c.txt", b"x" * 3_000_000) == 201
    assert here.get("a/c.txt") == b"x" * 3_000_000
    lines = [client.append() for client in (here, there, here, there)]
    assert lines == [1, 2, 3, 4]
    assert there.get("none") == 404
    listed = httpx.get(two.url + FILES, headers={"Xdata-Session-Token": here.token}).json()
    assert {entry["name"] for entry in listed["entries"]} >= {"a"}


def test_a_stopped_server_hands_over_at_once(cluster: Cluster) -> None:
    """After a stop the plain names are complete, and another server has the session without waiting for the lease."""
    one = cluster.serve("one")
    client = cluster.session(one)
    assert client.put("a/b.txt", b"1") == 201
    assert one.end(signal.SIGTERM) == 0
    assert cluster.objects(client.id)["files/a/b.txt"] == b"1"
    assert client.at(cluster.serve("two")).get("a/b.txt") == b"1"


def test_kill_between_upload_and_commit(cluster: Cluster, gate: Gate) -> None:
    """Objects are up, the revision is not: the next holder finds what was acknowledged before, and sweeps the rest."""
    one, two = cluster.serve("one", **gate.env), cluster.serve("two")
    client = cluster.session(one)
    assert client.put("a", b"acknowledged") == 201
    gate.hold = ("PUT", "index.json")
    with meanwhile(client.put, "a", b"never acknowledged") as answers:
        assert gate.held.wait(DEADLINE)
        one.end(signal.SIGKILL)
    assert answers == [0]
    assert client.at(two).get("a") == b"acknowledged"
    assert client.at(two).put("b", b"2") == 201
    until(lambda: b"never acknowledged" not in cluster.objects(client.id).values())


def test_a_server_lost_under_a_forwarded_upload(cluster: Cluster, gate: Gate) -> None:
    """The caller of another server is told to try again, and does."""
    one, two = cluster.serve("one", **gate.env), cluster.serve("two")
    client = cluster.session(one)
    assert client.put("a", b"before") == 201
    gate.hold = ("PUT", "index.json")
    with meanwhile(client.at(two).put, "a", b"after") as answers:
        assert gate.held.wait(DEADLINE)
        one.end(signal.SIGKILL)
    assert answers == [503]
    assert client.at(two).put("a", b"after") in (201, 204)
    assert client.at(two).get("a") == b"after"


def test_kill_between_commit_and_answer(cluster: Cluster, gate: Gate) -> None:
    """The revision is current, the plain names are not: the next holder finds the file, and finishes the copy."""
    one, two = cluster.serve("one", **gate.env), cluster.serve("two")
    client = cluster.session(one)
    gate.hold = ("PUT", "/files/a")
    with meanwhile(client.put, "a", b"committed"):
        until(lambda: cluster.revision(client.id))
        assert gate.held.wait(DEADLINE)
        one.end(signal.SIGKILL)
    assert client.at(two).get("a") == b"committed"
    assert client.at(two).put("b", b"2") == 201
    until(lambda: cluster.objects(client.id).get("files/b") == b"2")
    assert cluster.objects(client.id)["files/a"] == b"committed"


def test_kill_during_deletion(cluster: Cluster, gate: Gate) -> None:
    """A session that was being deleted is deleted by another server."""
    one = cluster.serve("one", **gate.env)
    client = cluster.session(one)
    assert client.put("a", b"1") == 201
    gate.hold = ("POST", "delete")
    gate.fail_every = 0
    with meanwhile(client.close):
        assert gate.held.wait(DEADLINE)
        one.end(signal.SIGKILL)
    two = cluster.serve("two")
    until(lambda: not cluster.objects(client.id))
    assert client.at(two).get("a") == 401


def test_a_frozen_server_cannot_commit(cluster: Cluster) -> None:
    """A server that slept through its lease changes nothing of what the next holder has, and says so to its caller."""
    one, two = cluster.serve("one"), cluster.serve("two")
    client = cluster.session(one)
    assert client.put("a", b"first") == 201
    one.process.send_signal(signal.SIGSTOP)
    assert client.at(two).put("a", b"second") == 204
    with meanwhile(client.put, "a", b"too late") as answers:
        one.process.send_signal(signal.SIGCONT)
    assert client.at(two).get("a") in (b"second", b"too late")
    assert answers[0] in (204, 409)  # by then it may have heard of the other, and forwarded
    assert client.get("a") == client.at(two).get("a")


def test_a_store_that_fails_now_and_then(cluster: Cluster, gate: Gate) -> None:
    """One request in ten fails, and nobody notices."""
    gate.fail_every = 10
    client = cluster.session(cluster.serve("one", **gate.env))
    data = {f"d/{number}": uuid.uuid4().bytes * 1000 for number in range(20)}
    assert [client.put(path, content) for path, content in data.items()] == [201] * 20
    two = client.at(cluster.serve("two"))
    assert {path: two.get(path) for path in data} == data


def test_a_store_that_is_gone_for_a_while(cluster: Cluster, gate: Gate) -> None:
    """While it is gone callers are told so; what a run wrote meanwhile is in the store when it is back."""
    one = cluster.serve("one", **gate.env)
    client = cluster.session(one)
    assert client.append() == 1
    gate.down = True
    refused = client.append()
    assert (refused["code"], refused["data"]["retryable"]) == (-32012, True)
    gate.down = False
    assert client.append() == 3
    one.end(signal.SIGKILL)
    assert client.at(cluster.serve("two")).append() == 4


def test_wrong_credentials_are_told_at_the_start(cluster: Cluster, gate: Gate) -> None:
    """A server that the store refuses does not start, and says in one line why, and what to look at."""
    gate.refuse = True
    refused = cluster.shell("one", **gate.env).run("serve")
    assert refused.returncode == 4
    last = refused.stderr.strip().splitlines()[-1]
    assert "no such key id here" in last
    assert "AWS_ACCESS_KEY_ID" in last
    assert "a-secret-of-the-store" not in refused.stderr


def test_requests_to_the_store_are_counted(cluster: Cluster) -> None:
    """An operator sees how many there are of each kind, and how long they take."""
    served = cluster.serve("one")
    cluster.session(served).append()
    told = httpx.get(f"{served.url}/metrics", timeout=DEADLINE).text
    found = re.findall(r'storage_operations_seconds_count{backend="s3",op="put"} (\S+)', told)
    assert [float(count) >= 2 for count in found] == [True]  # the file, and the index of the revision


def test_a_module_does_not_see_the_stores_credentials(cluster: Cluster) -> None:
    """Neither a worker's environment nor what it can read has them."""
    served = cluster.serve("one", DATAPROC_MODULES_DIR=str(REPOSITORY / "tests" / "modules"))
    client = cluster.session(served)
    asked = call("dataproc.exec", module="prober", method="environment")
    answer = httpx.post(
        served.url + RPC, json=asked, headers={"Xdata-Session-Token": client.token}, timeout=DEADLINE
    ).json()
    assert "result" in answer, answer
    assert "AWS" not in str(answer)
    assert "a-secret-of-the-store" not in str(answer)
