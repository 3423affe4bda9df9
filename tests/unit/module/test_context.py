"""What a running method is given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dataproc.module import Context


def test_progress_is_held_to_a_rate_but_its_end_is_told() -> None:
    """A thousand reports in a moment become a few, and the last one is among them."""
    told: list[dict[str, Any]] = []
    ctx = Context(Path("/session"), report=told.append)
    for step in range(1, 1001):
        ctx.progress(step / 1000, f"row {step}")
    assert len(told) < 100
    assert told[0] == {"fraction": 0.001, "message": "row 1"}
    assert told[-1] == {"fraction": 1.0, "message": "row 1000"}


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, "0.5", None])
def test_progress_is_a_fraction(fraction: Any) -> None:
    """Anything but a number from 0 to 1 is the author's mistake."""
    with pytest.raises(ValueError, match="fraction must be a number from 0 to 1"):
        Context(Path("/session")).progress(fraction)


def test_what_a_run_does_not_have_is_told() -> None:
    """No application directory and no locks are LookupErrors, not None."""
    ctx = Context(Path("/session"))
    with pytest.raises(LookupError, match="no application directory"):
        _ = ctx.application
    with pytest.raises(LookupError, match="no folder for locks"):
        ctx.lock("x")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101])
def test_a_locks_name_is_no_path(name: str) -> None:
    """A lock cannot be made outside its folder."""
    with pytest.raises(ValueError, match="is no name for a lock"):
        Context(Path("/session"), locks=Path("/locks")).lock(name)


def test_the_same_lock_can_be_taken_twice_in_one_run(tmp_path: Path) -> None:
    """Nested use in one run does not block; another run's is kept out."""
    ctx, other = Context(tmp_path, locks=tmp_path), Context(tmp_path, locks=tmp_path)
    with ctx.lock("table"), ctx.lock("table"), pytest.raises(TimeoutError), other.lock("table", timeout=0):
        pass
    with other.lock("table", timeout=0):
        pass


def test_fs_is_rooted_in_the_session(tmp_path: Path) -> None:
    """Names are relative to the session directory."""
    (tmp_path / "a.txt").write_text("x")
    ctx = Context(tmp_path)
    assert ctx.fs.ls("", detail=False) == ["a.txt"]
    assert ctx.fs.cat("a.txt") == b"x"


def test_a_log_line_is_one_json_object_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Event, level and time stand in it beside the values, whatever these are called and hold."""
    Context(Path("/session")).log.warning("rows left out", rows=3, level="x", what=object(), share=math.nan)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["rows"]) == ("rows left out", "warning", 3)
    assert line["what"].startswith("<object object")
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("words", "event"), [((3, "a"), "3 rows of a"), ((3,), "%d rows of %s (3,)"), (("x", object), "%d rows of %s (")]
)
def test_words_are_filled_into_the_event(
    capsys: pytest.CaptureFixture[str], words: tuple[Any, ...], event: str
) -> None:
    """As with the loggers of the standard library; where they do not fit, the line says so and nothing is raised."""
    Context(Path("/session")).log.info("%d rows of %s", *words, n=1)
    line = json.loads(capsys.readouterr().err)
    assert line["event"].startswith(event)
    assert line["n"] == 1


def test_cancelled_asks_each_time() -> None:
    """The flag is looked up when it is read."""
    answers = iter([False, True])
    ctx = Context(Path("/session"), cancelled=lambda: next(answers))
    assert (ctx.cancelled, ctx.cancelled) == (False, True)
