"""The file service over a real socket, on the real parts below it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import io
import json
import os
import socket
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import pytest
import uvicorn
from fastapi import FastAPI

from dataproc.access import Authenticator, Keys
from dataproc.clock import SystemClock
from dataproc.database import Database
from dataproc.sessions import Sessions
from dataproc.settings import Settings
from dataproc.storage import open_workspaces
from dataproc.types import Principal
from dataproc.web import files, refusals
from dataproc.web.server import PeerProtocol
from dataproc.web.transfer import CHUNK

PREFIX = files.PREFIX
DEADLINE = 30


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


@dataclass
class Served:
    """A server that is up; `ask` sends paths exactly as they are given, with a session's token."""

    port: int
    storage: Path
    token: str
    session: str
    run: Callable[[Callable[[Any], Any]], Any]
    key: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        sent = (
            {"Xdata-Session-Token": self.token, **(headers or {})}
            if headers is None or "APIKey" not in headers
            else headers
        )
        connection.request(method, PREFIX + path, body, dict(sent))
        answer = connection.getresponse()
        result = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return result

    @property
    def folder(self) -> Path:
        return self.storage / "sessions" / self.session[:2] / self.session


class Server(uvicorn.Server):
    """A uvicorn that tells when it is up."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", http=PeerProtocol))
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


async def _serve(settings: Settings, told: dict[str, Any], ready: threading.Event) -> None:
    database = await Database.open(settings.database, SystemClock())
    keys, sessions = Keys(database), Sessions(database, settings)
    key = await keys.create("tests")
    principal = Principal(key.id, "key", key.scopes, key.grants)
    workspaces = open_workspaces(settings)
    system = SimpleNamespace(
        settings=settings,
        database=database,
        workspaces=workspaces,
        sessions=sessions,
        authenticator=Authenticator(database, settings),
    )
    app = FastAPI()
    app.state.system = system
    refusals.install(app)
    app.include_router(files.router)
    server = Server(app)
    serving = asyncio.create_task(server.serve())
    await asyncio.to_thread(server.up.wait, DEADLINE)
    told.update(
        port=server.servers[0].sockets[0].getsockname()[1],
        server=server,
        system=system,
        loop=asyncio.get_running_loop(),
        principal=principal,
        key={"APIKey": key.apikey, "Secret": key.secret},
    )
    ready.set()
    await serving
    await workspaces.close()
    await database.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server that is up, and what it stands on."""
    settings = Settings(storage_url=str(tmp_path_factory.mktemp("server") / "storage"), upload_limit=64 * 2**20)
    told: dict[str, Any] = {}
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(settings, told, ready)))
    thread.start()
    assert ready.wait(DEADLINE)
    yield told
    told["server"].should_exit = True
    thread.join(DEADLINE)


