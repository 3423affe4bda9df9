"""The clients against the real server, as people run both."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from xdata_dataproc import Client, errors
from xdata_dataproc.client import ApiV2 as DataprocApi
from xdata_session.client import ApiV2 as SessionApi

REPOSITORY = Path(__file__).resolve().parents[2]
DATAPROC = str(Path(sys.executable).with_name("dataproc"))
WEATHER = REPOSITORY / "examples" / "data" / "seattle-weather.csv"


@contextmanager
def serving(folder: Path, **more: str) -> Iterator[dict[str, str]]:
    """A server that is up, with a key; the variables that a client reads."""
    places = {"DATAPROC_STORAGE_URL": str(folder / "storage"), "DATAPROC_MODULES_DIR": str(REPOSITORY / "modules")}
    env = {**os.environ, **places, "DATAPROC_PORT": "0", **more}
    create = [DATAPROC, "key", "create", "--name", "clients", "-o", "json"]
    key = json.loads(subprocess.run(create, env=env, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([DATAPROC, "serve"], env=env, cwd=folder, stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    try:
        told = re.search(rb"listening on (https?://\S+)", server.stdout.readline())
        assert told, (folder / "log").read_text()[-3000:]
        url = told[1].decode()
        yield {"DATAPROC_URL": url, "DATAPROC_APIKEY": key["apikey"], "DATAPROC_SECRET": key["secret"]}
    finally:
        server.terminate()
        server.stdout.close()
        server.wait(30)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with serving(tmp_path_factory.mktemp("server")) as variables:
        yield variables


@pytest.fixture
def client(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Client() as made:
        yield made


def test_xdata_programs(environment: dict[str, str]) -> None:
    """The two APIs of xData open a session, run methods that find each other's artifacts, and close it."""
    base, key, secret = environment.values()
    sessions = SessionApi(f"{base}/api/v1/session/jsonrpc", key, secret)
    opened = sessions.open_session(expires_in=600)
    token = opened["access_token"]
    assert opened["expires_in"] == 600
    assert sessions.verify_session_token(token) == {"active": True}
    assert sessions.get_session(token=token)["state"] == "open"
    dataproc = DataprocApi(f"{base}/api/v1/dataproc/jsonrpc", session_token=token)
    assert [dataproc.exec("test-module", "append") for _ in range(2)] == [1, 2]
    assert sessions.close_session(token) is True
    assert sessions.verify_session_token(token) == {"active": False}
    with pytest.raises(errors.SessionEnded):
        dataproc.exec("test-module", "append")


@pytest.mark.parametrize("endpoint", ["v1", "v2"])
def test_both_session_endpoints(environment: dict[str, str], endpoint: str) -> None:
    """The session API answers under both addresses."""
    base, key, secret = environment.values()
    sessions = SessionApi(f"{base}/api/{endpoint}/session/jsonrpc", key, secret)
    assert sessions.close_session(sessions.open_session()["access_token"]) is True


def test_example_of_xdata(environment: dict[str, str], tmp_path: Path) -> None:
    """The example program runs, and run again goes on in the session whose token it saved."""
    command = [sys.executable, str(REPOSITORY / "examples" / "xdata_client.py"), str(tmp_path / "token.json")]
    for _ in range(2):
        subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
    token = json.loads((tmp_path / "token.json").read_text())["access_token"]
    names = [entry.name for entry in Client(environment["DATAPROC_URL"]).session(token).files.list(recursive=True)]
    assert len(names) >= 4


