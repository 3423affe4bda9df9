"""The shipped configurations of nginx, with a real nginx before real servers."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, REPOSITORY, Served, Shell, call, headers, until

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
RPC = "/api/v1/dataproc/jsonrpc"
SESSION = "/api/v1/session/jsonrpc"
FILES = "/api/v1/dataproc/files/"
SECRET = "a-secret-of-the-proxy"

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (apt install nginx): its configurations are NOT tested"
)


def a_port() -> int:
    """One that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def nginx(folder: Path, name: str, **replaced: str) -> Iterator[str]:
    """nginx with a shipped configuration, in which addresses and the secret are replaced; its address."""
    port = a_port()
    text = (REPOSITORY / "examples" / "nginx" / name).read_text()
    for old, new in {"127.0.0.1:8080": f"127.0.0.1:{port}", **replaced}.items():
        assert old in text
        text = text.replace(old, new)
    # an unprivileged place for what the package would put below /var
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        text = text.replace("http {\n", f"http {{\n    {kind}_temp_path {folder}/nginx-{kind};\n", 1)
    (folder / "nginx.conf").write_text(text)
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Gateway:
    """nginx, the authority and the workers behind it, and somebody with a key."""

    url: str
    authority: str
    workers: list[Path]
    shell: Shell
    key: dict[str, Any]

    def open(self, scopes: list[str] | None = None) -> dict[str, Any]:
        asked = call("session.open_session", **({"scopes": scopes} if scopes else {}))
        answer = httpx.post(self.url + SESSION, json=asked, headers=headers(self.key), timeout=DEADLINE).json()
        assert "result" in answer, answer
        return dict(answer["result"])

    def exec(self, sent: dict[str, str], method: str = "append") -> httpx.Response:
        asked = call("dataproc.exec", module="test-module", method=method)
        return httpx.post(self.url + RPC, json=asked, headers=sent, timeout=DEADLINE)

    def homes(self, session_id: str) -> list[int]:
        """Which workers have the session's folder."""
        found = f"sessions/{session_id[:2]}/gw.{session_id}"
        return [place for place, folder in enumerate(self.workers) if (folder / "storage" / found).exists()]


def token(opened: dict[str, Any]) -> dict[str, str]:
    return {"Xdata-Session-Token": opened["access_token"]}


def address(served: Served) -> str:
    return served.url.removeprefix("http://")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with ExitStack() as stack:
        shells = []
        for name in ("authority", "one", "two"):
            folder = tmp_path_factory.mktemp(name)
            secret = {} if name == "authority" else {"DATAPROC_GATEWAY_SECRET": SECRET}
            shells.append(Shell(folder, {"DATAPROC_FORWARDED_ALLOW_IPS": "127.0.0.1", **secret}))
        authority, one, two = [stack.enter_context(shell.serve()) for shell in shells]
        replaced = {
            "127.0.0.1:8000": address(authority),
            "127.0.0.1:8001": address(one),
            "127.0.0.1:8002": address(two),
            "change-me": SECRET,
        }
        url = stack.enter_context(nginx(tmp_path_factory.mktemp("nginx"), "gateway.conf", **replaced))
        folders = [shell.folder for shell in shells[1:]]
        yield Gateway(url, authority.url, folders, shells[0], shells[0].key())


def test_a_session_runs_on_one_worker(gateway: Gateway) -> None:
    """Calls and files of a session meet at the same worker, by its id; the authority has none of them."""
    homes = set()
    for _ in range(8):
        opened = gateway.open()
        counts = [gateway.exec(token(opened)) for _ in range(3)]
        assert [answer.json()["result"] for answer in counts] == [1, 2, 3]
        assert counts[0].headers["xdata-session-id"] == opened["session_id"]
        put = httpx.put(f"{gateway.url}{FILES}a/b.txt", content=b"x" * 3_000_000, headers=token(opened), timeout=30)
        assert put.status_code == 201, put.text
        got = httpx.get(f"{gateway.url}{FILES}a/b.txt", headers=token(opened), timeout=30)
        assert len(got.content) == 3_000_000
        (home,) = gateway.homes(opened["session_id"])
        homes.add(home)
    assert homes == {0, 1}
    assert not list((gateway.shell.folder / "storage" / "sessions").glob("*/*/files/*"))


def test_a_key_is_served_by_the_authority(gateway: Gateway) -> None:
    """A call without a session runs there, with the caller's own credentials."""
    answer = gateway.exec(headers(gateway.key), "session-test")
    assert "result" in answer.json(), answer.text
    assert gateway.homes(answer.headers["xdata-session-id"]) == []


def test_a_token_can_do_no_more_than_it_may(gateway: Gateway) -> None:
    """What may only read files reads, and neither writes nor runs."""
    opened = gateway.open()
    httpx.put(f"{gateway.url}{FILES}t.txt", content=b"hello", headers=token(opened), timeout=DEADLINE)
    asked = call("session.issue_token", scopes=["files.read"])
    issued = httpx.post(gateway.url + SESSION, json=asked, headers=token(opened), timeout=DEADLINE).json()["result"]
    narrow = token(issued)
    assert httpx.get(f"{gateway.url}{FILES}t.txt", headers=narrow, timeout=DEADLINE).content == b"hello"
    forged = {**narrow, "Xdata-Scopes": "dataproc.exec files.write", "Xdata-Gateway-Secret": SECRET}
    for sent in (narrow, forged):
        assert httpx.put(f"{gateway.url}{FILES}t.txt", content=b"x", headers=sent, timeout=DEADLINE).status_code == 403
        assert httpx.delete(f"{gateway.url}{FILES}t.txt", headers=sent, timeout=DEADLINE).status_code == 403
        assert gateway.exec(sent).json()["error"]["code"] == -32002


