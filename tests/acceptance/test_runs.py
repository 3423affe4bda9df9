"""`run`, and `exec` that follows or submits, against a real server."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import DATAPROC, Shell, until

MODULES = Path(__file__).parents[1] / "modules"


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a server, a key and a session."""
    shell = Shell(tmp_path_factory.mktemp("runs"), {"DATAPROC_MODULES_DIR": str(MODULES)})
    with shell.serve() as served:
        key = shell.key()
        shell.env |= {"DATAPROC_URL": served.url, "DATAPROC_APIKEY": key["apikey"], "DATAPROC_SECRET": key["secret"]}
        opened = json.loads(shell.run("session", "open", "-o", "json").stdout)
        shell.env["DATAPROC_SESSION_TOKEN"] = opened["access_token"]
        yield shell


def test_follow_shows_output_and_prints_the_result(caller: Shell) -> None:
    """What the method prints comes on stderr, its result alone on stdout."""
    done = caller.run("exec", "worker.count", "steps=2", "--follow")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "step 1\nstep 2\n")


def test_follow_ends_as_the_run_does(caller: Shell) -> None:
    """A run that fails is told as `exec` tells it, with the same exit code."""
    followed, plain = caller.run("exec", "echo.fail", "--follow"), caller.run("exec", "echo.fail")
    assert (followed.returncode, followed.stdout) == (plain.returncode, plain.stdout) == (1, "")
    assert "ValueError" in followed.stderr


def test_a_run_by_its_id(caller: Shell) -> None:
    """Submitted, found in the list, followed, shown, and its log read."""
    run = caller.run("exec", "worker.count", "--submit").stdout.strip()
    assert caller.run("run", "logs", "-f", run).stdout == "step 1\nstep 2\nstep 3\n"
    shown = json.loads(caller.run("run", "get", run, "--wait", "-o", "json").stdout)
    assert (shown["run_id"], shown["status"], shown["result"]) == (run, "completed", 3)
    assert run in [each["run_id"] for each in json.loads(caller.run("run", "list", "-o", "json").stdout)]
    assert run in caller.run("run", "list", "--module", "worker").stdout
    assert caller.run("run", "logs", run).stdout == "step 1\nstep 2\nstep 3\n"
    unknown = caller.run("run", "get", "no-such-run")
    assert (unknown.returncode, "not_found" in unknown.stderr) == (3, True)


def test_cancel(caller: Shell) -> None:
    """A run that would go on for ever ends as cancelled; twice is no error."""
    run = caller.run("exec", "worker.until", "name=never", "--submit").stdout.strip()
    assert [caller.run("run", "cancel", run).returncode for _ in range(2)] == [0, 0]
    assert json.loads(caller.run("run", "get", run, "--wait", "-o", "json").stdout)["status"] == "cancelled"


def test_ctrl_c_leaves_the_run_alone(caller: Shell) -> None:
    """Whoever stops following is told how to come back."""
    asked = [DATAPROC, "exec", "worker.until", "name=later", "--follow"]
    with subprocess.Popen(asked, env=caller.env, cwd=caller.folder, stderr=subprocess.PIPE, text=True) as following:
        assert following.stderr is not None
        assert following.stderr.readline() == "started\n"
        following.send_signal(signal.SIGINT)
        said = following.stderr.read()
    assert following.returncode == 130
    run = said.split("logs -f ")[1].split(",")[0]
    assert json.loads(caller.run("run", "get", run, "-o", "json").stdout)["status"] == "running"
    caller.run("run", "cancel", run)
    assert until(lambda: json.loads(caller.run("run", "get", run, "-o", "json").stdout)["status"]) != "completed"
