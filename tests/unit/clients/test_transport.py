from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dataproc_client.errors import ConnectionFailed, ConnectionLost, Timeout, UnexpectedAnswer
from xdata_dataproc.client import ApiV2

from .conftest import Reply, Sent, Station, result

CALL: dict[str, Any] = {"module": "m", "method": "f"}


def test_one_connection_for_many_calls(station: Station) -> None:
    """A connection is kept and used again."""
    api = ApiV2(station.url)
    for _ in range(3):
        api.exec(**CALL)
    assert len({sent.connection for sent in station.sent}) == 1


def test_threads_share_a_client(station: Station) -> None:
    """Each of many threads gets the answer to its own call."""
    station.answer = lambda sent: result(sent.rpc["params"]["params"]["n"])(sent)
    api = ApiV2(station.url)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: api.exec(**CALL, params={"n": n}), range(100))) == list(range(100))


def test_forked_child_has_connections_of_its_own(station: Station) -> None:
    """A child never writes on a connection that its parent uses."""
    api = ApiV2(station.url)
    api.exec(**CALL)
    pid = os.fork()
    if pid == 0:
        try:
            api.exec(**CALL)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    api.exec(**CALL)
    parent, child, again = (sent.connection for sent in station.sent)
    assert parent == again != child


def test_not_reached_is_retryable() -> None:
    """Where nobody listens nothing was done, so calling again is safe."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        api = ApiV2(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConnectionFailed) as raised:
            api.exec(**CALL)
    assert raised.value.retryable
    assert isinstance(raised.value, ConnectionError)


def test_lost_exec_is_not_repeated(station: Station) -> None:
    """A connection that breaks under exec is told, and exec is not sent twice: it may have run."""
    station.answer = lambda sent: Reply(None)
    with pytest.raises(ConnectionLost) as raised:
        ApiV2(station.url).exec(**CALL)
    assert not raised.value.retryable
    assert len(station.sent) == 1


@pytest.mark.parametrize("repeatable", ["version", "idempotent exec"])
def test_lost_and_repeatable_is_repeated(station: Station, repeatable: str) -> None:
    """What cannot do harm twice is sent once more on a new connection."""

    def first_hangs_up(sent: Sent) -> Reply:
        return Reply(None) if len(station.sent) == 1 else result("1.0")(sent)

    station.answer = first_hangs_up
    api = ApiV2(station.url)
    answer = api.get_server_version() if repeatable == "version" else api.exec(**CALL, idempotency_key="k")
    assert answer == "1.0"


def test_timeout(station: Station) -> None:
    """An answer that does not come in time is a Timeout, and no retry is promised."""
    release = threading.Event()

    def late(sent: Sent) -> Reply:
        release.wait(10)
        return Reply(None)

    station.answer = late
    with pytest.raises(Timeout) as raised:
        ApiV2(station.url, timeout=0.05).exec(**CALL)
    release.set()
    assert not raised.value.retryable
    assert isinstance(raised.value, TimeoutError)


def test_run_may_take_longer_than_the_client_waits(station: Station) -> None:
    """With a time limit of its own a call is waited for that long."""
    release = threading.Event()

    def late(sent: Sent) -> Reply:
        release.wait(0.3)
        return result(1)(sent)

    station.answer = late
    assert ApiV2(station.url, timeout=0.05).exec(**CALL, timeout=5) == 1


@pytest.mark.parametrize(("status", "retryable"), [(502, False), (503, True), (200, False)])
def test_answer_of_a_proxy(station: Station, status: int, retryable: bool) -> None:
    """An answer that is not the server's keeps its status and its text."""
    station.answer = lambda sent: Reply(status, b"<h1>proxy</h1>")
    with pytest.raises(UnexpectedAnswer) as raised:
        ApiV2(station.url).exec(**CALL)
    assert (raised.value.data["status"], raised.value.data["text"]) == (status, "<h1>proxy</h1>")
    assert raised.value.retryable is retryable


def test_answer_to_another_call(station: Station) -> None:
    """A result with a foreign id is no answer."""
    station.answer = lambda sent: Reply(body=b'{"jsonrpc": "2.0", "id": -1, "result": 1}')
    with pytest.raises(UnexpectedAnswer):
        ApiV2(station.url).exec(**CALL)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host/", "/api/v1"])
def test_address_must_be_http(url: str) -> None:
    """What is no http address is refused at once."""
    with pytest.raises(ValueError, match="address"):
        ApiV2(url)
