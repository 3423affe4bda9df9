"""The real server, started as an operator starts it, with its default settings and a folder of its own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.callers import Target, post, result
from benchmarks.processes import Served, serving

REPOSITORY = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).with_name("dataproc"))
SERVE = (COMMAND, "serve")
SESSION_PATH = "/api/v1/session/jsonrpc"
EXEC_PATH = "/api/v1/dataproc/jsonrpc"
JSON = {"Content-Type": "application/json"}
AT_ONCE = 500


class Ours:
    """The server, up, with a key."""

    def __init__(self, served: Served, folder: Path, name: str = "benchmark", *more: str) -> None:
        self.pid = served.pid
        self.port = served.port
        self._served, self.folder = served, folder
        made = _command(folder, "key", "create", "--name", name, "-o", "json", *more)
        self.key: Mapping[str, Any] = json.loads(made)
        self._headers = {**JSON, "APIKey": self.key["apikey"], "Secret": self.key["secret"]}
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)

    def with_another_key(self, name: str, *more: str) -> Ours:
        """The same server, called with a key of its own, made with those options."""
        return Ours(self._served, self.folder, name, *more)

    def revoke(self) -> None:
        """Take the key back: its sessions end."""
        _command(self.folder, "key", "revoke", self.key["id"])

    def target(self, path: str, method: str, params: Mapping[str, Any]) -> Target:
        """A request with the key."""
        return Target(self.port, path, self._headers, _asked(method, params))

    def call(self, path: str, method: str, params: Mapping[str, Any]) -> Any:
        """The result of one call with the key."""
        return result(post(self._connection, path, self._headers, _asked(method, params)))

    def count(self, **wanted: str) -> int:
        """How many sessions of the key are listed."""
        found, cursor = 0, None
        while True:
            asked = {**wanted, "limit": 1000, "cursor": cursor}
            page = self.call(SESSION_PATH, "session.list_sessions", asked)
            found, cursor = found + len(page["sessions"]), page["cursor"]
            if cursor is None:
                return found

    def open(self, module: str = "test-module") -> Target:
        """A new session, and the request that appends a line in it."""
        asked = {"jsonrpc": "2.0", "id": 1, "method": "session.open_session", "params": {}}
        answer = post(self._connection, SESSION_PATH, self._headers, json.dumps(asked))
        return exec_target(self.port, result(answer)["access_token"], module, "append", {})

    def open_many(self, number: int) -> None:
        """Open that many sessions, in batches."""
        for begin in range(0, number, AT_ONCE):
            batch = [
                {"jsonrpc": "2.0", "id": n, "method": "session.open_session", "params": {}}
                for n in range(begin, min(number, begin + AT_ONCE))
            ]
            answers = json.loads(post(self._connection, SESSION_PATH, self._headers, json.dumps(batch)))
            if any("result" not in answer for answer in answers):
                raise RuntimeError(f"a session was refused: {answers[0]}")

    def close(self, target: Target) -> None:
        """End the session of a target."""
        params = {"token": target.headers["Xdata-Session-Token"]}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "session.close_session", "params": params}
        result(post(self._connection, SESSION_PATH, self._headers, json.dumps(asked)))


def _asked(method: str, params: Mapping[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params)}, separators=(",", ":"))


def _command(folder: Path, *words: str) -> bytes:
    """What a command on the server's folder says."""
    ran = subprocess.run(  # noqa: S603
        [COMMAND, *words], env=environment(folder), cwd=folder, check=True, capture_output=True
    )
    return ran.stdout


def exec_target(
    port: int, token: str, module: str, method: str, params: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> Target:
    """The request that runs a method in the session of a token."""
    call = {"module": module, "method": method, "input": dict(given or {}), "output": {}, "params": dict(params)}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "dataproc.exec", "params": call}, separators=(",", ":"))
    return Target(port, EXEC_PATH, {**JSON, "Xdata-Session-Token": token}, body)


@contextmanager
def ours(folder: Path, command: Sequence[str] = SERVE, **settings: str) -> Iterator[Ours]:
    """The server, up, with the shipped modules and those of `benchmarks/modules`."""
    folder.mkdir()
    for modules in (REPOSITORY / "modules", REPOSITORY / "benchmarks" / "modules"):
        shutil.copytree(modules, folder / "modules", dirs_exist_ok=True)
    env = environment(folder) | {f"DATAPROC_{name}": value for name, value in settings.items()}
    with serving(command, env, folder / "server.log", folder) as served:
        yield Ours(served, folder)


def environment(folder: Path) -> dict[str, str]:
    """The caller's environment without its settings for another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATAPROC_")}
    places = {"DATAPROC_STORAGE_URL": str(folder / "storage"), "DATAPROC_MODULES_DIR": str(folder / "modules")}
    return {**kept, **places, "DATAPROC_PORT": "0"}
