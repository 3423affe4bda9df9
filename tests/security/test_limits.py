"""Promise: a run takes no more memory, processes, files and space than it may, and nobody else notices."""

from __future__ import annotations

import errno

import pytest

MiB = 2**20


@pytest.mark.parametrize("kind", ["private", "shared", "children", "memory files", "tables"])
def test_memory_of_every_kind_is_bounded(own_server, until, kind):
    """A tree that holds more than its bound is ended, whichever way it holds it; another session does not notice."""
    server = own_server("hog", "globals", "chatterbox", WORKER_MEMORY=128 * MiB)
    bystander, session = server.open_session(), server.open_session()
    bystander.exec("globals.remember", value="mine")
    error = session.error("hog.memory", kind=kind, size=512 * MiB)
    assert error.code in (-32005, -32006), error
    if error.code == -32005:  # the kernel refused it first
        assert error.data["type"] in ("MemoryError", "OSError")
    else:
        assert "DATAPROC_WORKER_MEMORY" in error.message
    assert bystander.exec("globals.recall")["cache"] == "mine"
    assert session.exec("hog.descriptors")["error"] == "EMFILE"


def test_memory_that_no_process_shows_is_refused(session):
    """System V semaphores, queues and segments would be the kernel's own memory, bounded and counted by nobody."""
    assert set(session.exec("hog.kernel_objects").values()) == {errno.EPERM}


def test_a_fork_bomb_is_bounded(session, bystander):
    """A thousand forks end at the worker's own bound, and none of them outlives the run."""
    told = session.exec("forker.bomb", count=1000)
    assert told["refused"]
    assert told["made"] < 64
    assert len(session.exec("forker.pids")) == 2


def test_a_bomb_of_forks_that_fork_is_bounded(session, bystander):
    """Forks that fork again end at the same bound, and are gone after the run."""
    assert session.exec("forker.tree_bomb", depth=12) is True
    assert len(session.exec("forker.pids")) == 2


def test_threads_are_bounded(session, bystander):
    """Threads count as processes."""
    told = session.exec("forker.threads", count=1000)
    assert told["refused"]
    assert told["made"] < 64


def test_one_session_cannot_starve_another_of_processes(server):
    """While one session holds all the processes it may, another can start its own."""
    one, two = server.open_session(), server.open_session()
    assert one.exec("forker.bomb", count=60)["made"] >= 50
    assert two.exec("forker.bomb", count=60)["made"] >= 50


def test_one_session_cannot_starve_another_of_watches_and_timers(server):
    """What the kernel counts by user, and all workers are one user, is shared out: others get theirs all the same."""
    sessions = [server.open_session() for _ in range(3)]
    for one in sessions:
        made = one.exec("hog.watches", most=100_000)
        assert 0 < made["queues"] <= 2
        assert 0 < made["timers"] <= 1024


def test_a_file_is_bounded(session, bystander):
    """A write beyond the limit fails with an error that the method sees, and the file ends there."""
    told = session.exec("hog.file", size=64 * MiB)
    assert told == {"written": 32 * MiB, "error": "EFBIG"}
    assert (session.files / "big").stat().st_size == 32 * MiB


def test_a_childs_file_is_bounded(session, bystander):
    """The limit holds for what the worker starts too."""
    assert session.exec("hog.child_file", size=64 * MiB) == 32 * MiB


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_private_places_are_bounded(session, bystander, place):
    """/tmp and /dev/shm are full at their size, however many files share it."""
    told = session.exec("hog.scratch", place=place, size=256 * MiB)
    assert told["error"] == "ENOSPC"
    assert told["written"] <= 64 * MiB


def test_open_files_are_bounded(session, bystander):
    """Descriptors end at the bound, and come back."""
    told = session.exec("hog.descriptors")
    assert told["error"] == "EMFILE"
    assert told["opened"] <= 256
    assert session.exec("hog.descriptors") == told


@pytest.mark.parametrize("what", ["memory", "processes"])
def test_an_import_is_bounded(own_server, what):
    """A module that takes memory or forks without measure at import is broken, and others serve on."""
    server = own_server("chatterbox", WORKER_MEMORY=256 * MiB, IMPORT_TIMEOUT=20)
    texts = {
        "memory": "kept = []\nwhile True: kept.append(bytearray(b'x') * 2**22)\n",
        "processes": "import os, signal\nwhile True:\n    if os.fork() == 0: signal.pause()\n",
    }
    session = server.open_session()
    assert session.exec("chatterbox.echo", value="before") == "before"
    (server.modules / "greedy").mkdir()
    (server.modules / "greedy/module.py").write_text(texts[what])
    error = session.error("greedy.anything")
    assert error.code == -32004, error
    assert session.exec("chatterbox.echo", value="after") == "after"
