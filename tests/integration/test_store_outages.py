"""A store in hard times: away and back, silent, with other credentials, cut off; and stops and restarts meanwhile."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.acceptance.conftest import Served, until
from tests.integration.test_cluster import Client, Cluster
from tests.s3 import Gate

TIMEOUT = "1"  # seconds for which the store may be silent
UNAVAILABLE = -32012


def served(cluster: Cluster, gate: Gate, name: str = "one", **env: str) -> Served:
    """A server that reaches the store through the gate."""
    return cluster.serve(name, **gate.env, **{"DATAPROC_S3_TIMEOUT": TIMEOUT, **env})


def refused(client: Client) -> tuple[int, bool]:
    """The code of the error that a run which writes ends in, and whether it can be tried again."""
    told = client.append()
    assert isinstance(told, dict), told
    return told["code"], told["data"]["retryable"]


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_gone_in_the_middle_and_back(cluster: Cluster, gate: Gate, how: str) -> None:
    """What cannot be stored is not acknowledged; all else goes on; when the store is back nothing is missing."""
    one = served(cluster, gate)
    client = cluster.session(one)
    assert client.append() == 1
    assert client.put("a", b"acknowledged") == 201
    with gate.gone(how), ThreadPoolExecutor(2) as calls:
        run, upload = calls.submit(refused, client), calls.submit(client.put, "b", b"while it was gone")
        begun = time.monotonic()
        while not (run.done() and upload.done()):
            assert httpx.get(f"{one.url}/livez", timeout=2).text == "ok"
            assert client.get("a") == b"acknowledged"
        assert time.monotonic() - begun < 12
        assert run.result() == (UNAVAILABLE, True)
        assert upload.result() == 503
    until(lambda: cluster.objects(client.id).get("files/b") == b"while it was gone")  # nobody asks for that
    assert client.append() == 3
    assert client.put("c", b"after") == 201
    one.end(signal.SIGKILL)
    other = client.at(cluster.serve("two"))
    assert [other.get(name) for name in "abc"] == [b"acknowledged", b"while it was gone", b"after"]
    assert other.append() == 4


def test_a_stop_while_the_store_is_silent(cluster: Cluster, gate: Gate) -> None:
    """It ends within the close wait and some seconds, and says of which session something was not stored."""
    one = served(cluster, gate, DATAPROC_CLOSE_WAIT="1", DATAPROC_S3_TIMEOUT="60")
    client = cluster.session(one)
    assert client.append() == 1
    with gate.gone("hangs"), ThreadPoolExecutor(1) as calls:
        before = gate.files("PUT")
        run = calls.submit(client.append)
        until(lambda: gate.files("PUT") > before)
        begun = time.monotonic()
        assert one.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 1 + 5 + 5 + 3
        assert run.exception() is not None or run.result()["code"] == UNAVAILABLE
    assert "storage.not_stored" in (cluster.folder / "one" / "server.log").read_text()
    assert client.at(cluster.serve("two")).append() == 2


def test_credentials_become_wrong(cluster: Cluster, gate: Gate) -> None:
    """Runs that write are told so at once, runs that read go on; with the right ones again, nothing is missing."""
    one = served(cluster, gate)
    client = cluster.session(one)
    assert client.append() == 1
    gate.refuse = True
    assert refused(client) == (UNAVAILABLE, True)
    assert httpx.get(f"{one.url}/readyz", timeout=10).status_code == 503
    gate.refuse = False
    assert client.append() == 3
    one.end(signal.SIGKILL)
    assert client.at(cluster.serve("two")).append() == 4


def test_a_fetch_that_is_cut(cluster: Cluster, gate: Gate) -> None:
    """Half a file is none: the caller is told to try again, and gets the whole one when that is possible."""
    one = cluster.serve("one")
    client = cluster.session(one)
    assert client.put("a", b"whole" * 1000) == 201
    one.end(signal.SIGTERM)
    other = client.at(served(cluster, gate, "two"))
    gate.cut = True
    assert other.get("a") == 503
    gate.cut = False
    assert other.get("a") == b"whole" * 1000


def test_a_restart_fetches_nothing_that_is_here(cluster: Cluster, gate: Gate) -> None:
    """After a kill the same node has its sessions again, and asks the store for no file."""
    one = served(cluster, gate)
    client = cluster.session(one)
    data = {f"d/{number}": bytes([number]) * 100_000 for number in range(8)}
    assert [client.put(path, content) for path, content in data.items()] == [201] * len(data)
    one.end(signal.SIGKILL)
    before = gate.files()
    again = client.at(served(cluster, gate))
    assert {path: again.get(path) for path in data} == data
    assert gate.files() == before


def test_large_files_hold_up_no_small_ones(cluster: Cluster, gate: Gate) -> None:
    """However many large files are on their way, and however slowly, small ones of other sessions get to the store."""
    one = served(cluster, gate, DATAPROC_S3_TIMEOUT="60")
    clients = [cluster.session(one) for _ in range(18)]
    assert clients[0].put("a", b"small") == 201
    gate.hold = ("POST", "?uploads")
    with ThreadPoolExecutor(18) as calls:
        large = [calls.submit(client.put, "large", bytes(9 * 2**20)) for client in clients[1:]]
        try:
            until(lambda: sum("?uploads" in path for _, path in gate.seen) >= 4)
            assert calls.submit(clients[0].put, "b", b"small").result(10) == 201
            assert not any(each.done() for each in large)
        finally:
            gate.let_go.set()
        assert {each.result() for each in large} == {201}