@pytest.fixture
def served(server: dict[str, Any]) -> Served:
    """A fresh session on that server."""

    def run(work: Callable[[Any], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(server["system"]), server["loop"]).result(DEADLINE)

    opened = run(lambda system: system.sessions.open(server["principal"]))
    storage = server["system"].settings.local_storage
    return Served(server["port"], storage, opened.access_token, opened.session.id, run, server["key"])


def until(true: Callable[[], bool]) -> None:
    """Wait, with a deadline."""
    ends = time.monotonic() + DEADLINE
    pause = threading.Event()
    while not true():
        assert time.monotonic() < ends
        pause.wait(0.01)


def test_put_get_head(served: Served) -> None:
    """What is put is answered, with what the contract says of it; a second put says that it replaced."""
    made = served.ask("PUT", "a%20b/t.csv", b"x,y\n1,2\n")
    assert (made.status, made.headers["Location"]) == (201, PREFIX + "a%20b/t.csv")
    got = served.ask("GET", "a%20b/t.csv")
    assert (got.status, got.body) == (200, b"x,y\n1,2\n")
    head = served.ask("HEAD", "a%20b/t.csv")
    assert (head.status, head.body, dict(head.headers)) == (
        200,
        b"",
        {**dict(got.headers), "date": head.headers["date"]},
    )
    expected = {
        "Content-Length": "8",
        "Content-Type": "text/csv",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "ETag": made.headers["ETag"],
    }
    assert {name: got.headers[name] for name in expected} == expected
    assert got.headers["Last-Modified"].endswith("GMT")
    assert served.ask("PUT", "a%20b/t.csv", b"").status == 204
    assert served.ask("GET", "a%20b/t.csv").body == b""


def test_headers_in_several_lines(served: Served) -> None:
    """Lists that come in several lines count as one: conditions, and digests, of which the last of a kind counts."""

    def asked(method: str, name: str, *values: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
        connection.putrequest(method, f"{PREFIX}f")
        for header, value in [("Xdata-Session-Token", served.token), *((name, value) for value in values)]:
            connection.putheader(header, value)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    right, wrong = (base64.b64encode(hashlib.sha256(data).digest()).decode() for data in (b"", b"x"))
    assert asked("PUT", "Content-Digest", "sha-512=:xx:", f"sha-256=:{wrong}:") == 400
    assert asked("PUT", "Content-Digest", f"SHA-256=:{wrong}:") == 400
    assert asked("PUT", "Content-Digest", f"sha-256=:{wrong}:", f"sha-256=:{right}:") == 201
    tag = served.ask("HEAD", "f").headers["ETag"]
    assert asked("GET", "If-None-Match", '"other"', tag) == 304
    assert asked("PUT", "If-Match", '"other"', tag) == 204


def test_other_methods_are_told_which_there_are(served: Served) -> None:
    """405 names all methods of the address."""
    refused = served.ask("POST", "f", b"x")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, PUT, DELETE")


def test_names_with_line_breaks(served: Served) -> None:
    """What a module may call a file, a client can read, write and delete."""
    for name in ("a%0Ab", "%0A", "a%0A", "a%0D%0Ab/c"):
        assert served.ask("PUT", name, b"x").status == 201
        assert served.ask("GET", name).body == b"x"
        assert served.ask("DELETE", name).status == 204


def test_the_etag_behind_a_link_is_a_condition(served: Served) -> None:
    """A file that is read through a link is replaced, or deleted, by the ETag that was read; only the link goes."""
    served.ask("PUT", "f", b"1")
    for name in ("one", "two"):
        (served.folder / "files" / name).symlink_to("f")
    tag = served.ask("GET", "one").headers["ETag"]
    assert served.ask("PUT", "one", b"2", {"If-Match": '"other"'}).status == 412
    assert served.ask("PUT", "one", b"2", {"If-Match": tag}).status == 204
    assert served.ask("DELETE", "two", headers={"If-Match": tag}).status == 204
    assert (served.ask("GET", "f").body, served.ask("GET", "one").body) == (b"1", b"2")


def test_a_file_larger_than_a_chunk_comes_back_whole(served: Served) -> None:
    """A body in many pieces, without a length, is stored and sent bit by bit the same."""
    data = os.urandom(3 * CHUNK + 7)
    pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
    assert served.ask("PUT", "big", pieces).status == 201
    assert served.ask("GET", "big").body == data


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("Bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-30", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-500", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=" + "9" * 400 + "-", 416, None, "bytes */10"),
    ],
)
def test_ranges(served: Served, asked: str, status: int, body: bytes | None, content_range: str | None) -> None:
    """One range is answered with its bytes; what is none, or several, with the whole file."""
    served.ask("PUT", "f", b"0123456789")
    got = served.ask("GET", "f", headers={"Range": asked})
    assert (got.status, got.headers["Content-Range"]) == (status, content_range)
    assert body is None or got.body == body


def test_if_range(served: Served) -> None:
    """A range of a file that has changed since is answered with the new file."""
    old = served.ask("PUT", "f", b"0123456789").headers["ETag"]
    assert served.ask("GET", "f", headers={"Range": "bytes=0-1", "If-Range": old}).status == 206
    served.ask("PUT", "f", b"abcdefghij")
    got = served.ask("GET", "f", headers={"Range": "bytes=0-1", "If-Range": old})
    assert (got.status, got.body) == (200, b"abcdefghij")


