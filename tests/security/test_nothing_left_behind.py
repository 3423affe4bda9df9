"""Promise: no process outlives its run, its session or the server, whatever it does and whatever ends."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest


def test_a_daemon_is_gone_after_its_run(session, bystander):
    """A process that left its session and group, and ignores signals, is gone when the next run looks."""
    session.exec("forker.leave_behind")
    assert session.exec("forker.held") is False
    assert len(session.exec("forker.pids")) == 2


@pytest.mark.parametrize("how", ["closed", "deep"])
def test_no_leavings_keep_a_server_from_starting(own_server, restart, until, how):
    """What a run that died left in its work directory is gone, or goes when the server starts again."""
    server = own_server("globals")
    session = server.open_session()
    assert session.error("globals.resist", how=how, die=True).code == -32006
    (work,) = (server.storage / ".node" / "work").iterdir()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(30)
    session.server = restart(server)
    assert session.exec("globals.scratch")["before"] == []
    until(lambda: not any((work / "gone").iterdir()))


def alive(pids: list[int]) -> list[int]:
    """Those of the pids that still run; a zombie of somebody else's does not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def busy(server, session, until):
    """Start a run that waits; the pids of all that runs then."""
    thread = threading.Thread(target=_quietly, args=(session, "sleeper.wait_for"), kwargs={"name": "never"})
    thread.start()
    until(lambda: (session.files / "never.started").exists())
    return thread, server.pids()


def _quietly(session, method, **params):
    try:
        session.exec(method, **params)
    except Exception:
        return


def test_a_killed_server_leaves_no_process(own_server, until):
    """After kill -9 in the middle of a call nothing of the server runs any more."""
    server = own_server("sleeper", "forker")
    session = server.open_session()
    server.open_session().exec("forker.held")
    thread, pids = busy(server, session, until)
    assert len(pids) > 4
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(30)
    until(lambda: not alive(pids), 10)
    thread.join(30)


def test_a_stopped_server_leaves_no_process(own_server, until):
    """SIGTERM ends everything within the close wait, also with a call under way."""
    server = own_server("sleeper")
    thread, pids = busy(server, server.open_session(), until)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    assert alive(pids) == []
    thread.join(30)


def test_a_killed_keeper_is_replaced(own_server, until):
    """Where the trusted helper process dies, its children go with it and the next call gets new ones."""
    server = own_server("sleeper", "chatterbox")
    session = server.open_session()
    assert session.exec("chatterbox.echo", value="before") == "before"
    below = server.pids()[1:]
    os.kill(below[0], signal.SIGKILL)
    until(lambda: not alive(below), 10)
    assert until(lambda: _answer(session), 30) == "after"


def _answer(session):
    try:
        return session.exec("chatterbox.echo", value="after")
    except Exception:
        return None
