"""Promise: whatever a run says, and wherever it says it, costs that run alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

MiB = 2**20


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_is_counted_and_dropped(session, bystander, server, stream):
    """A hundred times the bound is written without an error; no more than the bound is kept anywhere."""
    assert session.exec("chatterbox.flood", size=100 * MiB, stream=stream) >= 100 * MiB
    files = [Path(top, name) for top, _, names in os.walk(server.storage) for name in names]  # folders come and go
    kept = [path.lstat().st_size for path in files if path.suffix == ".log"]
    assert MiB <= max(kept) < 2 * MiB


def test_a_childs_flood_is_dropped_too(session, bystander):
    """A child process that writes without end does not block and does not fail."""
    assert session.exec("chatterbox.child_flood", size=50 * MiB) == 0


def test_a_thread_that_goes_on_writing_holds_nobody_up(session, bystander):
    """A flood from an idle worker does not keep the server from answering others."""
    assert session.exec("chatterbox.haunt", seconds=3) == "haunted"
    end, served = time.monotonic() + 2, 0
    while time.monotonic() < end:
        assert bystander.exec("chatterbox.echo", value="x") == "x"
        served += 1
    assert served > 20


GARBAGE = {
    "zeros": "00000000",
    "long frame": "ffffffff",
    "no JSON": "00000004deadbeef",
    "JSON of no meaning": "00000002" + b"{}".hex(),
    "no object": "00000002" + b"[]".hex(),
    "deep": "000186a0" + (b"[" * 100_000).hex(),
    "a lie": "00000026" + b'{"done":"returned","result":"a result"}'[:38].hex(),
    "ready": "0000000e" + b'{"ready":true}'.hex(),
    "wrong kinds": "00000015" + b'{"done":["x"],"r":{}}'.hex(),
    "long number": "00002711" + (b"1" * 10_001).hex(),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_on_every_descriptor_hurts_that_run_alone(session, bystander, kind):
    """The call ends, by an error or by its own answer; the session's next call works."""
    try:
        told = session.exec("chatterbox.garbage", text=GARBAGE[kind])
    except Exception as error:
        told = getattr(error, "code", error)
    assert told in ("written", -32005, -32006) or kind == "a lie", told
    assert session.exec("chatterbox.echo", value="next") == "next"


def test_much_garbage_is_not_read_without_end(session, bystander):
    """A megabyte of nonsense ends the worker, not the server."""
    session.error("chatterbox.garbage", text="ff" * 1024, repeat=1024)
    assert session.exec("chatterbox.echo", value="next") == "next"


def test_closing_every_descriptor_is_a_crash(session, bystander):
    """A worker that closed its socket is replaced."""
    assert session.error("chatterbox.close_all").code == -32006
    assert session.exec("chatterbox.echo", value="next") == "next"


def test_half_a_frame_and_death_is_a_crash(session, bystander):
    """What came before the end is thrown away with the worker."""
    assert session.error("chatterbox.half", text="00000100" + b'{"done":'.hex()).code == -32006
    assert session.exec("chatterbox.echo", value="next") == "next"
