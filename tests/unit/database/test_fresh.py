"""Answers that are believed for a moment."""

from __future__ import annotations

import asyncio

import pytest

from dataproc.clock import ManualClock
from dataproc.database.fresh import Answer, Fresh, Gone
from dataproc.errors import NotFound


async def _one() -> Answer[int]:
    return Answer(1)


async def test_an_answer_is_believed_for_its_time() -> None:
    """An answer is there until its seconds have run out, and not at that instant."""
    clock = ManualClock()
    fresh: Fresh[str, int] = Fresh(clock, 1.0, 10)
    await fresh.ask("a", _one)
    clock.advance(0.99)
    assert fresh.get("a") == 1
    clock.advance(0.01)
    assert fresh.get("a") is None


async def test_time_counts_from_before_the_question() -> None:
    """What the database said long ago is old when it arrives."""
    clock = ManualClock()
    fresh: Fresh[str, int] = Fresh(clock, 1.0, 10)

    async def slow() -> Answer[int]:
        clock.advance(1.5)
        return Answer(1)

    assert await fresh.ask("a", slow) == 1
    assert fresh.get("a") is None


async def test_an_answer_may_be_good_for_less() -> None:
    """A session that has half a second left is believed for half a second."""
    clock = ManualClock()
    fresh: Fresh[str, int] = Fresh(clock, 1.0, 10)

    async def ending() -> Answer[int]:
        return Answer(1, 0.5)

    await fresh.ask("a", ending)
    clock.advance(0.5)
    assert fresh.get("a") is None


async def test_a_jump_of_the_wall_clock_changes_nothing() -> None:
    """Freshness is measured by the monotonic clock."""
    clock = ManualClock()
    fresh: Fresh[str, int] = Fresh(clock, 1.0, 10)
    await fresh.ask("a", _one)
    clock.jump(86400)
    assert fresh.get("a") == 1


async def test_who_asks_at_once_shares_one_question() -> None:
    """A hundred callers of one token are one look into the database."""
    fresh: Fresh[str, int] = Fresh(ManualClock(), 1.0, 10)
    asked = 0
    go = asyncio.Event()

    async def question() -> Answer[int]:
        nonlocal asked
        asked += 1
        await go.wait()
        return Answer(7)

    callers = [asyncio.create_task(fresh.ask("a", question)) for _ in range(100)]
    await asyncio.sleep(0)
    callers[0].cancel()  # the one who asked first goes away
    go.set()
    assert set(await asyncio.gather(*callers[1:])) == {7}
    assert asked == 1


async def test_errors_are_not_kept() -> None:
    """A token that is unknown now may be known at the next question."""
    fresh: Fresh[str, int] = Fresh(ManualClock(), 1.0, 10)

    async def nothing() -> Answer[int]:
        raise NotFound("no")

    with pytest.raises(NotFound):
        await fresh.ask("a", nothing)
    assert await fresh.ask("a", _one) == 1


async def test_what_is_dropped_while_it_is_asked_is_not_kept() -> None:
    """An answer that was true before the drop does not come back after it."""
    fresh: Fresh[str, int] = Fresh(ManualClock(), 1.0, 10)

    async def question() -> Answer[int]:
        fresh.drop("a")
        return Answer(1)

    assert await fresh.ask("a", question) == 1
    assert fresh.get("a") is None


async def test_it_is_bounded() -> None:
    """The oldest answers go first."""
    fresh: Fresh[int, int] = Fresh(ManualClock(), 1.0, 3)
    for key in range(5):
        await fresh.ask(key, _one)
    assert [fresh.get(key) for key in range(5)] == [None, None, 1, 1, 1]


def test_gone_is_bounded_and_can_be_taken_back() -> None:
    """Ids that ended are known until so many more have ended."""
    gone = Gone()
    for each in range(gone.SIZE + 1):
        gone.add(str(each))
    assert "0" not in gone
    assert "1" in gone
    gone.discard("1")
    assert "1" not in gone