def test_conditions(served: Served) -> None:
    """304 for who has the file, 412 for who would write over what it has not seen."""
    made = served.ask("PUT", "f", b"1", {"If-None-Match": "*"})
    tag = made.headers["ETag"]
    assert made.status == 201
    for sent in (tag, f'"other", W/{tag}', "*"):
        got = served.ask("GET", "f", headers={"If-None-Match": sent})
        assert (got.status, got.body, got.headers["ETag"]) == (304, b"", tag)
    assert served.ask("GET", "f", headers={"If-None-Match": '"other"'}).status == 200
    assert served.ask("GET", "f", headers={"If-Modified-Since": made.headers["Last-Modified"]}).status == 304
    assert served.ask("GET", "f", headers={"If-Modified-Since": "soon"}).status == 200
    odd = "Mon, 01 Jan 2001 00:00:00 +" + "9" * 20
    assert served.ask("GET", "f", headers={"If-Modified-Since": odd}).status == 200
    refused = served.ask("PUT", "f", b"2", {"If-None-Match": "*"})
    assert (refused.status, refused.error["code"], refused.error["data"]["name"]) == (412, -32011, "conflict")
    assert served.ask("PUT", "f", b"2", {"If-Match": tag}).status == 204
    assert served.ask("PUT", "f", b"3", {"If-Match": tag}).status == 412
    assert served.ask("DELETE", "f", headers={"If-Match": tag}).status == 412
    assert served.ask("GET", "f").body == b"2"


def test_content_digest(served: Served) -> None:
    """A body that is not what its digest says is refused; a digest that is none, too; others are not ours to check."""
    right = base64.b64encode(hashlib.sha256(b"body").digest()).decode()
    assert served.ask("PUT", "f", b"body", {"Content-Digest": f"sha-512=:xx:, sha-256=:{right}:"}).status == 201
    for wrong in (f"sha-256=:{base64.b64encode(bytes(32)).decode()}:", "sha-256=:x:", "sha-256=abc"):
        assert served.ask("PUT", "f", b"body", {"Content-Digest": wrong}).status == 400
    assert served.ask("PUT", "g", b"body", {"Content-Digest": "sha-512=:xx:"}).status == 201


def test_a_part_cannot_be_put(served: Served) -> None:
    """A PUT with Content-Range is refused: it would pass for the whole file."""
    assert served.ask("PUT", "f", b"body", {"Content-Range": "bytes 0-3/10"}).status == 400


def test_listing(served: Served) -> None:
    """Entries sorted by name, page by page, each told as the contract says."""
    for path in ("b.txt", "d/x", "a.csv"):
        served.ask("PUT", path, b"123")
    listing = json.loads(served.ask("GET", "").body)
    assert [(entry["name"], entry["type"]) for entry in listing["entries"]] == [
        ("a.csv", "file"),
        ("b.txt", "file"),
        ("d", "directory"),
    ]
    first = listing["entries"][0]
    assert (first["path"], first["size"], listing["cursor"]) == ("a.csv", 3, None)
    assert first["etag"] == served.ask("HEAD", "a.csv").headers["ETag"]
    assert first["modified"].endswith("Z")
    seen, cursor = [], ""
    while cursor is not None:
        page = json.loads(served.ask("GET", f"?recursive=true&limit=1{cursor and '&cursor=' + cursor}").body)
        seen += [entry["path"] for entry in page["entries"]]
        cursor = page["cursor"]
    assert seen == ["a.csv", "b.txt", "d", "d/x"]
    assert [entry["path"] for entry in json.loads(served.ask("GET", "?glob=**/x").body)["entries"]] == ["d/x"]
    for query in ("?limit=0", "?limit=x", "?cursor=x", "?cursor=W10=", f"?cursor={'W1tb' * 5000}"):
        assert served.ask("GET", query).error["code"] == -32602


