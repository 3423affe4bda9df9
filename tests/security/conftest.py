"""A real server with hostile modules, as root and as a plain user, and listeners that nobody should reach."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
MODULES = HERE.parent / "modules"
REPOSITORY = HERE.parent.parent
PLAIN_UID = 64997
DEADLINE = 60.0
SECRET = "the-gateway-secret-of-these-tests"
MiB = 2**20

LIMITS = {
    "WORKER_MEMORY": 1024 * MiB,
    "WORKER_PROCESSES": 64,
    "WORKER_OPEN_FILES": 256,
    "WORKER_FILE_SIZE": 32 * MiB,
    "WORKER_TMP": 64 * MiB,
    "OUTPUT_LIMIT": MiB,
    "RUN_TIMEOUT": 60,
    "RUN_GRACE": 1,
    "CLOSE_WAIT": 3,
    "SANDBOX": "require",
}


class RpcError(Exception):
    """An answer that is an error: its code, and its data."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']} {error['message'][:2000]}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: dict[str, Any] = error.get("data", {})


def _until(happens: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not (found := happens()):
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {deadline:g} s")
        pause.wait(0.02)
    return found


@dataclass
class Session:
    """An open session of a running server."""

    server: Server
    token: str
    id: str

    def exec(self, method: str, *, timeout: float | None = None, **params: Any) -> Any:
        """Run `module.method`; its result, or RpcError."""
        module, _, name = method.partition(".")
        asked = {"module": module, "method": name, "params": params}
        return self.server.rpc(
            "/api/v1/dataproc/jsonrpc",
            "dataproc.exec",
            asked if timeout is None else asked | {"timeout": timeout},
            {"Xdata-Session-Token": self.token},
        )

    def error(self, method: str, **params: Any) -> RpcError:
        """The error that a call ends with; it is a failure if there is none."""
        try:
            result = self.exec(method, **params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} did not fail but answered {str(result)[:200]}")

    @property
    def files(self) -> Path:
        """The session directory on the disk."""
        return self.server.storage / "sessions" / self.id[:2] / self.id / "files"


@dataclass
class Server:
    """A running server: where it listens, where it stores, whose it is."""

    folder: Path
    uid: int | None
    process: subprocess.Popen[str]
    url: str
    key: dict[str, str]
    env: dict[str, str]
    output: list[str] = field(default_factory=list)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=DEADLINE * 2))

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def modules(self) -> Path:
        return self.folder / "modules"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def rpc(self, path: str, method: str, params: Any, headers: dict[str, str]) -> Any:
        """One call; its result, or RpcError."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        # a connection a call: with one client for 200 threads a read failed once with EBADF; the cause was not found
        answer = httpx.post(self.url + path, json=body, headers=headers, timeout=DEADLINE * 2).json()
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def open_session(self) -> Session:
        """A new session."""
        opened = self.rpc("/api/v1/session/jsonrpc", "session.open_session", {}, self.key)
        return Session(self, opened["access_token"], opened["session_id"])

    def pids(self) -> list[int]:
        """The server's process and all below it."""
        found, wanted = [self.process.pid], [self.process.pid]
        while wanted:
            pid = wanted.pop()
            for listing in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    below = list(map(int, listing.read_text().split()))
                except OSError:
                    continue
                wanted += below
                found += below
        return found

    def stop(self) -> None:
        """SIGTERM, and its end."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _command(uid: int | None, *arguments: str) -> list[str]:
    """`dataproc …`, as that user."""
    run = [sys.executable, "-c", "from dataproc.cli import main; main()", *arguments]
    if uid is None:
        return run
    needed = {sys.prefix, sys.base_prefix, str(REPOSITORY / "dataproc"), str(REPOSITORY / "modules")}
    seen = sorted(path for path in needed if os.path.isdir(path))
    return [sys.executable, str(HERE / "as_plain_user.py"), str(uid), *seen, "--", *run]


def _environment(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    ours = LIMITS | {
        "PORT": 0,
        "STORAGE_URL": folder / "storage",
        "MODULES_DIR": folder / "modules",
        "GATEWAY_SECRET": SECRET,
    }
    asked = {f"DATAPROC_{name}": str(value) for name, value in (ours | settings).items()}
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "AWS_SECRET_ACCESS_KEY": SECRET, **asked}


def _listening(process: subprocess.Popen[str], output: list[str]) -> str:
    """The address that it prints once it is ready."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as wait:
        wait.register(process.stdout, selectors.EVENT_READ)
        end = time.monotonic() + DEADLINE
        while wait.select(max(0.0, end - time.monotonic())):
            line = process.stdout.readline()
            if line.startswith("listening on "):
                return line.split()[2]
            if not line:
                break
    raise AssertionError("the server did not come up:\n" + Path(output[0]).read_text()[-5000:])


