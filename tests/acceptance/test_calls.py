"""`exec`, `session` and `file` against a real server."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Shell


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a server, and a key to it."""
    shell = Shell(tmp_path_factory.mktemp("caller"))
    with shell.serve() as served:
        key = shell.key()
        shell.env |= {"DATAPROC_URL": served.url, "DATAPROC_APIKEY": key["apikey"], "DATAPROC_SECRET": key["secret"]}
        yield shell


@pytest.fixture
def token(caller: Shell) -> str:
    """A session's token."""
    opened = json.loads(caller.run("session", "open", "-o", "json").stdout)
    return str(opened["access_token"])


def test_a_session_from_a_shell(caller: Shell, token: str) -> None:
    """Two calls of one session find each other's lines; a file comes out as it went in; after close all is over."""
    inside = {"DATAPROC_SESSION_TOKEN": token}
    assert [caller.run("exec", "test-module.append", **inside).stdout.strip() for _ in range(2)] == ["1", "2"]
    source, back = caller.folder / "in.bin", caller.folder / "out.bin"
    source.write_bytes(bytes(range(256)) * 5000)
    assert caller.run("file", "put", str(source), "some dir/ä.bin", **inside).returncode == 0
    listed = json.loads(caller.run("file", "ls", "-r", "-o", "json", **inside).stdout)
    assert "some dir/ä.bin" in [entry["path"] for entry in listed]
    assert caller.run("file", "get", "some dir/ä.bin", str(back), **inside).returncode == 0
    assert back.read_bytes() == source.read_bytes()
    assert json.loads(caller.run("session", "get", "-o", "json", **inside).stdout)["state"] == "open"
    assert caller.run("session", "close", **inside).returncode == 0
    over = caller.run("exec", "test-module.append", **inside)
    assert over.returncode == 3
    assert "session_ended" in over.stderr


def test_one_shot(caller: Shell) -> None:
    """With a key alone each call has a session of its own."""
    assert [caller.run("exec", "test-module.append").stdout.strip() for _ in range(2)] == ["1", "1"]


def test_params(caller: Shell) -> None:
    """Params come as K=V, as JSON, or from stdin; K=V wins; a wrong one is told by its field."""
    assert caller.run("exec", "test-module.session-test", "newest=5").returncode == 0
    assert caller.run("exec", "test-module.session-test", "--params", "-", stdin='{"newest": 5}').returncode == 0
    wrong = caller.run("exec", "test-module.session-test", "--params", '{"newest": 5}', "newest=-1")
    assert wrong.returncode == 2
    assert "newest" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "env", "code", "told"),
    [
        ("exec no-such.method", {}, 3, "module_not_found"),
        ("exec test-module.no-such", {}, 3, "method_not_found"),
        ("exec test-module", {}, 2, "MODULE.METHOD"),
        ("exec a.b", {"DATAPROC_SECRET": "wrong"}, 3, "unauthorized"),
        ("exec a.b", {"DATAPROC_SECRET": ""}, 2, "DATAPROC_SECRET"),
        ("exec a.b", {"DATAPROC_URL": "http://127.0.0.1:1"}, 4, "dataproc serve"),
        ("exec a.b", {"DATAPROC_URL": "nonsense"}, 2, "DATAPROC_URL"),
        ("exec a.b --params [1]", {}, 2, "--params"),
        ("file ls", {}, 2, "DATAPROC_SESSION_TOKEN"),
        ("session close", {"DATAPROC_APIKEY": ""}, 2, "DATAPROC_SESSION_TOKEN"),
    ],
)
def test_refusals(caller: Shell, words: str, env: dict[str, str], code: int, told: str) -> None:
    """What is refused is told in a line that says what to do, with the exit code of its kind."""
    refused = caller.run(*words.split(), **env)
    assert (refused.returncode, told in refused.stderr) == (code, True), refused.stderr
    assert "Traceback" not in refused.stderr


def test_missing_file(caller: Shell, token: str) -> None:
    """A file that is not there is told so, and nothing is left of the download."""
    refused = caller.run("file", "get", "nowhere.csv", DATAPROC_SESSION_TOKEN=token)
    assert refused.returncode == 3
    assert not list(caller.folder.glob("*nowhere*"))


def test_places_of_a_download(caller: Shell, token: str) -> None:
    """A directory takes the file, or the archive, under its own name, and what is no file is written to."""
    inside = {"DATAPROC_SESSION_TOKEN": token}
    caller.run("file", "put", "-", "d/x.txt", stdin="hello", **inside)
    (caller.folder / "here").mkdir(exist_ok=True)
    got = json.loads(caller.run("file", "get", "d/x.txt", "here", "-o", "json", **inside).stdout)
    assert got["path"] == "here/x.txt"
    assert (caller.folder / "here/x.txt").read_text() == "hello"
    assert caller.run("file", "get", "d/", "here", "--archive", "zip", **inside).returncode == 0
    assert zipfile.is_zipfile(caller.folder / "here/d.zip")
    os.mkfifo(pipe := caller.folder / "pipe")
    reader = os.open(pipe, os.O_RDWR)
    try:
        assert caller.run("file", "get", "d/x.txt", "pipe", **inside).returncode == 0
        assert os.read(reader, 100) == b"hello"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_files_from_a_shell(caller: Shell, token: str) -> None:
    """What goes in by stdin comes out by cat, with its digest; a directory as an archive; what is removed is gone."""
    inside = {"DATAPROC_SESSION_TOKEN": token}
    put = json.loads(caller.run("file", "put", "-", "d/x.txt", "-o", "json", stdin="hello", **inside).stdout)
    assert put == {"path": "d/x.txt", "size": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    assert caller.run("file", "cat", "d/x.txt", **inside).stdout == "hello"
    got = caller.run("file", "get", "d/", "--archive", "zip", **inside)
    assert got.returncode == 0, got.stderr
    with zipfile.ZipFile(caller.folder / "d.zip") as archive:
        assert archive.read("x.txt") == b"hello"
    assert caller.run("file", "get", "d/", **inside).returncode == 2
    listed = json.loads(caller.run("file", "ls", "--glob", "**/*.txt", "-o", "json", **inside).stdout)
    assert [entry["path"] for entry in listed] == ["d/x.txt"]
    assert json.loads(caller.run("session", "get", "-o", "json", **inside).stdout)["usage"] == {"bytes": 5, "files": 2}
    assert caller.run("file", "rm", "d", **inside).returncode == 2
    assert caller.run("file", "rm", "-r", "d", **inside).returncode == 0
    assert caller.run("file", "cat", "d/x.txt", **inside).returncode == 3