def test_delete(served: Served) -> None:
    """204 for a file, and for a directory that is meant as a whole."""
    served.ask("PUT", "d/x", b"1")
    assert served.ask("DELETE", "d/").status == 400
    assert served.ask("DELETE", "d/x").status == 204
    assert served.ask("DELETE", "d/x").status == 404
    served.ask("PUT", "d/y", b"1")
    assert served.ask("DELETE", "d/?recursive=true").status == 204
    assert served.ask("GET", "d/").status == 404


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.html", "text/plain; charset=utf-8"),
        ("x.svg", "text/plain; charset=utf-8"),
        ("x.js", "text/plain; charset=utf-8"),
        ("x.xhtml", "text/plain; charset=utf-8"),
        ("X.HTML", "text/plain; charset=utf-8"),
        ("x.png", "image/png"),
        ("x.json", "application/json"),
        ("x.parquet", "application/vnd.apache.parquet"),
        ("x.csv.gz", "application/octet-stream"),
        ("x.swf", "application/octet-stream"),
        ("data:text%2Fhtml,x", "application/octet-stream"),
        ("x", "application/octet-stream"),
    ],
)
def test_no_type_that_a_browser_runs(served: Served, name: str, kind: str) -> None:
    """The type comes from the name, and is never one under which a browser runs the content."""
    served.ask("PUT", name, b"<script>alert(1)</script>")
    assert served.ask("GET", name).headers["Content-Type"] == kind


