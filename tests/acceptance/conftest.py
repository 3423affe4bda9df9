"""The command line as a user has it: real processes, the shipped modules, a storage folder of its own."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DATAPROC = str(Path(sys.executable).with_name("dataproc"))
DEADLINE = 60.0


def until(happens: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """What `happens` answers, as soon as that is true."""
    end = time.monotonic() + deadline
    while not (answer := happens()):
        assert time.monotonic() < end, "it did not happen"
        select.select([], [], [], 0.02)
    return answer


@dataclass
class Served:
    """A server of ours, and what it said so far."""

    process: subprocess.Popen[bytes]
    log: Path
    said: str = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        """The match, as soon as stdout has it."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.said)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
            assert more, f"no {pattern!r} in {self.said!r}; the log:\n{self.log.read_text()[-3000:]}"
            self.said += more
        return found

    @property
    def url(self) -> str:
        return self.read_until(r"listening on (\S+)\n")[1]

    def family(self) -> list[psutil.Process]:
        """All processes below the server."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@dataclass
class Shell:
    """The `dataproc` command in a folder of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ours = {
            "DATAPROC_STORAGE_URL": str(self.folder / "storage"),
            "DATAPROC_MODULES_DIR": str(REPOSITORY / "modules"),
            "DATAPROC_PORT": "0",
            "PATH": f"{Path(DATAPROC).parent}:{os.environ['PATH']}",
        }
        self.env = {**os.environ, **ours, **self.env}

    def run(self, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """What a command says, and its exit code."""
        return subprocess.run(
            [DATAPROC, *words],
            env={**self.env, **env},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def key(self, name: str = "acceptance", *more: str) -> dict[str, Any]:
        """A new key, as `key create -o json` tells it."""
        made = self.run("key", "create", "--name", name, "-o", "json", *more)
        assert made.returncode == 0, made.stderr
        key: dict[str, Any] = json.loads(made.stdout)
        return key

    @contextmanager
    def serve(self, *words: str, **env: str) -> Iterator[Served]:
        """A server, ended at the end."""
        log = self.folder / "server.log"
        with ExitStack() as stack:
            stderr = stack.enter_context(log.open("ab"))
            process = subprocess.Popen(
                [DATAPROC, "serve", *words],
                env={**self.env, **env},
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            try:
                yield Served(process, log)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(DEADLINE)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """The command, in an empty folder."""
    return Shell(tmp_path)


def headers(key: dict[str, Any]) -> dict[str, str]:
    """The headers of a key."""
    return {"APIKey": key["apikey"], "Secret": key["secret"]}


def call(rpc_method: str, **params: Any) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": 1, "method": rpc_method, "params": params}
