"""Sessions, keys, audit and the operator's verbs from a shell, against a real server."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Shell, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, dict[str, str]]]:
    """A shell whose server keeps ended sessions for a while, and the variables of its caller."""
    shell = Shell(tmp_path_factory.mktemp("sessions"), {"DATAPROC_GRACE_PERIOD": "600"})
    key = shell.key("caller")
    with shell.serve() as server:
        yield shell, {"DATAPROC_URL": server.url, "DATAPROC_APIKEY": key["apikey"], "DATAPROC_SECRET": key["secret"]}


def told(shell: Shell, *words: str, **env: str) -> Any:
    """What a command prints as JSON."""
    done = shell.run(*words, "-o", "json", **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_life_of_a_session(served: tuple[Shell, dict[str, str]], tmp_path: Path) -> None:
    """create, list, get, extend, close, restore: by id with the key, and by the token alone."""
    shell, caller = served
    made = told(shell, "session", "create", "--name", "job", "--label", "team=a", "--idle-timeout", "600", **caller)
    again = told(shell, "session", "create", "--name", "job", **caller)
    assert again["session_id"] == made["session_id"]
    listed = told(shell, "session", "list", "--label", "team=a", "--state", "open", **caller)
    assert [each["id"] for each in listed] == [made["session_id"]]
    inside = {"DATAPROC_URL": caller["DATAPROC_URL"], "DATAPROC_SESSION_TOKEN": made["access_token"]}
    assert told(shell, "session", "get", **inside)["idle_timeout"] == 600
    assert told(shell, "session", "extend", "--expires-in", "3000000", **inside)["expires_in"] == 3000000
    narrow = told(shell, "session", "token", "--scopes", "files.read", "--expires-in", "60", **inside)
    assert (narrow["scopes"], narrow["expires_in"]) == (["files.read"], 60)
    assert shell.run("session", "close", made["session_id"], **caller).returncode == 0
    assert told(shell, "session", "get", made["session_id"], **caller)["state"] == "ended"
    back = told(shell, "session", "restore", made["session_id"], **caller)
    assert shell.run("session", "close", back["access_token"], **caller).returncode == 0
    assert told(shell, "session", "get", made["session_id"], **caller)["reason"] == "closed"
    plain = shell.run("session", "list", **caller)
    assert made["session_id"] in plain.stdout


def test_keys_work_on_a_running_server(served: tuple[Shell, dict[str, str]]) -> None:
    """A rotated secret and a revoked key are refused within a second, an expired one by itself."""
    shell, caller = served
    key = shell.key("robot", "--scopes", "session.open", "--grants", "files.read,dataproc.exec:test-module")
    assert (key["scopes"], key["grants"]) == (["session.open"], ["dataproc.exec:test-module", "files.read"])

    def opens(secret: str) -> bool:
        env = {**caller, "DATAPROC_APIKEY": key["apikey"], "DATAPROC_SECRET": secret}
        return shell.run("session", "create", **env).returncode == 0

    assert opens(key["secret"])
    rotated = told(shell, "key", "rotate", "robot")
    assert rotated["secret"] != key["secret"]
    until(lambda: not opens(key["secret"]), 5)
    assert opens(rotated["secret"])
    assert told(shell, "key", "revoke", "robot")["revoked_at"]
    until(lambda: not opens(rotated["secret"]), 5)


def test_the_audit_log(served: tuple[Shell, dict[str, str]]) -> None:
    """Read beside the server, by filters; no secret in it."""
    shell, caller = served
    opened = told(shell, "session", "create", **caller)
    lines = until(lambda: told(shell, "audit", "--session", opened["session_id"]), 5)
    assert [line["event"] for line in lines] == ["session_opened"]
    assert lines[0]["client"] == "127.0.0.1"
    everything = shell.run("audit", "--since", "1h", "--limit", "1000")
    assert everything.returncode == 0
    assert "key_created" in everything.stdout
    assert caller["DATAPROC_SECRET"] not in everything.stdout
    assert opened["access_token"] not in everything.stdout
    assert shell.run("audit", "--since", "yesterday").returncode == 2


def test_operators(served: tuple[Shell, dict[str, str]]) -> None:
    """Sessions of all keys are listed and ended, use is shown by key, and a drained server takes nothing new."""
    shell, caller = served
    admin_key = shell.key("admin", "--scopes", "admin")
    admin = {**caller, "DATAPROC_APIKEY": admin_key["apikey"], "DATAPROC_SECRET": admin_key["secret"]}
    opened = told(shell, "session", "create", **caller)
    assert opened["session_id"] in [each["id"] for each in told(shell, "session", "list", "--all", **admin)]
    assert next(row for row in told(shell, "usage", **admin) if row["name"] == "caller")["sessions"]["open"] >= 1
    assert shell.run("session", "close", opened["session_id"], "--all", **admin).returncode == 0
    assert told(shell, "session", "get", opened["session_id"], **caller)["state"] == "ended"
    assert shell.run("session", "list", "--all", **caller).returncode == 3
    assert told(shell, "drain", "--wait", "5", **admin) == {"draining": True, "busy": 0}
    refused = shell.run("session", "create", **caller)
    assert (refused.returncode, "drained" in refused.stderr) == (4, True)
    assert told(shell, "drain", "--off", **admin)["draining"] is False
    told(shell, "session", "create", **caller)


def test_a_restart_keeps_clocks_and_tombstones(shell: Shell) -> None:
    """kill -9 or a stop: what was opened goes on, what was ended stays ended, and can be restored."""
    key = shell.key()
    env = {"DATAPROC_GRACE_PERIOD": "600"}
    with shell.serve(**env) as server:
        caller = {"DATAPROC_URL": server.url, "DATAPROC_APIKEY": key["apikey"], "DATAPROC_SECRET": key["secret"]}
        living = told(shell, "session", "create", "--expires-in", "1000", "--idle-timeout", "500", **caller)
        ended = told(shell, "session", "create", **caller)
        shell.run("session", "close", ended["session_id"], **caller)
        server.end(signal.SIGKILL)
    with shell.serve(**env) as server:
        caller["DATAPROC_URL"] = server.url
        view = told(shell, "session", "get", living["session_id"], **caller)
        assert view["state"] == "open"
        assert 900 < view["expires_in"] <= 1000
        assert 400 < view["idle_expires_in"] <= 500
        tombstone = told(shell, "session", "get", ended["session_id"], **caller)
        assert (tombstone["state"], tombstone["reason"]) == ("ended", "closed")
        assert told(shell, "session", "restore", ended["session_id"], **caller)["session_id"] == ended["session_id"]