@pytest.mark.parametrize(
    "path",
    [
        "../x", "%2e%2e/x", "%2E%2E%2Fx", "a/..%2f..%2fx", "a/%2e%2e/%2e%2e/x", "..", "%2fetc/passwd", "/etc/passwd",
        "a//b", "x%00y", "%ff", "%c0%ae%c0%ae/x",
        "%ed%a0%80", "./x", "x" * 256, "x" * 10_000, "x/" * 5_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_paths_that_lead_nowhere(served: Served, method: str, path: str) -> None:
    """Every spelling of a way out is refused as such, whatever is asked for, and tells nothing of the server."""
    (served.storage / "sessions" / "x").mkdir(parents=True, exist_ok=True)
    answer = served.ask(method, path, b"1" if method == "PUT" else None)
    assert answer.status == 400
    if method != "HEAD":
        assert answer.error["data"]["errors"][0]["loc"] == ["path"]
        assert str(served.storage) not in answer.body.decode()


def test_twice_encoded_dots_are_a_name(served: Served) -> None:
    """Percent-encoding is undone once: what is encoded twice is a name with a percent sign."""
    assert served.ask("PUT", "%252e%252e/x", b"1").status == 201
    assert (served.folder / "files" / "%2e%2e" / "x").read_bytes() == b"1"


def test_links_and_other_kinds(served: Served) -> None:
    """A link that stays inside is read; one that leaves, and what is no file, is refused at once."""
    served.ask("PUT", "f", b"inside")
    folder = served.folder / "files"
    (folder / "in").symlink_to("f")
    (folder / "out").symlink_to(served.storage / "dataproc.db")
    (folder / "up").symlink_to("../../..")
    os.mkfifo(folder / "fifo")
    assert served.ask("GET", "in").body == b"inside"
    for path in ("out", "up/", "up/x", "fifo"):
        assert served.ask("GET", path).status == 400
    assert served.ask("PUT", "up/x", b"1").status == 400
    assert served.ask("DELETE", "up/x").status == 400
    types = {entry["name"]: entry["type"] for entry in json.loads(served.ask("GET", "").body)["entries"]}
    assert types == {"f": "file", "fifo": "other", "in": "file", "out": "link", "up": "link"}
    assert served.ask("PUT", "out", b"mine now").status == 204
    assert (served.storage / "dataproc.db").read_bytes().startswith(b"SQLite")


def test_a_session_that_ends_during_an_upload(served: Served) -> None:
    """The uploader is told that the session has ended, and nothing is left."""
    served.ask("PUT", "f", b"1")
    gone = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"1"
        served.run(lambda system: system.workspaces.discard(served.session))
        gone.set()
        yield b"2" * (CHUNK + 1)

    refused = served.ask("PUT", "late", body())
    assert gone.is_set()
    assert (refused.status, refused.error["data"]["name"]) == (401, "session_ended")
    until(lambda: not served.folder.exists())


def test_an_upload_cut_off_leaves_nothing(served: Served) -> None:
    """A client that goes away in the middle of its body leaves no file and no part of one."""
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        head = f"PUT {PREFIX}a/b HTTP/1.1\r\nHost: x\r\nXdata-Session-Token: {served.token}\r\n"
        client.sendall(f"{head}Content-Length: 9999999\r\n\r\n".encode() + bytes(2 * CHUNK))
        until(lambda: (served.folder / "incoming").exists() and any((served.folder / "incoming").iterdir()))
    until(lambda: not any((served.folder / "incoming").iterdir()))
    assert list((served.folder / "files").iterdir()) == []


def test_a_reader_that_goes_away_ends_the_transfer(served: Served) -> None:
    """A download nobody reads to its end leaves no open descriptor."""
    served.ask("PUT", "big", bytes(32 * 2**20))
    big = served.folder / "files" / "big"
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(f"GET {PREFIX}big HTTP/1.1\r\nHost: x\r\nXdata-Session-Token: {served.token}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert _held(big)
    until(lambda: not _held(big))


def _held(path: Path) -> bool:
    held = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return str(path) in held


def test_who_may(served: Served) -> None:
    """No credentials: 401. A key alone: told to send a token. A session that ended: 401, and nothing is made."""
    served.ask("PUT", "f", b"1")
    stranger = served.ask("GET", "f", headers={"Xdata-Session-Token": "00000000-0000-4000-8000-000000000000"})
    assert (stranger.status, stranger.error["code"]) == (401, -32001)
    keyed = served.ask("GET", "f", headers=served.key)
    assert (keyed.status, keyed.error["code"]) == (400, -32600)
    assert "Xdata-Session-Token" in keyed.error["message"]

    async def end(system: Any) -> None:
        await system.sessions.begin_end(served.session, "closed")
        await system.workspaces.discard(served.session)
        await system.sessions.finish_end(served.session)

    served.run(end)
    for method in ("GET", "PUT", "DELETE"):
        over = served.ask(method, "f", b"1" if method == "PUT" else None)
        assert (over.status, over.error["code"]) == (401, -32003)
    assert not served.folder.exists()


def _built(served: Served) -> Path:
    folder = served.folder / "files"
    served.ask("PUT", "a/x.csv", b"1,2\n" * 1000)
    served.ask("PUT", "y.txt", b"y")
    (folder / "empty").mkdir()
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("../../..")
    os.mkfifo(folder / "fifo")
    (folder / "..\\..\\evil").write_bytes(b"e")
    return folder


def test_an_archive_holds_the_regular_files(served: Served) -> None:
    """Everything below the directory, under names relative to it; no link is followed, nothing waited for."""
    _built(served)
    packed = zipfile.ZipFile(io.BytesIO(served.ask("GET", "?archive=zip").body))
    assert (sorted(packed.namelist()), packed.testzip()) == ([".._.._evil", "a/x.csv", "empty/", "y.txt"], None)
    assert packed.read("a/x.csv") == b"1,2\n" * 1000
    answer = served.ask("GET", "?archive=tar.gz")
    assert (answer.headers["Content-Type"], answer.headers["X-Content-Type-Options"]) == ("application/gzip", "nosniff")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert sorted(tar.getnames()) == ["..\\..\\evil", "a/x.csv", "empty", "y.txt"]
        extracted = tar.extractfile("a/x.csv")
        assert extracted is not None
        assert extracted.read() == b"1,2\n" * 1000
    below = zipfile.ZipFile(io.BytesIO(served.ask("GET", "a/?archive=zip").body))
    assert below.namelist() == ["x.csv"]
    chosen = zipfile.ZipFile(io.BytesIO(served.ask("GET", "?archive=zip&glob=*.txt").body))
    assert chosen.namelist() == ["y.txt"]


def test_an_archive_of_what_is_no_directory(served: Served) -> None:
    """A file, a missing directory, a link out and an unknown format are refused before anything is sent."""
    _built(served)
    asked = {"y.txt?archive=zip": 400, "b/?archive=zip": 404, "up/?archive=zip": 400, "?archive=rar": 400}
    assert {path: served.ask("GET", path).status for path in asked} == asked
    assert served.ask("HEAD", "?archive=zip").body == b""


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_holes_of_a_sparse_file_come_back(served: Served, kind: str) -> None:
    """A file with holes is the same after the way through an archive."""
    place = served.folder / "files" / "sparse"
    served.ask("PUT", "sparse", b"")
    with place.open("wb") as file:
        for at in (0, 20 * 2**20 + 3, 40 * 2**20):
            file.seek(at)
            file.write(b"data" * 5000)
        file.truncate(90 * 2**20)
    body = io.BytesIO(served.ask("GET", f"?archive={kind}").body)
    if kind == "zip":
        with zipfile.ZipFile(body) as packed:
            assert packed.read("sparse") == place.read_bytes()
    else:
        with tarfile.open(fileobj=body) as tar, cast("IO[bytes]", tar.extractfile("sparse")) as member:
            assert member.read() == place.read_bytes()


def test_a_sparse_terabyte_is_bounded(served: Served) -> None:
    """A terabyte of nothing is a few bytes in a tar, and in a zip a stream that begins at once and is small."""
    served.ask("PUT", "sparse", b"")
    os.truncate(served.folder / "files" / "sparse", 2**40)
    assert len(served.ask("GET", "?archive=tar.gz").body) < 2**16
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
    connection.request("GET", f"{PREFIX}?archive=zip", headers={"Xdata-Session-Token": served.token})
    assert connection.getresponse().read(2**20).startswith(b"PK")
    connection.close()
    until(lambda: not _held(served.folder / "files" / "sparse"))


def test_a_session_is_in_use_while_bytes_travel(served: Served) -> None:
    """A download or upload under way counts as use of the session until it ends, and winds its idle clock."""
    served.ask("PUT", "big", bytes(32 * 2**20))

    async def running(system: Any) -> int:
        return int(system.sessions.running(served.session))

    until(lambda: served.run(running) == 0)
    for head in (f"GET {PREFIX}big HTTP/1.1", f"PUT {PREFIX}other HTTP/1.1\r\nContent-Length: 9"):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(f"{head}\r\nHost: x\r\nXdata-Session-Token: {served.token}\r\n\r\n".encode())
            until(lambda: served.run(running) == 1)
        until(lambda: served.run(running) == 0)


def test_an_upload_above_the_limit(served: Served) -> None:
    """A file above the limit is refused, announced or not, and nothing of it is left."""
    for body in (bytes(64 * 2**20 + 1), iter([bytes(2**20)] * 65)):
        answer = served.ask("PUT", "big", body)
        assert (answer.status, answer.error["data"]["name"], answer.error["data"]["limit"]) == (413, "too_large", 2**26)
    assert served.ask("GET", "big").status == 404
    assert list((served.folder / "incoming").iterdir()) == []


def test_replies_on_one_connection_stay_apart(served: Served) -> None:
    """Requests sent at once on one connection are answered in order, also behind a file that the kernel sends."""
    data = os.urandom(5 * 2**20)
    served.ask("PUT", "big", data)
    asked = f"GET {PREFIX}big HTTP/1.1\r\nHost: x\r\nXdata-Session-Token: {served.token}\r\n"
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE) as client:
        client.sendall(f"{asked}\r\n{asked}Range: bytes=1-3\r\n\r\n{asked}Connection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: client.recv(2**20), b""))
    first, second, third = received.split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in (first, second, third)] == [b"200", b"206", b"200"]
    assert (first.partition(b"\r\n\r\n")[2] == data, second.endswith(data[1:4]), third.endswith(data)) == (True,) * 3


def test_a_file_that_shrinks_breaks_the_connection(served: Served) -> None:
    """A reader is never told that a file is whole which was cut short while it was sent."""
    served.ask("PUT", "big", bytes(32 * 2**20))
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
    connection.request("GET", f"{PREFIX}big", headers={"Xdata-Session-Token": served.token})
    answer = connection.getresponse()
    os.truncate(served.folder / "files" / "big", 10)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()


def test_two_uploads_of_one_name_at_once(served: Served) -> None:
    """Both are acknowledged, and what is there then is the one or the other, whole."""
    bodies = [bytes([value]) * (4 * 2**20) for value in (1, 2)]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda body: served.ask("PUT", "both", body).status, bodies * 3))
    assert set(answers) <= {201, 204}
    assert served.ask("GET", "both").body in bodies


