"""Promise: a module that is being imported is already walled in: its import can do no more than its runs."""

from __future__ import annotations

SECRET = "the-gateway-secret-of-these-tests"


def test_its_tries_fail(session, listeners):
    """Nothing it tried at import came through: no file, no socket, no signal, no trace, no change of its code."""
    told = session.exec("importing.tries")
    assert {name for name, one in told.items() if one == "worked"} == set()
    assert len(told) > 15
    assert listeners.reached() == []


def test_its_environment_is_clean(session, server):
    """The process that imports has nothing of the server's environment."""
    text = repr(session.exec("importing.environment"))
    assert SECRET not in text
    assert "DATAPROC_" not in text
    assert str(server.folder) not in text


def test_it_sees_no_process_but_itself(session, server):
    """Its PID namespace is its own: nothing of the server runs in it."""
    shown = session.exec("importing.processes")
    assert "1" in shown
    assert all("serve" not in command for command in shown.values())
    assert len(shown) <= 3