def test_example_of_curl(environment: dict[str, str]) -> None:
    """The main job works with curl alone."""
    script = str(REPOSITORY / "examples" / "curl.sh")
    told = subprocess.run([script], env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    assert "weather.csv" in told.stdout
    assert "error" not in told.stdout
    assert json.loads(told.stdout.splitlines()[-1])["result"] is True


def test_demo(tmp_path: Path) -> None:
    """The demo does its whole job, keeps the plot, and finds nothing left running."""
    demo = [sys.executable, str(REPOSITORY / "examples" / "demo.py"), str(tmp_path)]
    ran = subprocess.run(demo, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout
    assert (tmp_path / "temperature.png").read_bytes().startswith(b"\x89PNG")
    assert "Nothing is left running" in ran.stdout


def test_guide_runs_as_it_stands(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python example of docs/clients.md runs, one after the other."""
    (tmp_path / WEATHER.name).write_bytes(WEATHER.read_bytes())
    monkeypatch.chdir(tmp_path)
    guide = REPOSITORY / "docs" / "clients.md"
    blocks = re.finditer(r"^```python\n(.*?)^```", guide.read_text(), re.M | re.S)
    names: dict[str, object] = {}
    for block in blocks:
        line = guide.read_text()[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], guide, "exec"), names)
    assert "invalid_params" not in capsys.readouterr().out  # it shows the field, not the error


def test_session_of_a_client(client: Client) -> None:
    """A block's session keeps files between calls, and is gone after the block."""
    with client.open_session(expires_in=600) as session:
        assert [session.exec("test-module.append") for _ in range(3)] == [1, 2, 3]
        assert client.session(session.token).id == session.id
    with pytest.raises(errors.SessionEnded) as raised:
        session.exec("test-module.append")
    assert raised.value.data["reason"] == "closed"
    assert raised.value.request_id
    session.close()


def test_one_shots_are_strangers(client: Client) -> None:
    """Calls without a session never see each other's files."""
    assert [client.exec("test-module.append") for _ in range(2)] == [1, 1]


def test_threads(client: Client) -> None:
    """Threads share a client, and no call of a session is lost."""
    with client.open_session() as session, ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda _: session.exec("test-module.append"), range(40)))
        assert max(counts) == 40


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_bytes_come_back(client: Client, tmp_path: Path, size: int) -> None:
    """What was put is what is read, by each of the ways."""
    data = os.urandom(size)
    (tmp_path / "local").write_bytes(data)
    with client.open_session() as session:
        files = session.files
        assert files.upload(tmp_path / "local", "d/a b ü#?.bin") == "d/a b ü#?.bin"
        files.write("plain", data)
        files.write("chunks", iter([data[: size // 2], data[size // 2 :]]))
        for path in ("d/a b ü#?.bin", "plain", "chunks"):
            assert files.read(path) == data
            assert files.download(path, tmp_path / "back").read_bytes() == data
        with files.open("plain") as source:
            assert source.read() == data
        assert {
            (entry.path, entry.type, entry.size) for entry in files.list(recursive=True) if entry.type == "file"
        } == {(path, "file", size) for path in ("d/a b ü#?.bin", "plain", "chunks")}
        assert [entry.name for entry in files.list("d")] == ["a b ü#?.bin"]


def test_files_that_are_not_there(client: Client, tmp_path: Path) -> None:
    """Deleted and unknown files are NotFound, and a directory is deleted only on purpose."""
    with client.open_session() as session:
        session.files.write("d/a", b"x")
        with pytest.raises(errors.DataprocError):
            session.files.delete("d/")
        session.files.delete("d/", recursive=True)
        for attempt in (session.files.read, session.files.download, session.files.delete, session.files.list):
            with pytest.raises(errors.NotFound):
                attempt("d/a")
        assert session.files.list() == []


def test_errors_tell(client: Client) -> None:
    """What goes wrong has a class, a name, and the data of its kind."""
    with client.open_session() as session:
        with pytest.raises(errors.InvalidParams) as wrong:
            session.exec("test-module.append", nonsense=1)
        assert wrong.value.data["errors"]
        with pytest.raises(errors.ModuleNotFound):
            session.exec("no-such-module.run")
        with pytest.raises(errors.MethodNotFound):
            session.exec("test-module.no-such-method")
    with pytest.raises(errors.Unauthorized):
        Client(client.url, "no", "body").open_session()
    with pytest.raises(errors.Unauthorized):
        client.session("no-such-token").exec("test-module.append")


def test_modules_are_described(client: Client) -> None:
    """The list names the shipped modules, and each can be looked at."""
    assert {"test-module", "tabular"} <= {module["name"] for module in client.modules()}
    assert "append" in json.dumps(client.module("test-module"))
    assert client.version()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls and files go over https, and a certificate that nobody vouches for is refused."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    named = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make, *named], check=True, capture_output=True)
    with serving(tmp_path, DATAPROC_TLS_CERT=str(cert), DATAPROC_TLS_KEY=str(key)) as variables:
        url, *credentials = variables.values()
        assert url.startswith("https://")
        trusting = Client(url, *credentials, ssl_context=ssl.create_default_context(cafile=str(cert)))
        with trusting.open_session() as session:
            session.files.write("a", b"x" * 100_000)
            assert session.files.read("a") == b"x" * 100_000
        trusting.close()
        with pytest.raises(errors.ConnectionFailed, match="certificate"):
            Client(url, *credentials).open_session()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert Client(url, *credentials).version()