def test_forged_headers_count_for_nothing(gateway: Gateway) -> None:
    """Whatever session, key or scopes a client names, with the secret too: its own token decides, or nothing does."""
    mine, other = gateway.open(), gateway.open()
    httpx.put(f"{gateway.url}{FILES}whose", content=b"mine", headers=token(mine), timeout=DEADLINE)
    httpx.put(f"{gateway.url}{FILES}whose", content=b"other", headers=token(other), timeout=DEADLINE)
    for name in ("Xdata-Session-Id", "xdata-session-id", "XDATA-SESSION-ID"):
        forged = {name: other["session_id"], "Xdata-Gateway-Secret": SECRET, "Xdata-Key": "x", "Xdata-Scopes": "admin"}
        got = httpx.get(f"{gateway.url}{FILES}whose", headers={**token(mine), **forged}, timeout=DEADLINE)
        assert got.content == b"mine"
        for path in (f"{FILES}whose", "/cra/ServiceGateway/Services/DATAPROC/products"):
            assert httpx.get(gateway.url + path, headers=forged, timeout=DEADLINE).status_code == 401
        for path in (RPC, SESSION):
            sent = call("rpc.discover")
            assert httpx.post(gateway.url + path, json=sent, headers=forged, timeout=DEADLINE).status_code == 401


def test_refusals_are_explained(gateway: Gateway) -> None:
    """Through the proxy, too, a caller learns whether its token is unknown or its session over."""
    opened = gateway.open()
    assert gateway.exec(token(opened)).status_code == 200
    asked = call("session.close_session", token=opened["access_token"])
    httpx.post(gateway.url + SESSION, json=asked, headers=headers(gateway.key), timeout=DEADLINE)
    refused = gateway.exec(token(opened))
    assert (refused.status_code, refused.json()["error"]["data"]["reason"]) == (401, "closed")
    assert gateway.exec({"Xdata-Session-Token": "unknown"}).json()["error"]["code"] == -32001
    assert "www-authenticate" in gateway.exec({}).headers


def test_what_nobody_outside_may_see(gateway: Gateway) -> None:
    """Neither the resolver nor metrics are reachable through the proxy."""
    for path in ("/auth/resolve", "/_resolve", "/metrics", "/"):
        assert httpx.get(gateway.url + path, headers=headers(gateway.key), timeout=DEADLINE).status_code == 404
    assert httpx.get(gateway.url + "/livez", timeout=DEADLINE).status_code == 200


def test_sizes(gateway: Gateway) -> None:
    """A call above the limit is refused by the proxy; a file of that size is not."""
    opened = gateway.open()
    large = b"x" * (17 * 2**20)
    refused = httpx.post(gateway.url + RPC, content=large, headers=token(opened), timeout=DEADLINE)
    assert refused.status_code == 413
    put = httpx.put(f"{gateway.url}{FILES}large", content=large, headers=token(opened), timeout=DEADLINE)
    assert put.status_code == 201
    strange = httpx.put(f"{gateway.url}{FILES}large", content=large, headers={"APIKey": "x"}, timeout=DEADLINE)
    assert strange.status_code == 401


def test_events_come_at_once(gateway: Gateway) -> None:
    """A stream through the proxy shows a run's events while it is under way."""
    opened = gateway.open()
    asked = call("dataproc.submit", module="test-module", method="append")
    submitted = httpx.post(gateway.url + RPC, json=asked, headers=token(opened), timeout=DEADLINE).json()["result"]
    url = f"{gateway.url}/api/v1/dataproc/runs/{submitted['run_id']}/events"
    with httpx.stream("GET", url, headers=token(opened), timeout=DEADLINE) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert any(line.startswith("data:") for line in stream.iter_lines())


def test_the_facade_through_the_proxy(gateway: Gateway) -> None:
    """Its clients need nothing but the address."""
    base = f"{gateway.url}/cra/ServiceGateway/Services/DATAPROC"
    login = {"username": gateway.key["apikey"], "password": gateway.key["secret"]}
    user = httpx.post(f"{base}/Logon", data=login, timeout=DEADLINE).json()["userToken"]
    sent = {"Authorization": f"Bearer {user}"}
    page = httpx.get(f"{base}/products/tabular/views/weather/data?numRows=3", headers=sent, timeout=DEADLINE).json()
    assert (page["numRows"], page["totalRowCount"]) == (3, 1461)


def test_a_single_server_behind_a_proxy(shell: Shell) -> None:
    """Calls, files and the client's address pass; the resolver does not."""
    key = shell.key()
    with ExitStack() as stack:
        served = stack.enter_context(shell.serve(DATAPROC_FORWARDED_ALLOW_IPS="127.0.0.1"))
        url = stack.enter_context(nginx(shell.folder, "single.conf", **{"127.0.0.1:8000": address(served)}))
        asked = call("session.open_session")
        opened = httpx.post(url + SESSION, json=asked, headers=headers(key), timeout=DEADLINE).json()["result"]
        large = b"x" * (20 * 2**20)
        put = httpx.put(f"{url}{FILES}large", content=large, headers=token(opened), timeout=DEADLINE)
        assert put.status_code == 201
        assert httpx.get(f"{url}{FILES}large", headers=token(opened), timeout=DEADLINE).content == large
        assert httpx.get(f"{url}/auth/resolve", headers=token(opened), timeout=DEADLINE).status_code == 404
