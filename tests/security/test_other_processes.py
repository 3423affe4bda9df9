"""Promise: a run can neither see, signal, trace nor read any process but those that it started."""

from __future__ import annotations

import os


def test_it_sees_its_own_alone(session, bystander, server):
    """/proc shows the worker and process 1 of its namespace, and lets neither be looked into beyond the worker."""
    shown = session.exec("prober.processes")
    assert set(shown) == {"1", "2"}
    assert {name: told for name, told in shown["1"].items() if told == "worked" and name != "command"} == {}


def test_it_signals_nobody(session, bystander, server):
    """The server, the zygotes and another session's worker live on; most cannot even be named."""
    before = server.pids()
    told = session.exec("prober.signals", pids=[*before, os.getpid()])
    assert set(told) <= {"1", "parent"}, told
    assert server.process.poll() is None
    assert set(before) <= set(server.pids())


def test_it_ends_itself_alone_by_signalling_all(session, bystander, server):
    """A signal to everybody reaches the worker's own namespace and no more."""
    assert session.error("crasher.kill", number=9).data["signal"] == 9
    assert session.exec("chatterbox.echo", value="again") == "again"


def test_it_traces_nobody(session, bystander, server):
    """No tracing, no reading of other memory, not even of itself by those calls."""
    told = session.exec("prober.traces", pids=server.pids())
    assert "worked" not in told.values(), told
