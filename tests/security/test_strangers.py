"""Promise: two sessions in the same module never see each other's globals, files or leavings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest


def test_nothing_that_one_remembers_is_found_by_another(server):
    """Globals, cache, environment, builtins, imported modules, /tmp, /dev/shm and locks are each session's own."""
    one, two = server.open_session(), server.open_session()
    worked = one.exec("globals.remember", value="one's own")
    assert {"memory", "/tmp", "/dev/shm"} <= set(worked)
    assert one.exec("globals.recall")["cache"] == "one's own"
    found = two.exec("globals.recall")
    assert {name: value for name, value in found.items() if value} == {}


def test_nothing_is_found_by_a_later_session(server):
    """Nor does a session that opens after another was closed inherit anything."""
    one = server.open_session()
    one.exec("globals.remember", value="gone")
    server.rpc("/api/v1/session/jsonrpc", "session.close_session", {"token": one.token}, server.key)
    found = server.open_session().exec("globals.recall")
    assert {name: value for name, value in found.items() if value} == {}


def test_two_at_once_keep_apart(server):
    """Many sessions that remember and recall at the same time each find their own value alone."""
    sessions = [server.open_session() for _ in range(6)]

    def use(number):
        sessions[number].exec("globals.remember", value=str(number))
        return sessions[number].exec("globals.recall")

    with ThreadPoolExecutor(6) as pool:
        for number, found in enumerate(pool.map(use, range(6))):
            assert found["list"] == [str(number)]
            assert found["/tmp"] == str(number)


def test_the_work_directory_is_empty_at_the_start(session):
    """What a run leaves in its work directory is gone before the next."""
    first, second = session.exec("globals.scratch"), session.exec("globals.scratch")
    assert first["before"] == second["before"] == []
    assert first["cwd"] == first["home"] == "/work"
    assert first["temporary"].startswith("/work/")


@pytest.mark.parametrize("how", ["closed", "shut", "deep"])
def test_the_work_directory_is_empty_whatever_was_left_there(session, how):
    """Folders without permissions and nests deeper than a path cost neither the result nor the next run's emptiness."""
    assert session.exec("globals.resist", how=how) == []
    assert session.exec("globals.resist", how=how) == []


def test_fork_false_gives_each_worker_its_own_interpreter(server):
    """A module that cannot be forked has its threads in every session."""
    assert server.open_session().exec("threaded.answer") is True
    assert server.open_session().exec("threaded.answer") is True
