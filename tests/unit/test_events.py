"""The event log of a run: numbers, pieces of output, what a crash leaves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dataproc.events import PIECE, Event, EventLog, Folder
from dataproc.runs import Run, RunStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(**chosen: Any) -> Run:
    known = {"id": "run-01", "key": "k", "session": "s", "module": "m", "method": "f", "created_at": NOW}
    return Run(**{**known, **chosen})


RUNNING = a_run(status=RunStatus.RUNNING, started_at=NOW)
DONE = a_run(status=RunStatus.COMPLETED, started_at=NOW, ended_at=NOW)


def printed(folder: Folder, text: bytes) -> None:
    folder.log("run-01").parent.mkdir(parents=True, exist_ok=True)
    folder.log("run-01").write_bytes(text)


def told(folder: Folder, run: Run, after: int = 0) -> list[Event]:
    return [folder.shown(run.id, event) for event in folder.read(run, after)]


async def test_a_silent_run_makes_no_file(tmp_path: Path) -> None:
    """Its states are told from its record."""
    folder = Folder(tmp_path)
    log = EventLog(folder, RUNNING)
    log.state(DONE)
    log.close()
    assert list(tmp_path.rglob("*")) == []
    assert [event.data["status"] for event in told(folder, DONE)] == ["queued", "running", "completed"]


async def test_numbers_mean_the_same_for_ever(tmp_path: Path) -> None:
    """What a watcher was shown is what is read afterwards, from any number on."""
    folder = Folder(tmp_path)
    log = EventLog(folder, RUNNING)
    log.watch()
    log.progress({"fraction": 0.5, "message": "half"})
    printed(folder, b"hello\n")
    log.output(6)
    log.flush()
    live = [folder.shown("run-01", event) for event in log.since(0)]
    log.state(DONE)
    log.close()
    after = told(folder, DONE)
    assert after[: len(live)] == live
    assert [event.id for event in after] == [1, 2, 3, 4, 5]
    assert [event.kind for event in after] == ["state", "state", "progress", "log", "state"]
    assert told(folder, DONE, 3) == after[3:]


async def test_a_crash_loses_only_what_nobody_was_shown(tmp_path: Path) -> None:
    """Half a line at the end counts for nothing; output beyond it and the end are told all the same."""
    folder = Folder(tmp_path)
    log = EventLog(folder, RUNNING)
    log.watch()
    printed(folder, b"one\ntwo\n")
    log.output(4)
    log.flush()
    log.close()
    with folder.events("run-01").open("ab") as file:
        file.write(b'[4,"prog')
    gone = a_run(status=RunStatus.INTERRUPTED, started_at=NOW, ended_at=NOW, submitted=True)
    found = told(folder, gone)
    assert [event.data.get("text") for event in found if event.kind == "log"] == ["one\n", "two\n"]
    assert found[-1].data["status"] == "interrupted"
    again = EventLog(folder, a_run(submitted=True))
    again.watch()
    again.progress({"fraction": 1.0, "message": ""})
    again.close()
    assert [event.id for event in folder.read(a_run(), 0)] == [1, 2, 3, 4]


async def test_output_is_cut_between_characters(tmp_path: Path) -> None:
    """Large output comes in pieces, each of whole characters."""
    folder = Folder(tmp_path)
    text = "€" * PIECE
    printed(folder, text.encode())
    log = EventLog(folder, RUNNING)
    log.watch()
    log.output(len(text.encode()))
    log.flush()
    pieces = [folder.shown("run-01", event).data for event in log.since(2)]
    assert len(pieces) > 3
    assert "".join(piece["text"] for piece in pieces) == text
    log.close()


async def test_a_second_attempt_is_a_state_of_its_own(tmp_path: Path) -> None:
    """A run that is tried again is queued and running once more."""
    folder = Folder(tmp_path)
    log = EventLog(folder, RUNNING)
    log.watch()
    log.state(a_run(attempt=2))
    log.state(a_run(attempt=2, status=RunStatus.RUNNING, started_at=NOW))
    log.state(DONE)
    log.close()
    states = [event.data["status"] for event in told(folder, DONE)]
    assert states == ["queued", "running", "queued", "running", "completed"]


def test_old_logs_are_deleted(tmp_path: Path) -> None:
    """By the time of their last byte."""
    folder = Folder(tmp_path)
    printed(folder, b"x")
    folder.forget(60)
    assert folder.log("run-01").exists()
    folder.forget(-60)
    assert not folder.log("run-01").exists()
    Folder(tmp_path / "none").forget(60)


def test_pieces_of_a_log(tmp_path: Path) -> None:
    """Where to go on is told in bytes; beyond the end there is nothing."""
    folder = Folder(tmp_path)
    assert folder.text("run-01", 0, 10) == ("", 0, True)
    printed(folder, "aä".encode())
    assert folder.text("run-01", 0, 2) == ("a", 1, False)
    assert folder.text("run-01", 1, 2) == ("ä", 3, True)
    assert folder.text("run-01", 3, 2) == ("", 3, True)
    assert folder.text("run-01", 99, 2) == ("", 3, True)