def start(folder: Path, env: dict[str, str], uid: int | None, key: dict[str, str]) -> Server:
    """Start the server on a folder that is prepared."""
    log = folder / "server.log"
    with open(log, "a") as errors:
        process = subprocess.Popen(
            _command(uid, "serve"), env=env, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        url = _listening(process, [str(log)])
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Server(folder, uid, process, url, key, env)


@contextmanager
def serving(
    uid: int | None, modules: list[str], targets: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Server]:
    """A server of its own with those fixture modules, on a fresh folder; `settings` without the prefix."""
    with tempfile.TemporaryDirectory(prefix="dataproc-security-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "modules").mkdir()
        for module in modules:
            shutil.copytree(MODULES / module, folder / "modules" / module, ignore=shutil.ignore_patterns("__pycache__"))
        if targets is not None:
            (folder / "modules/importing/targets.json").write_text(json.dumps(targets | _victims_of(folder)))
        folder.chmod(0o755)
        if uid is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, uid, uid)
        env = _environment(folder, settings)
        made = subprocess.run(
            _command(uid, "key", "create", "--name", "tests", "-o", "json"),
            env=env, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        told = json.loads(made.stdout)
        server = start(folder, env, uid, {"APIKey": told["apikey"], "Secret": told["secret"]})
        try:
            yield server
        finally:
            server.stop()


def _victims_of(folder: Path) -> dict[str, list[str]]:
    storage = folder / "storage"
    return {
        "files": [str(storage / "dataproc.db"), "/etc/shadow", str(folder / "server.log"), __file__],
        "folders": [str(storage), str(folder), str(storage / "sessions")],
    }


@dataclass
class Listeners:
    """Sockets of every kind that count what reaches them."""

    folder: Path
    sockets: dict[str, socket.socket]

    @property
    def targets(self) -> dict[str, Any]:
        """Where they are, as the fixture modules take it."""
        return {
            "tcp": self.sockets["tcp"].getsockname()[1],
            "udp": self.sockets["udp"].getsockname()[1],
            "stream": str(self.folder / "stream"),
            "datagram": str(self.folder / "datagram"),
            "pids": [os.getpid(), os.getppid()],
        }

    def reached(self) -> list[str]:
        """The names of those that something came to."""
        with selectors.DefaultSelector() as wait:
            for name, sock in self.sockets.items():
                wait.register(sock, selectors.EVENT_READ, name)
            return sorted(key.data for key, _ in wait.select(0))


@pytest.fixture(scope="session")
def listeners() -> Iterator[Listeners]:
    """Listeners on TCP, UDP, unix paths and an abstract name, open to every user of the machine."""
    with tempfile.TemporaryDirectory(prefix="dataproc-listeners-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        kinds: dict[str, tuple[socket.AddressFamily, socket.SocketKind, tuple[str, int] | str]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "stream": (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "stream")),
            "datagram": (socket.AF_UNIX, socket.SOCK_DGRAM, str(folder / "datagram")),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{folder}"),
        }
        sockets = {}
        for kind, (family, type_, address) in kinds.items():
            sockets[kind] = stack.enter_context(socket.socket(family, type_))
            sockets[kind].bind(address)
            if type_ == socket.SOCK_STREAM:
                sockets[kind].listen()
        for path in ("stream", "datagram"):
            (folder / path).chmod(0o777)
        yield Listeners(folder, sockets)


USERS = [pytest.param(None, id="as we are")] + ([pytest.param(PLAIN_UID, id="plain user")] if os.getuid() == 0 else [])
PLAIN = [
    "prober",
    "importing",
    "crasher",
    "hog",
    "forker",
    "chatterbox",
    "sleeper",
    "importer",
    "globals",
    "threaded",
    "scripted",
]


@pytest.fixture(scope="session", params=USERS)
def uid(request: pytest.FixtureRequest) -> int | None:
    """Who runs the server: whoever runs the tests, and where that is root, a plain user too."""
    return request.param


@pytest.fixture(scope="session")
def server(uid: int | None, listeners: Listeners) -> Iterator[Server]:
    """One server for many tests, with every fixture module."""
    with serving(uid, PLAIN, listeners.targets) as running:
        yield running


@pytest.fixture
def session(server: Server) -> Session:
    """A session of that server."""
    return server.open_session()


@pytest.fixture
def own_server(uid: int | None) -> Iterator[Callable[..., Server]]:
    """Starts a server that the test may hurt: `own_server("sleeper", RUN_TIMEOUT=5)`."""
    with ExitStack() as stack:

        def begin(*modules: str, **settings: Any) -> Server:
            return stack.enter_context(serving(uid, list(modules), **settings))

        yield begin


@pytest.fixture
def until() -> Callable[..., Any]:
    """`until(happens, deadline)`: what `happens` answers, as soon as that is true."""
    return _until


@pytest.fixture
def bystander(server: Server) -> Iterator[Session]:
    """Another session of the same server, whose warm worker is still the same one at the end of the test."""
    other = server.open_session()
    other.exec("globals.remember", value="mine")
    yield other
    assert other.exec("globals.recall")["cache"] == "mine"
    assert other.exec("chatterbox.echo", value="still here") == "still here"


@pytest.fixture
def restart() -> Iterator[Callable[[Server], Server]]:
    """Starts a server again on the folder of one that has ended."""
    with ExitStack() as stack:

        def begin(ended: Server) -> Server:
            again = start(ended.folder, ended.env, ended.uid, ended.key)
            stack.callback(again.stop)
            return again

        yield begin