def test_uploads_to_what_is_a_directory(served: Served) -> None:
    """Neither a directory, nor a name below a file, nor the session directory itself can be put."""
    served.ask("PUT", "d/f", b"1")
    assert {path: served.ask("PUT", path, b"2").status for path in ("d", "d/", "", "d/f/g")} == {
        "d": 409, "d/": 400, "": 400, "d/f/g": 409,
    }  # fmt: skip
    assert served.ask("GET", "d/f").body == b"1"


def test_a_body_longer_than_announced(served: Served) -> None:
    """The file is what was announced; the rest is no request and ends the connection."""
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE) as client:
        head = f"PUT {PREFIX}f HTTP/1.1\r\nHost: x\r\nXdata-Session-Token: {served.token}\r\nContent-Length: 3\r\n\r\n"
        client.sendall(head.encode() + b"123 and more\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 ")
    until(lambda: served.ask("GET", "f").status in (200, 404))
    assert served.ask("GET", "f").body == b"123" or b" 400 " in received.split(b"\r\n")[0]


def test_names_that_look_alike(served: Served) -> None:
    """Names that differ in case, or in their Unicode form, are different files."""
    names = ["a", "A", "%C3%A9", "e%CC%81"]
    for number, name in enumerate(names):
        assert served.ask("PUT", name, b"%d" % number).status == 201
    assert [served.ask("GET", name).body for name in names] == [b"0", b"1", b"2", b"3"]


