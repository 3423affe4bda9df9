"""Files that nginx sends for the server: the shipped configuration, with a real nginx, and attacked."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, Shell, call, headers
from tests.acceptance.test_nginx import FILES, NGINX, SESSION, address, nginx, token

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (apt install nginx): files that it sends are NOT tested"
)


@dataclass
class Front:
    """nginx, the server behind it, and a session."""

    url: str
    direct: str
    sent: dict[str, str]
    files: Path

    def get(self, path: str, **more: str) -> httpx.Response:
        return httpx.get(f"{self.url}{FILES}{path}", headers={**self.sent, **more}, timeout=DEADLINE)

    def put(self, path: str, content: bytes) -> httpx.Response:
        return httpx.put(f"{self.url}{FILES}{path}", content=content, headers=self.sent, timeout=DEADLINE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Shell]]:
    folder = tmp_path_factory.mktemp("server")
    shell = Shell(folder, {"DATAPROC_FORWARDED_ALLOW_IPS": "127.0.0.1", "DATAPROC_ACCEL_PREFIX": "/_files"})
    replaced = {"/var/lib/dataproc/storage": str(folder / "storage")}
    if os.getuid() == 0:
        replaced["worker_processes auto;"] = "worker_processes auto;\nuser root;"
    with ExitStack() as stack:
        server = stack.enter_context(shell.serve())
        front = tmp_path_factory.mktemp("front")
        proxy = stack.enter_context(nginx(front, "files.conf", **{"127.0.0.1:8000": address(server)}, **replaced))
        yield proxy, server.url, shell


@pytest.fixture
def front(served: tuple[str, str, Shell]) -> Front:
    """A fresh session, by way of nginx."""
    proxy, direct, shell = served
    who = headers(shell.key(f"key-{os.urandom(4).hex()}"))
    opened = httpx.post(proxy + SESSION, json=call("session.open_session"), headers=who, timeout=DEADLINE)
    session = opened.json()["result"]
    place = shell.folder / "storage" / "sessions" / session["session_id"][:2] / session["session_id"]
    return Front(proxy, direct, token(session), place / "files")


def test_nginx_sends_what_the_server_would(front: Front) -> None:
    """Bytes, ranges, conditions and every header of safety are the same with nginx in between and without."""
    data = os.urandom(300_000)
    assert front.put("a b/ü#?%25.csv".replace("#", "%23").replace("?", "%3F"), data).status_code == 201
    name = "a%20b/%C3%BC%23%3F%25.csv"
    whole, direct = front.get(name), httpx.get(f"{front.direct}{FILES}{name}", headers=front.sent)
    assert (whole.status_code, whole.content == data, direct.content == data) == (200, True, True)
    for header in ("ETag", "Last-Modified", "Content-Type", "X-Content-Type-Options", "Content-Security-Policy",
                   "Cache-Control", "Accept-Ranges", "Xdata-Session-Id"):  # fmt: skip
        assert whole.headers.get_list(header) == direct.headers.get_list(header), header
    assert whole.headers["Server"] == "nginx"
    assert "X-Accel-Redirect" not in whole.headers
    tag = whole.headers["ETag"]
    part = front.get(name, **{"Range": "bytes=5-9", "If-Range": tag})
    assert (part.status_code, part.content) == (206, data[5:10])
    assert len(front.get(name, **{"Range": "bytes=5-9", "If-Range": '"other"'}).content) == len(data)
    assert front.get(name, **{"If-None-Match": tag}).status_code == 304
    assert httpx.head(f"{front.url}{FILES}{name}", headers=front.sent).headers["Content-Length"] == str(len(data))


def test_who_comes_without_the_proxy_gets_the_bytes(front: Front) -> None:
    """The server itself sends to whoever asks it directly, and says nothing of its disk."""
    front.put("f", b"1")
    direct = httpx.get(f"{front.direct}{FILES}f", headers=front.sent)
    assert (direct.content, "X-Accel-Redirect" in direct.headers) == (b"1", False)


def test_the_internal_location_is_not_for_clients(front: Front) -> None:
    """Nobody reaches the storage by naming its location."""
    front.put("f", b"1")
    place = front.files.relative_to(front.files.parents[3])
    for path in (f"/_files/{place}/f", "/_files/dataproc.db", f"{FILES}../../../../_files/dataproc.db"):
        assert httpx.get(front.url + path, headers=front.sent).status_code in (400, 404)


def test_links(front: Front) -> None:
    """A link that stays inside is read as ever, by the server; one that leaves is refused."""
    front.put("f", b"inside")
    (front.files / "in").symlink_to("f")
    (front.files / "out").symlink_to("/etc/passwd")
    assert front.get("in").content == b"inside"
    assert front.get("out").status_code == 400


def test_a_file_that_is_swapped_for_a_link(front: Front) -> None:
    """Whatever a module puts in a file's or a folder's place after the server looked, nginx follows it nowhere."""
    secret = front.files.parents[3] / "secret.txt"
    secret.write_bytes(b"secret")
    (front.files.parents[3] / "outside").mkdir(exist_ok=True)
    (front.files.parents[3] / "outside" / "f").write_bytes(b"secret")
    front.put("d/f", b"mine")
    front.put("g", b"mine")
    over = threading.Event()

    def swap() -> None:
        (front.files / "link").symlink_to(secret)
        (front.files / "links").symlink_to(secret.parent / "outside")
        while not over.is_set():
            for one, other in (("link", "g"), ("links", "d")):
                for _ in range(2):
                    os.rename(front.files / other, front.files / "between")
                    os.rename(front.files / one, front.files / other)
                    os.rename(front.files / "between", front.files / one)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        with httpx.Client(headers=front.sent, timeout=DEADLINE) as client:
            answers = [client.get(f"{front.url}{FILES}{path}") for _ in range(150) for path in ("g", "d/f")]
    finally:
        over.set()
        swapping.join()
    assert not any(b"secret" in answer.content for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 400, 403, 404}
    assert any(answer.content == b"mine" for answer in answers)
