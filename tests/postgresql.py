"""A real PostgreSQL server for tests: Debian's, in a cluster of its own, on a free port; a database a test.

The cluster sorts by ICU's rules for English, so that nothing comes to rely on the order of bytes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

DEADLINE = 60.0
ROLE, PASSWORD = "tester", "a-password-of-the-database"
_SETTINGS = {
    "fsync": "off",  # of a power cut; killed processes lose nothing by it
    "max_connections": "60",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "timezone": "America/New_York",  # where a moment that was taken for UTC would be wrong
}
# also where the tests are killed
_SETPRIV = shutil.which("setpriv")
_WITH_US: list[str] = [_SETPRIV, "--pdeathsig", "KILL"] if _SETPRIV else []


@dataclass
class PostgreSQL:
    """A server with its cluster in `folder`. Made by `serving`."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str, port: int | None = None) -> str:
        """The URL of a database, perhaps through a proxy on another port."""
        return f"postgresql+psycopg://{ROLE}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement finds, behind our back."""
        where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": ROLE, "password": PASSWORD}
        with psycopg.connect(dbname=database, autocommit=True, **where) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Up, and answering. It ends with the thread that calls this."""
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_WITH_US, self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *settings],
                stdout=log,
                stderr=log,
                **_plain_user(),
            )
        end = time.monotonic() + DEADLINE
        while subprocess.run(
            [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], timeout=DEADLINE
        ).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL does not answer"

    def kill(self) -> None:
        """`kill -9`, of all its processes."""
        assert self.process is not None
        for each in (self.process.pid, *_children(self.process.pid)):
            os.kill(each, signal.SIGKILL)
        self.process.wait()

    def freeze(self, number: int) -> None:
        """SIGSTOP or SIGCONT to all its processes."""
        assert self.process is not None
        for each in (self.process.pid, *_children(self.process.pid)):
            os.kill(each, number)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _plain_user() -> dict[str, Any]:
    """Arguments of Popen: PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def programs() -> Path:
    """The folder of the newest version's programs. Skips the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL IS NOT TESTED: its programs are missing (Debian's package `postgresql`)")
    return found[-1].parent


@contextmanager
def serving() -> Iterator[PostgreSQL]:
    """A server, up, with an empty cluster."""
    where = programs()
    folder = Path(tempfile.mkdtemp(prefix="dataproc-postgresql-"))
    if (user := _plain_user()) and not os.geteuid():
        os.chown(folder, user["user"], user["group"])
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    server = PostgreSQL(where, folder, _free_port())
    try:
        made = subprocess.run(
            [where / "initdb", "-D", folder / "data", "-U", ROLE, "-A", "scram-sha-256", "--pwfile", secret,
             "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US", "--no-sync"],
            capture_output=True, text=True, timeout=DEADLINE, **user,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.freeze(signal.SIGCONT)
            server.kill()
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