def test_sockets_and_devices(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no regular file is refused at once, also in its archive's place."""
    served.ask("PUT", "f", b"1")
    folder = served.folder / "files"
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # the path of a socket may be too long
        listener.bind("socket")
    if os.getuid() == 0:
        os.mknod(folder / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        assert served.ask("GET", "zero").status == 400
    assert served.ask("GET", "socket").status == 400
    with tarfile.open(fileobj=io.BytesIO(served.ask("GET", "?archive=tar.gz").body)) as tar:
        assert tar.getnames() == ["f"]


def test_a_digest_on_request(served: Served) -> None:
    """Who asks for the digest of a file is told it, with the whole, a part, or without the bytes."""
    served.ask("PUT", "f", b"0123456789")
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(b'0123456789').digest()).decode()}:"
    wanted = {"Want-Repr-Digest": "sha-512=3, sha-256=10"}
    assert served.ask("GET", "f", headers=wanted).headers["Repr-Digest"] == digest
    assert served.ask("HEAD", "f", headers=wanted).headers["Repr-Digest"] == digest
    assert served.ask("GET", "f", headers={**wanted, "Range": "bytes=0-1"}).headers["Repr-Digest"] == digest
    for refused in ({}, {"Want-Repr-Digest": "sha-256=0"}, {"Want-Repr-Digest": "md5=1"}):
        assert served.ask("GET", "f", headers=refused).headers["Repr-Digest"] is None
