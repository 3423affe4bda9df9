from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dataproc_client.errors import ConnectionLost, NotFound, QuotaExceeded, UnexpectedAnswer
from xdata_dataproc import Client, FileInfo, Files

from .conftest import Reply, Sent, Station

ROOT = "/api/v1/dataproc/files/"


@pytest.fixture
def files(station: Station) -> Files:
    station.answer = lambda sent: Reply(204)
    return Client(station.url).session("t").files


def entry(name: str) -> dict[str, object]:
    moment = "2026-01-31T09:30:00.123Z"
    return {"name": name, "path": f"d/{name}", "type": "file", "size": 3, "modified": moment, "etag": '"e"'}


def test_list_follows_the_cursor(station: Station, files: Files) -> None:
    """A listing of several pages comes as one list."""

    def page(sent: Sent) -> Reply:
        more = "cursor" not in sent.target
        body = {"path": "d/", "entries": [entry("a" if more else "b")], "cursor": "c=1" if more else None}
        return Reply(body=json.dumps(body).encode())

    station.answer = page
    found = files.list("d", recursive=True)
    assert [info.name for info in found] == ["a", "b"]
    assert found[0] == FileInfo("a", "d/a", "file", 3, datetime(2026, 1, 31, 9, 30, 0, 123000, UTC), '"e"')
    assert [sent.target for sent in station.sent] == [
        f"{ROOT}d/?recursive=true&limit=10000",
        f"{ROOT}d/?recursive=true&limit=10000&cursor=c%3D1",
    ]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", ".", "a/./b", "nul\0"])
def test_paths_stay_inside(station: Station, files: Files, path: str) -> None:
    """A path that is not inside is refused here, since HTTP would resolve it to another address."""
    with pytest.raises(ValueError, match="inside"):
        files.read(path)
    assert not station.sent


def test_any_name_is_quoted(station: Station, files: Files) -> None:
    """Names may hold whatever a URL could misread."""
    files.write("a b/ü?#%2e;.csv", b"")
    assert station.sent[0].target == f"{ROOT}a%20b/%C3%BC%3F%23%252e%3B.csv"


def test_write_sends_a_digest(station: Station, files: Files) -> None:
    """Bytes are sent with their length and their sha-256, so that a spoilt upload is refused."""
    files.write("a", b"abc")
    digest = b64encode(hashlib.sha256(b"abc").digest()).decode()
    sent = station.sent[0]
    assert (sent.body, sent.headers["Content-Length"]) == (b"abc", "3")
    assert sent.headers["Content-Digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_upload(station: Station, files: Files, tmp_path: Path, size: int) -> None:
    """A local file is sent whole, to its own name or to a path."""
    local = tmp_path / "big.bin"
    local.write_bytes(b"x" * size)
    assert files.upload(local) == "big.bin"
    assert files.upload(local, "d/other") == "d/other"
    assert [(sent.target, len(sent.body)) for sent in station.sent] == [
        (f"{ROOT}big.bin", size),
        (f"{ROOT}d/other", size),
    ]
    assert "Content-Digest" in station.sent[0].headers


def test_download(station: Station, files: Files, tmp_path: Path) -> None:
    """A file lands under its own name in a directory, or under the name given, replacing what was there."""
    station.answer = lambda sent: Reply(body=b"x" * 500_000)
    assert files.download("d/a.bin", tmp_path) == tmp_path / "a.bin"
    (tmp_path / "b").write_bytes(b"old")
    assert files.download("d/a.bin", tmp_path / "b").read_bytes() == b"x" * 500_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b"]


def test_truncated_download_leaves_what_was_there(station: Station, files: Files, tmp_path: Path) -> None:
    """A transfer that breaks off is an error, and the old file stays."""

    def cut(sent: Sent) -> Reply:
        return Reply(200, b"half", {"Content-Length": "8", "Connection": "close"})

    station.answer = cut
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ConnectionLost):
        files.download("a", tmp_path / "a")
    with pytest.raises(ConnectionLost):
        files.read("a")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_open_streams_lines(station: Station, files: Files) -> None:
    """An opened file is read like any other, and may be left half-read."""
    station.answer = lambda sent: Reply(body=b"one\ntwo\n" * 100_000)
    with files.open("a") as lines:
        assert lines.readline() == b"one\n"
        assert next(lines) == b"two\n"
    with files.open("a") as lines:
        assert sum(1 for _ in lines) == 200_000


def test_refusals(station: Station, files: Files) -> None:
    """The body's error is raised; without one the status tells."""
    error = {"code": -32009, "message": "full", "data": {"name": "quota_exceeded", "limit": 5}}
    station.answer = lambda sent: Reply(507, json.dumps({"error": error}).encode())
    with pytest.raises(QuotaExceeded) as raised:
        files.write("a", iter([b"1", b"2"]))
    assert raised.value.data["limit"] == 5
    station.answer = lambda sent: Reply(404)
    with pytest.raises(NotFound, match="'a'"), files.open("a"):
        pass
    station.answer = lambda sent: Reply(500, b"oops")
    with pytest.raises(UnexpectedAnswer):
        files.delete("a", recursive=True)
    assert station.sent[-1].target == f"{ROOT}a?recursive=true"


def test_a_download_that_breaks_off_goes_on(station: Station, files: Files, tmp_path: Path) -> None:
    """What is missing is asked for by its range, while the file is the same; a file that was changed is an error."""
    data = bytes(range(256)) * 4000

    def in_halves(sent: Sent) -> Reply:
        if sent.method == "HEAD":
            return Reply(200, b"", {"ETag": '"e"', "Repr-Digest": digest})
        if "Range" not in sent.headers:
            return Reply(200, data[:600_000], {"Content-Length": str(len(data)), "ETag": '"e"', "Connection": "close"})
        begun = int(sent.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        assert (sent.headers["If-Range"], begun > 0) == ('"e"', True)
        return Reply(status, data[begun:] if status == 206 else data, {"ETag": '"e"'})

    status, digest = 206, f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"
    station.answer = in_halves
    assert files.download("a", tmp_path).read_bytes() == data
    with files.open("a") as coming:
        assert coming.read() == data
    digest = f"sha-256=:{b64encode(bytes(32)).decode()}:"
    with pytest.raises(ConnectionLost, match="arrived"):
        files.download("a", tmp_path / "b")
    status = 200
    with pytest.raises(ConnectionLost, match="changed"):
        files.download("a", tmp_path / "b")
    assert not (tmp_path / "b").exists()
